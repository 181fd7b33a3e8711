"""A folder of uncompressed TIFF files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.volumes.tiff import opened, tifffile
from karat24.tomography.scan.volumes.volume import native

PER_CENTIMETRE = 10000.0


def resolution_of(voxel: tuple[float, float, float] | None) -> dict[str, Any]:
    """tifffile's options that keep a voxel's size along y and x; TIFF has no place for that along z."""
    if voxel is None or not (voxel[1] > 0 and voxel[2] > 0):
        return {}
    across = (PER_CENTIMETRE / voxel[2], PER_CENTIMETRE / voxel[1])
    return {"resolution": across, "resolutionunit": "CENTIMETER"}


class TiffStore:
    """One file per slice, little-endian, one strip, the voxel size as resolution."""

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        shape: tuple[int, int],
        dtype: np.dtype,
        voxel: tuple[float, float, float] | None,
    ) -> None:
        self.root, self._names, self._shape, self._dtype, self._voxel = root, names, shape, dtype, voxel

    def prepare(self) -> None:
        """Makes the folder."""
        self.root.mkdir(parents=True, exist_ok=True)

    def path(self, index: int) -> Path:
        """The file of a slice."""
        return self.root / self._names[index]

    def content(self, values: Array) -> bytes:
        """A TIFF file of ``[y, x]``."""
        buffer = io.BytesIO()
        tifffile().imwrite(
            buffer, values, byteorder="<", software=False, metadata=None, photometric="minisblack",
            rowsperstrip=values.shape[0], **resolution_of(self._voxel),
        )  # fmt: skip
        return buffer.getvalue()

    def read(self, index: int) -> Array:
        """Slice ``[y, x]``."""
        path = self.path(index)
        with opened(path) as file:
            values = native(file.pages[0].asarray())
        if values.shape != self._shape or values.dtype != self._dtype:
            raise FeedError(f"{path}: holds {values.shape} {values.dtype}, not what was written")
        return values
