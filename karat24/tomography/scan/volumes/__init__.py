"""Reconstructed volumes on disk, whatever their format, as slices ``[y, x]`` in order of height."""

from __future__ import annotations

from collections.abc import Callable

from karat24.refimpl.errors import UsageError
from karat24.tomography.scan.volumes.arrays import open_mrc, open_npy
from karat24.tomography.scan.volumes.hdf5 import open_hdf5
from karat24.tomography.scan.volumes.ome_zarr import is_zarr, open_zarr
from karat24.tomography.scan.volumes.tiff import open_folder, open_pages
from karat24.tomography.scan.volumes.volume import Source, Volume

__all__ = ["Source", "Volume", "open_volume"]

READERS: dict[str, Callable[[Source], Volume]] = {
    ".tif": open_pages,
    ".tiff": open_pages,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".hdf": open_hdf5,
    ".nxs": open_hdf5,
    ".nx": open_hdf5,
    ".npy": open_npy,
    ".mrc": open_mrc,
    ".rec": open_mrc,
}
"""What opens a file, by its suffix."""

WITH_DATASET: tuple[Callable[[Source], Volume], ...] = (open_hdf5, open_zarr)


def open_volume(source: Source) -> Volume:
    """Opens a folder of TIFF files, a Zarr store, or a file of :data:`READERS`.

    Raises UsageError for a path or option that cannot be used, and FeedError for content that is not a whole
    volume: raw projections, a gap in the numbering, files of two sizes, a truncated file.
    """
    path = source.path
    opener: Callable[[Source], Volume]
    if path.is_dir():
        opener = open_zarr if is_zarr(path) else open_folder
    elif path.is_file():
        if path.suffix.lower() not in READERS:
            raise UsageError(
                f"{path}: no known kind of volume; give a folder of TIFF files, a Zarr store, or a file "
                f"ending in {', '.join(READERS)}"
            )
        opener = READERS[path.suffix.lower()]
    else:
        raise UsageError(f"{path}: no such file or folder")
    if source.dataset is not None and opener not in WITH_DATASET:
        raise UsageError(f"{path}: --dataset names an array in an HDF5 file or Zarr store")
    if source.axis and opener is open_folder:
        raise UsageError(f"{path}: each file is a slice; --axis goes with volumes in one file")
    return opener(source)
