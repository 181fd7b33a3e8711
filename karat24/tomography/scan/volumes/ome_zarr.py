"""Zarr (format 2 and 3): a single array, or level 0 of an OME-Zarr image (0.4 and 0.5)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.files import digest
from karat24.tomography.scan.volumes.volume import (
    About,
    Source,
    checked,
    file_identity,
    native,
    numbered,
    shape_along,
)

MOST_COUNTED = 20_000
MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
UNREADABLE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, RuntimeError,
    MemoryError, zlib.error,
)  # fmt: skip


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / mark).is_file() for mark in MARKS)


class ZarrVolume:
    """One array of a Zarr store; axes of length 1 (time, channel) are left out."""

    def __init__(self, source: Source) -> None:
        try:
            import zarr
        except ImportError as error:
            raise UsageError("Zarr stores need zarr: pip install 'karat24[scan]'") from error
        self._source = source
        where = str(source.path)
        try:
            array, image = _array_and_image(source, zarr.open(where, mode="r"))
            # Chunks are counted one by one, and a hostile shape may name any number of them.
            counted = array.nchunks <= MOST_COUNTED
            absent = array.nchunks - array.nchunks_initialized if counted else 0
            voxel = _voxel(image, source.axis, array.shape)
        except UNREADABLE as error:
            raise FeedError(
                f"{where}: not a readable Zarr store ({' '.join(str(error).split())}); copy it again"
            ) from error
        self._array = array
        self._single = tuple(size == 1 and len(array.shape) > 3 for size in array.shape)
        sizes = tuple(size for size, single in zip(array.shape, self._single, strict=True) if not single)
        shape = shape_along(f"{where}: {array.path}", sizes, source.axis)
        remarks = (f"{absent} of {array.nchunks} chunks are absent and read as {array.fill_value}",)
        self.about = checked(
            where,
            About(
                kind=f"Zarr array {array.path or '/'}, slices along axis {source.axis}",
                shape=shape,
                dtype=array.dtype.newbyteorder("="),
                names=numbered(shape[0]),
                identity={
                    "metadata": _metadata_digest(source.path, array.path),
                    "array": array.path,
                    **({"chunks": _chunks_digest(source.path / array.path)} if counted else {}),
                },
                voxel=voxel,
                remarks=remarks if absent else (),
            ),
        )

    def read(self, index: int) -> Array:
        """Slice ``[y, x]``."""
        place: list[int | slice] = []
        for single in self._single:
            place.append(0 if single else slice(None))
        kept = [number for number, single in enumerate(self._single) if not single]
        place[kept[self._source.axis]] = index
        try:
            return native(self._array[tuple(place)])
        except UNREADABLE as error:
            raise FeedError(
                f"{self._source.path}: slice {index} cannot be read ({' '.join(str(error).split())}); copy "
                "the store again"
            ) from error


def _array_and_image(source: Source, opened: Any) -> tuple[Any, Mapping[str, Any]]:
    """The array, and the OME-Zarr description of the image that it is level 0 of, empty for plain Zarr."""
    if hasattr(opened, "nchunks"):
        return opened, {}
    attributes = dict(opened.attrs)
    images = attributes.get("ome", attributes).get("multiscales", [])
    first = images[0]["datasets"][0]["path"] if images else None
    if source.dataset is not None:
        return _named(source, opened), images[0] if source.dataset.strip("/") == first else {}
    if first is not None:
        return opened[first], images[0]
    arrays = [array for _, array in opened.arrays() if sum(size > 1 for size in array.shape) >= 2]
    if len(arrays) != 1:
        raise UsageError(
            f"{source.path}: no image of OME-Zarr and {len(arrays)} arrays; name one with --dataset: "
            f"{', '.join(sorted(opened.array_keys())) or 'there is none'}"
        )
    return arrays[0], {}


def _named(source: Source, group: Any) -> Any:
    found = group.get(source.dataset)
    if found is None or not hasattr(found, "nchunks"):
        raise UsageError(f"{source.path}: no array {source.dataset!r}")
    return found


def _voxel(image: Mapping[str, Any], axis: int, shape: tuple[int, ...]) -> tuple[float, float, float] | None:
    """Micrometres along the volume's z, y and x."""
    if not image:
        return None
    scales = [
        transform["scale"]
        for transform in image["datasets"][0].get("coordinateTransformations", [])
        if transform.get("type") == "scale"
    ]
    if not scales:
        return None
    space = [
        float(size) * MICROMETRES.get(named.get("unit", ""), 0.0)
        for size, named, length in zip(scales[0], image["axes"], shape, strict=True)
        if named.get("type") == "space" and not (length == 1 and len(shape) > 3)
    ]
    if len(space) != 3 or not min(space) > 0:
        return None
    first = space.pop(axis)
    return first, space[0], space[1]


def _metadata_digest(root: Path, array: str) -> str:
    folders = (root, root / array)
    found = [folder / mark for folder in folders for mark in MARKS if (folder / mark).is_file()]
    return digest(b"".join(path.name.encode() + path.read_bytes() for path in found))


def _chunks_digest(folder: Path) -> str:
    """Of names, sizes and times of the files that hold an array: a chunk that was written again tells."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    listed = sorted(f"{path.relative_to(folder).as_posix()} {file_identity(path)}" for path in found)
    return digest("\n".join(listed).encode("utf-8", "surrogateescape"))


def open_zarr(source: Source) -> ZarrVolume:
    """A Zarr store."""
    return ZarrVolume(source)
