"""Where restored slices go: files that are finished one by one, and single files made of these at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.tomography.scan.outputs.export import EXPORTS, export
from karat24.tomography.scan.outputs.ome_zarr import ZarrStore
from karat24.tomography.scan.outputs.store import SliceStore
from karat24.tomography.scan.outputs.tiff import TiffStore

__all__ = ["EXPORTS", "SliceStore", "export", "format_of", "state_folder", "store_for"]


READ_ONLY = (".hdf", ".nxs", ".nx", ".mrc", ".rec")
"""Suffixes of volumes that are read only: a folder of such a name would be taken for one."""


def format_of(out: Path) -> str:
    """``tiff`` (a folder), ``ome-zarr``, or the suffix of a single file. Raises UsageError for other
    names."""
    suffix = out.suffix.lower()
    if suffix == ".zarr":
        return "ome-zarr"
    if suffix in EXPORTS:
        return suffix
    if suffix in READ_ONLY:
        raise UsageError(
            f"{out}: {suffix} is read, not written; name a folder, NAME.zarr, or a file ending in "
            f"{', '.join(EXPORTS)}"
        )
    if out.is_file():
        raise UsageError(f"{out}: is a file; name a folder, or a file ending in {', '.join(EXPORTS)}")
    return "tiff"


def state_folder(out: Path) -> Path:
    """The folder beside the output that holds manifest, records and report: never inside, so that a copied
    volume does not carry them."""
    return out.with_name(f"{out.name}.karat24")


def store_for(
    out: Path,
    names: Sequence[str],
    suffix: str,
    shape: tuple[int, int],
    dtype: np.dtype,
    voxel: tuple[float, float, float] | None,
) -> SliceStore:
    """The place of finished slices, ``names`` being those of the slices that are chosen."""
    if format_of(out) == "ome-zarr":
        return ZarrStore(out, (len(names), *shape), dtype, voxel)
    folder = out if format_of(out) == "tiff" else state_folder(out) / "slices"
    return TiffStore(folder, [f"{name}{suffix}" for name in names], shape, dtype, voxel)
