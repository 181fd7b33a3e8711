"""Volumes that are one array in a file: .npy and MRC, mapped into memory."""

from __future__ import annotations

from tokenize import TokenError
from typing import Any

import numpy as np

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

UNREADABLE = (
    OSError, ValueError, TypeError, EOFError, SyntaxError, TokenError, ArithmeticError, MemoryError
)  # fmt: skip
"""What readers raise for damaged headers; that of .npy is read as Python."""

ANGSTROMS = 1e-4
"""Micrometres in an ångström, MRC's unit of length."""


class MappedArray:
    """An array of three dimensions, read where it is touched."""

    def __init__(
        self, source: Source, array: Any, kind: str, voxel: tuple[float, float, float] | None
    ) -> None:
        self._array, self._source = array, source
        where = str(source.path)
        shape = shape_along(where, array.shape, source.axis)
        self.about = checked(
            where,
            About(
                kind=kind,
                shape=shape,
                dtype=array.dtype.newbyteorder("="),
                names=numbered(shape[0]),
                identity={**file_identity(source.path), "axis": str(source.axis)},
                voxel=voxel,
            ),
        )

    def read(self, index: int) -> Array:
        """Slice ``[y, x]``."""
        return taken_along(self._array, self._source.axis, index)


def open_npy(source: Source) -> MappedArray:
    """A .npy file ``[z, y, x]``. Raises FeedError for a damaged one."""
    try:
        array = np.load(source.path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise FeedError(f"{source.path}: not a whole .npy file ({error}); write it again") from error
    return MappedArray(source, array, ".npy file", None)


def open_mrc(source: Source) -> MappedArray:
    """An MRC file. Raises FeedError for a damaged one, UsageError without mrcfile."""
    try:
        import mrcfile
    except ImportError as error:
        raise UsageError("MRC files need mrcfile: pip install 'karat24[scan]'") from error
    try:
        file = mrcfile.mmap(source.path, mode="r")
    except UNREADABLE as error:
        raise FeedError(f"{source.path}: not a whole MRC file ({error}); copy it again") from error
    if file.data is None:
        raise FeedError(f"{source.path}: not a whole MRC file (no data); copy it again")
    sizes = [float(file.voxel_size[name]) * ANGSTROMS for name in ("z", "y", "x")]
    voxel = (sizes[0], sizes[1], sizes[2]) if min(sizes) > 0 else None
    return MappedArray(source, file.data, "MRC file", voxel)
