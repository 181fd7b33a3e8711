"""Slices from a raw scan, row by row of the detector."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fbp import fbp
from karat24.tomography.raw.axis import centred, find_axis
from karat24.tomography.raw.correction import line_integrals, without_rings
from karat24.tomography.raw.scan import RawScan
from karat24.tomography.scan.files import write_whole
from karat24.tomography.scan.volumes.tiff import tifffile

ROWS_AT_ONCE = 8
RING_WIDTH = 9


@dataclass(frozen=True)
class Options:
    """How slices are reconstructed.

    ``axis`` is the bin of the rotation axis; None has it found. ``rows`` are the detector's rows; None takes
    all. One of each ``views`` views is taken. ``rings`` is the width of the ring removal; 0 removes none.
    """

    axis: float | None = None
    rows: tuple[int, int] | None = None
    views: int = 1
    filter_name: str = "shepp-logan"
    rings: int = RING_WIDTH


def axis_of(scan: RawScan) -> float:
    """The rotation axis, found in the middle rows of the detector. Raises FeedError where it cannot be."""
    middle = scan.rows // 2
    first, stop = max(0, middle - ROWS_AT_ONCE // 2), min(scan.rows, middle + ROWS_AT_ONCE // 2)
    integrals = line_integrals(scan.counts(first, stop), scan.flat[first:stop], scan.dark[first:stop])
    return find_axis(integrals, scan.degrees)


def reconstruct(scan: RawScan, axis: float, options: Options) -> Iterator[tuple[int, Array]]:
    """Rows and their slices, float32 ``[y, x]`` in 1/pixel, zero outside the circle.

    Raises UsageError for rows, views or an axis that the scan does not have, FeedError for what cannot be
    reconstructed.
    """
    first, stop = options.rows or (0, scan.rows)
    if not 0 <= first < stop <= scan.rows:
        raise UsageError(
            f"--slices {first}:{stop}: the detector has rows 0 to {scan.rows - 1}, as 0:{scan.rows}"
        )
    bins = int(scan.frames.shape[2])
    if not 0 < axis < bins - 1:
        raise UsageError(f"--center {axis:g}: the detector has columns 0 to {bins - 1}")
    if len(scan.degrees[:: options.views]) < 2:
        raise UsageError(f"--views {options.views}: leaves fewer than two of {len(scan.degrees)} views")
    for start in range(first, stop, ROWS_AT_ONCE):
        end = min(start + ROWS_AT_ONCE, stop)
        integrals = line_integrals(scan.counts(start, end), scan.flat[start:end], scan.dark[start:end])
        for row in range(start, end):
            sinogram = integrals[:: options.views, row - start]
            if options.rings:
                sinogram = without_rings(sinogram, options.rings)
            moved = centred(sinogram, axis)
            yield row, fbp(moved, scan.degrees[:: options.views], filter_name=options.filter_name)


def write_slice(folder: Path, row: int, values: Array) -> None:
    """Writes ``recon_ROW.tiff``, whole, as beamlines name it."""
    buffer = io.BytesIO()
    tifffile().imwrite(
        buffer, np.ascontiguousarray(values), byteorder="<", software=False, metadata=None,
        photometric="minisblack", rowsperstrip=len(values),
    )  # fmt: skip
    write_whole(folder / f"recon_{row:05}.tiff", buffer.getvalue())
