"""What every volume looks like, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array

MOST_PIXELS = 1 << 28
"""The largest slice that is read, 16384 × 16384; a header that says more is wrong or hostile."""


@dataclass(frozen=True)
class Source:
    """Where a volume is: its path, the array inside (HDF5, Zarr), and the axis along which slices lie."""

    path: Path
    dataset: str | None = None
    axis: int = 0
    allow_gaps: bool = False


@dataclass(frozen=True)
class About:
    """What is known of a volume before its values are read.

    ``shape`` is ``(z, y, x)``. ``names`` are the slices' names without suffix. ``voxel`` is the size of a
    voxel along z, y and x in micrometres, None where the file does not say; 0 stands for an unknown one of
    the three. ``suffix`` is that of the slices' files, if they have any. ``identity`` tells this volume from
    another one or from a later version of it. ``remarks`` are lines for the user.
    """

    kind: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    names: tuple[str, ...]
    identity: Mapping[str, str]
    voxel: tuple[float, float, float] | None = None
    suffix: str = ".tif"
    remarks: tuple[str, ...] = field(default=())


class Volume(Protocol):
    """An open volume."""

    about: About

    def read(self, index: int) -> Array:
        """Slice ``[y, x]`` in the file's own type, native byte order. Raises FeedError when it cannot be
        read."""


def checked(where: str, about: About) -> About:
    """``about``, once it describes slices of real numbers. Raises FeedError."""
    depth, height, width = about.shape
    if min(about.shape) < 1:
        raise FeedError(f"{where}: has shape {about.shape}; a volume has at least one slice of one pixel")
    if height * width > MOST_PIXELS:
        raise FeedError(
            f"{where}: {depth} slices of {height} × {width} pixels; at most {MOST_PIXELS:,} pixels are "
            "taken. Is --axis the direction across the slices?"
        )
    if about.dtype.kind not in "uif":
        raise FeedError(f"{where}: holds {about.dtype}; a volume holds integers or floating-point numbers")
    return about


def numbered(count: int) -> tuple[str, ...]:
    """Names of slices that have none."""
    digits = max(5, len(str(count - 1)))
    return tuple(f"slice_{index:0{digits}}" for index in range(count))


def native(values: Array) -> Array:
    """Contiguous and in this machine's byte order."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def taken_along(array: Array, axis: int, index: int) -> Array:
    """Slice ``index`` along an axis of an array that is read when it is indexed."""
    place: list[int | slice] = [slice(None)] * 3
    place[axis] = index
    return native(np.asarray(array[tuple(place)]))


def shape_along(where: str, shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """``(z, y, x)`` of an array whose slices lie along ``axis``. Raises FeedError, UsageError."""
    if len(shape) != 3:
        raise FeedError(f"{where}: has shape {tuple(shape)}; a volume has three dimensions")
    if axis not in (0, 1, 2):
        raise UsageError(f"--axis {axis}: a volume has axes 0, 1 and 2")
    rest = [size for number, size in enumerate(shape) if number != axis]
    return int(shape[axis]), int(rest[0]), int(rest[1])


def file_identity(path: Path) -> dict[str, str]:
    """Size and time of a file's last change."""
    found = path.stat()
    return {"bytes": str(found.st_size), "changed_ns": str(found.st_mtime_ns)}
