"""A single file made of finished slices: HDF5, TIFF with many pages, .npy.

A file of many slices that is killed while it is written is lost (HDF5 with its first bytes, TIFF behind its
first page). So it is made at the end under another name, and renamed.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.files import build_whole
from karat24.tomography.scan.outputs.tiff import resolution_of
from karat24.tomography.scan.volumes.hdf5 import VOXEL_ATTRIBUTES, h5py
from karat24.tomography.scan.volumes.tiff import tifffile

Voxel: TypeAlias = tuple[float, float, float] | None
Build: TypeAlias = Callable[
    [Path, tuple[int, int, int], np.dtype, Iterator[Array], Mapping[str, str], Voxel], None
]

FORMATS_OWN = 1 << 16
"""Room for headers and indices, at least."""
DATASET = "exchange/data"


def export(
    out: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    slices: Iterator[Array],
    attributes: Mapping[str, str],
    voxel: Voxel = None,
) -> None:
    """Writes slices ``[y, x]`` as one file, whole or not at all. ``attributes`` are text kept in HDF5;
    ``voxel`` is a voxel's size along z, y and x in micrometres, which .npy has no place for."""
    _require_room(out.parent, math.prod(shape) * dtype.itemsize + FORMATS_OWN)
    build = EXPORTS[out.suffix.lower()]
    build_whole(out, lambda temporary: build(temporary, shape, dtype, slices, attributes, voxel))


def _require_room(folder: Path, needed: int) -> None:
    """Raises UsageError where a file does not fit. On a full disk HDF5's library cannot close its file, and
    ends the process."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{folder}: a single file takes {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; free "
            "some space and give the same command again (finished slices are kept)"
        )


def _hdf5(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    slices: Iterator[Array],
    attributes: Mapping[str, str],
    voxel: Voxel,
) -> None:
    if voxel is not None:
        attributes = {**attributes, VOXEL_ATTRIBUTES[0]: " ".join(map(repr, voxel))}
    with h5py().File(path, "w", track_order=True) as file:
        array = file.create_dataset(
            DATASET, shape, dtype, chunks=(1, *shape[1:]), track_times=False, fillvalue=0
        )
        for name, value in {"axes": "z:y:x", **attributes}.items():
            array.attrs[name] = value
        for index, values in enumerate(slices):
            array[index] = values


def _tiff(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    slices: Iterator[Array],
    attributes: Mapping[str, str],  # noqa: ARG001
    voxel: Voxel,
) -> None:
    # BigTIFF, whatever the size: the limit of 4 GB would show on the last page only.
    tifffile().imwrite(
        path, slices, shape=shape, dtype=dtype, bigtiff=True, byteorder="<", software=False, metadata=None,
        photometric="minisblack", rowsperstrip=shape[1], **resolution_of(voxel),
    )  # fmt: skip


def _npy(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    slices: Iterator[Array],
    attributes: Mapping[str, str],  # noqa: ARG001
    voxel: Voxel,  # noqa: ARG001
) -> None:
    with path.open("xb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for values in slices:
            file.write(np.ascontiguousarray(values).data)


EXPORTS: dict[str, Build] = {".h5": _hdf5, ".hdf5": _hdf5, ".tif": _tiff, ".tiff": _tiff, ".npy": _npy}
"""What makes a single file, by its suffix."""
