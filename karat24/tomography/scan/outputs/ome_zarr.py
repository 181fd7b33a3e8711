"""OME-Zarr 0.5 on Zarr 3: one level, one uncompressed chunk per slice.

An uncompressed chunk of Zarr 3 is the array's bytes, little-endian, in a file named by its place. So a slice
is written as any other file: whole or not at all. Restored floating-point slices compress by a quarter at
most, and compressing takes longer than restoring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.files import write_json

LEVEL = "0"
AXES = ("z", "y", "x")


class ZarrStore:
    """An OME-Zarr image ``[z, y, x]``."""

    def __init__(
        self,
        root: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        voxel: tuple[float, float, float] | None,
    ) -> None:
        self.root, self._shape, self._dtype, self._voxel = root, shape, dtype, voxel

    def prepare(self) -> None:
        """Writes both metadata documents and makes the folders."""
        for index in range(self._shape[0]):
            self.path(index).parent.mkdir(parents=True, exist_ok=True)
        write_json(self.root / LEVEL / "zarr.json", self._array_metadata())
        write_json(self.root / "zarr.json", self._group_metadata())

    def _array_metadata(self) -> dict[str, Any]:
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self._shape),
            "data_type": self._dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [1, *self._shape[1:]]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            # A slice that is not there yet reads as NaN, where there is one.
            "fill_value": "NaN" if self._dtype.kind == "f" else 0,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "attributes": {},
            "dimension_names": list(AXES),
        }

    def _group_metadata(self) -> dict[str, Any]:
        sizes = self._voxel or (0.0, 0.0, 0.0)
        axes: list[dict[str, str]] = []
        for name, size in zip(AXES, sizes, strict=True):
            axes.append({"name": name, "type": "space", **({"unit": "micrometer"} if size else {})})
        image = {
            "name": self.root.stem,
            "axes": axes,
            "datasets": [
                {
                    "path": LEVEL,
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [size or 1.0 for size in sizes]}
                    ],
                }
            ],
        }
        attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
        return {"zarr_format": 3, "node_type": "group", "attributes": attributes}

    def path(self, index: int) -> Path:
        """The chunk of a slice."""
        return self.root / LEVEL / "c" / str(index) / "0" / "0"

    def content(self, values: Array) -> bytes:
        """A chunk of ``[y, x]``."""
        return values.astype(self._dtype.newbyteorder("<"), copy=False).tobytes()

    def read(self, index: int) -> Array:
        """Slice ``[y, x]``."""
        content = self.path(index).read_bytes()
        stored = self._dtype.newbyteorder("<")
        if len(content) != stored.itemsize * self._shape[1] * self._shape[2]:
            raise FeedError(f"{self.path(index)}: has {len(content)} bytes, not those of a slice")
        return np.frombuffer(content, stored).astype(self._dtype).reshape(self._shape[1:])
