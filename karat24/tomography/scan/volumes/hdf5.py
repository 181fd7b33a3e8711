"""HDF5: the one array of three dimensions in a file, or the one that is named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.volumes.volume import (
    About,
    Source,
    checked,
    file_identity,
    numbered,
    shape_along,
    taken_along,
)

VOXEL_ATTRIBUTES = ("voxel_size_micrometers", "element_size_um")
"""Attributes of an array with its voxel's size along each axis, in micrometres."""


def h5py() -> Any:
    """The library. Raises UsageError where it is missing."""
    try:
        import h5py as module
    except ImportError as error:
        raise UsageError("HDF5 files need h5py: pip install 'karat24[scan]'") from error
    return module


def opened(path: Path) -> Any:
    """The file, for reading. Raises FeedError for one that is damaged or cut short."""
    try:
        return h5py().File(path, "r")
    except OSError as error:
        raise FeedError(
            f"{path}: not a whole HDF5 file ({' '.join(str(error).split())}); copy or write it again"
        ) from error


class Hdf5Volume:
    """One array of an HDF5 file. The file stays open for reading; a handle belongs to one process."""

    def __init__(self, source: Source) -> None:
        self._source = source
        file = opened(source.path)
        refuse_projections(source.path, file)
        self._array = chosen_array(source, file)
        name = self._array.name
        where = f"{source.path}: {name}"
        identity = {**file_identity(source.path), "dataset": name, "axis": str(source.axis)}
        identity |= _virtual_parts(source.path, self._array)
        shape = shape_along(where, self._array.shape, source.axis)
        self.about = checked(
            where,
            About(
                kind=f"HDF5 array {name}, slices along axis {source.axis}",
                shape=shape,
                dtype=self._array.dtype.newbyteorder("="),
                names=numbered(shape[0]),
                identity=identity,
                voxel=_voxel(self._array, source.axis),
            ),
        )

    def read(self, index: int) -> Array:
        """Slice ``[y, x]``."""
        try:
            return taken_along(self._array, self._source.axis, index)
        except (OSError, RuntimeError) as error:
            raise FeedError(
                f"{self._source.path}: slice {index} of {self._array.name} cannot be read "
                f"({' '.join(str(error).split())}); copy the file again, or pip install hdf5plugin if it is "
                "compressed by a filter of that"
            ) from error


def refuse_projections(path: Path, file: Any) -> None:
    """Raises FeedError for a raw scan: its arrays hold projections, not slices."""
    if (sign := raw_sign(file)) is not None:
        raise FeedError(
            f"{path}: holds projections, not slices ({sign}); reconstruct it first: "
            f"karat24 reconstruct {path} OUT, then karat24 restore OUT …"
        )


def raw_sign(file: Any) -> str | None:
    """What in a file says that it is a raw scan, None if nothing does."""
    for name in ("exchange/data_white", "exchange/data_dark", "exchange/theta"):
        if name in file:
            return f"DXchange, it has {name}"
    if (key := image_key_of(file)) is not None:
        return f"NXtomo, it has {key}"
    if "exchange/data" in file:
        axes = file["exchange/data"].attrs.get("axes", "")
        axes = axes.decode("utf-8", "replace") if isinstance(axes, bytes) else str(axes)
        if axes.startswith("theta"):
            return f"the axes of exchange/data are {axes}"
    return None


def image_key_of(file: Any) -> str | None:
    """The path of NXtomo's ``image_key``, None where there is none."""
    for entry in file:
        for name in (f"{entry}/instrument/detector/image_key", f"{entry}/data/image_key"):
            if name in file:
                return name
    return None


def chosen_array(source: Source, file: Any) -> Any:
    """The array that is named, else the only one of three dimensions. Raises FeedError, UsageError."""
    dataset_type = h5py().Dataset
    if source.dataset is not None:
        if source.dataset not in file or not isinstance(file[source.dataset], dataset_type):
            raise UsageError(f"{source.path}: no array {source.dataset!r}; it holds {_listed(file)}")
        return file[source.dataset]
    found: list[Any] = []

    def collect(_name: str, item: Any) -> None:
        if isinstance(item, dataset_type) and item.ndim == 3 and item.dtype.kind in "uif":
            found.append(item)

    file.visititems(collect)
    if len(found) != 1:
        raise UsageError(
            f"{source.path}: holds {len(found)} arrays of three dimensions; name one with --dataset: "
            f"{_listed(file)}"
        )
    return found[0]


def _listed(file: Any) -> str:
    names: list[str] = []
    dataset_type = h5py().Dataset
    file.visititems(
        lambda name, item: names.append(f"{name} {item.shape}") if isinstance(item, dataset_type) else None
    )
    return ", ".join(names[:12]) or "no array"


def _voxel(array: Any, axis: int) -> tuple[float, float, float] | None:
    """Micrometres along the volume's z, y and x, from an attribute in which karat24 or ilastik keeps them."""
    for name in VOXEL_ATTRIBUTES:
        found = array.attrs.get(name)
        if found is None:
            continue
        text = found.decode("utf-8", "replace") if isinstance(found, bytes) else found
        try:
            sizes = [float(size) for size in (text.split() if isinstance(text, str) else text)]
        except (TypeError, ValueError):
            continue
        if len(sizes) == 3 and all(0 <= size < math.inf for size in sizes) and any(sizes):
            first = sizes.pop(axis)
            return first, sizes[0], sizes[1]
    return None


def _virtual_parts(path: Path, array: Any) -> dict[str, str]:
    """The files a virtual array is made of. Raises FeedError for one that is missing: HDF5 would give the
    fill value in its place, without a word."""
    if not array.is_virtual:
        return {}
    parts = {}
    for part in array.virtual_sources():
        if part.file_name == ".":
            continue
        file = Path(part.file_name)
        file = file if file.is_absolute() else path.parent / file
        if not file.is_file():
            raise FeedError(
                f"{path}: {array.name} is virtual, and the part {part.file_name} is missing; copy it, too"
            )
        parts[f"part {part.file_name}"] = str(file_identity(file))
    return parts


def open_hdf5(source: Source) -> Hdf5Volume:
    """An HDF5 file."""
    return Hdf5Volume(source)
