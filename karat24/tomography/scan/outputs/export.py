"""A single file made of finished slices: HDF5, TIFF with many pages, .npy.

A file of many slices that is killed while it is written is lost (HDF5 with its first bytes, TIFF behind its
first page). So it is made at the end under another name, and renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.scan.files import build_whole
from karat24.tomography.scan.volumes.hdf5 import h5py
from karat24.tomography.scan.volumes.tiff import tifffile

Build: TypeAlias = Callable[[Path, tuple[int, int, int], np.dtype, Iterator[Array], Mapping[str, str]], None]

DATASET = "exchange/data"


def export(
    out: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    slices: Iterator[Array],
    attributes: Mapping[str, str],
) -> None:
    """Writes slices ``[y, x]`` as one file, whole or not at all. ``attributes`` are text kept in HDF5."""
    build = EXPORTS[out.suffix.lower()]
    build_whole(out, lambda temporary: build(temporary, shape, dtype, slices, attributes))


def _hdf5(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    slices: Iterator[Array],
    attributes: Mapping[str, str],
) -> None:
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
) -> None:
    # BigTIFF, whatever the size: the limit of 4 GB would show on the last page only.
    tifffile().imwrite(
        path, slices, shape=shape, dtype=dtype, bigtiff=True, byteorder="<", software=False, metadata=None,
        photometric="minisblack", rowsperstrip=shape[1],
    )  # fmt: skip


def _npy(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    slices: Iterator[Array],
    attributes: Mapping[str, str],  # noqa: ARG001
) -> None:
    with path.open("xb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for values in slices:
            file.write(np.ascontiguousarray(values).data)


EXPORTS: dict[str, Build] = {".h5": _hdf5, ".hdf5": _hdf5, ".tif": _tiff, ".tiff": _tiff, ".npy": _npy}
"""What makes a single file, by its suffix."""
