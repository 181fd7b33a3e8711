"""TIFF: a folder with one file per slice, or one file with many pages (BigTIFF and ImageJ's stacks, too)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.files import digest
from karat24.tomography.scan.volumes.series import in_order
from karat24.tomography.scan.volumes.volume import (
    About,
    Source,
    checked,
    file_identity,
    native,
    numbered,
    shape_along,
    taken_along,
)

SUFFIXES = (".tif", ".tiff")
MICROMETRES = {2: 25400.0, 3: 10000.0}
"""Micrometres in TIFF's units of resolution, by their number: inch and centimetre."""
IMAGEJ_UNITS = {"um": 1.0, "µm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}

UNREADABLE = (
    OSError, ValueError, KeyError, IndexError, TypeError, ArithmeticError, RuntimeError, MemoryError,
    AssertionError, AttributeError, struct.error, zlib.error,
)  # fmt: skip
"""What decoders raise for damaged files, beside errors of their own."""


def tifffile() -> Any:
    """The library. Raises UsageError where it is missing."""
    try:
        import tifffile as module
    except ImportError as error:
        raise UsageError("TIFF files need tifffile: pip install 'karat24[scan]'") from error
    return module


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A TIFF file; whatever is wrong with it becomes a FeedError."""
    library = tifffile()
    try:
        with library.TiffFile(path) as file:
            if not len(file.pages):
                raise FeedError(f"{path}: a TIFF file without a page")
            yield file
    except (library.TiffFileError, *UNREADABLE) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        advice = "pip install imagecodecs" if "imagecodecs" in reason else "copy or reconstruct it again"
        raise FeedError(f"{path}: cannot be read as TIFF ({reason}); {advice}") from error


class TiffFolder:
    """One file per slice."""

    def __init__(self, source: Source) -> None:
        folder = source.path
        names = [
            path.name
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
        if not names:
            raise UsageError(
                f"{folder}: holds no TIFF file; give the folder with one file per slice (.tif or .tiff)"
            )
        self._paths = [folder / name for name in in_order(str(folder), names, source.allow_gaps)]
        with opened(self._paths[0]) as file:
            shape, dtype, voxel = _page(self._paths[0], file)
        for path in self._paths[1:]:
            with opened(path) as file:
                found = _page(path, file)
            if found[:2] != (shape, dtype):
                raise FeedError(
                    f"{folder}: {path.name} holds {_described(*found[:2])} and {self._paths[0].name} "
                    f"{_described(shape, dtype)}; all slices must be alike"
                )
        listed = [f"{path.name} {file_identity(path)}" for path in self._paths]
        self.about = checked(
            str(folder),
            About(
                kind="TIFF folder",
                shape=(len(self._paths), *shape),
                dtype=dtype,
                names=tuple(path.stem for path in self._paths),
                identity={"files": digest("\n".join(listed).encode())},
                voxel=voxel,
                suffix=self._paths[0].suffix,
            ),
        )

    def read(self, index: int) -> Array:
        """Slice ``[y, x]``."""
        path = self._paths[index]
        with opened(path) as file:
            values = native(file.pages[0].asarray())
        if values.shape != self.about.shape[1:] or values.dtype != self.about.dtype:
            raise FeedError(f"{path}: changed while the volume was open; start again")
        return values


def _page(path: Path, file: Any) -> tuple[tuple[int, int], np.dtype, tuple[float, float, float] | None]:
    """Shape, type and voxel size of a file's only page."""
    page = file.pages[0]
    if len(file.pages) > 1:
        raise FeedError(
            f"{path}: has {len(file.pages)} pages; a folder holds one slice per file. Name a file of many "
            "pages itself"
        )
    if len(page.shape) != 2 or page.dtype is None:
        raise FeedError(f"{path}: holds an image of shape {page.shape}; a slice is grey, [y, x]")
    return tuple(page.shape), np.dtype(page.dtype).newbyteorder("="), _voxel(file)


def _described(shape: tuple[int, int], dtype: np.dtype) -> str:
    return f"{shape[0]} × {shape[1]} pixels of {dtype}"


def _voxel(file: Any) -> tuple[float, float, float] | None:
    """Micrometres along z (0 where unknown), y and x, from ImageJ's description or the resolution."""
    page, imagej = file.pages[0], file.imagej_metadata or {}
    factor = IMAGEJ_UNITS.get(str(imagej.get("unit", "")).strip())
    resolution = page.tags.get("ResolutionUnit")
    unit = int(resolution.value) if resolution is not None else 0
    factor = MICROMETRES.get(unit) if factor is None else factor
    across = [page.tags.get(name) for name in ("YResolution", "XResolution")]
    if factor is None or None in across:
        return None
    sizes = []
    for tag in across:
        pixels, per = tag.value
        if pixels <= 0 or per <= 0:
            return None
        sizes.append(factor * per / pixels)
    spacing = imagej.get("spacing", 0.0)
    depth = float(spacing) * factor if isinstance(spacing, int | float) and spacing > 0 else 0.0
    return depth, sizes[0], sizes[1]


class TiffPages:
    """One file, one page per slice; or an ImageJ stack, which has one page and the rest behind it."""

    def __init__(self, source: Source) -> None:
        self._path, self._axis = source.path, source.axis
        with opened(self._path) as file:
            series = file.series
            if len(series) != 1:
                raise FeedError(
                    f"{self._path}: its {len(file.pages)} pages differ in size or type; all slices must be "
                    f"alike"
                )
            shape = tuple(size for size in series[0].shape if size != 1 or len(series[0].shape) <= 3)
            if len(shape) == 2:
                shape = (1, *shape)
            dtype = np.dtype(series[0].dtype).newbyteorder("=")
            along = shape_along(str(self._path), shape, source.axis)
            self._paged = len(file.pages) == shape[0]
            if source.axis and self._paged and series[0].dataoffset is None:
                raise UsageError(
                    f"{self._path}: --axis {source.axis} cannot be read page by page; convert it"
                )
            if not self._paged and series[0].dataoffset is None:
                raise FeedError(f"{self._path}: {len(file.pages)} pages for {shape[0]} slices, compressed")
            self.about = checked(
                str(self._path),
                About(
                    kind="TIFF file of many pages",
                    shape=along,
                    dtype=dtype,
                    names=numbered(along[0]),
                    identity=file_identity(self._path),
                    voxel=_voxel(file),
                ),
            )

    def read(self, index: int) -> Array:
        """Slice ``[y, x]``."""
        with opened(self._path) as file:
            if self._paged and self._axis == 0:
                return native(file.pages[index].asarray())
            whole = tifffile().memmap(self._path, mode="r").reshape(_behind(file))
            return taken_along(whole, self._axis, index)


def _behind(file: Any) -> tuple[int, ...]:
    """The shape of an ImageJ stack without its axes of length 1."""
    shape = file.series[0].shape
    return tuple(size for size in shape if size != 1 or len(shape) <= 3)


def open_folder(source: Source) -> TiffFolder:
    """A folder with one TIFF file per slice."""
    return TiffFolder(source)


def open_pages(source: Source) -> TiffPages:
    """A TIFF file with a page per slice."""
    return TiffPages(source)
