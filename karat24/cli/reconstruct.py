"""``karat24 reconstruct``: from raw projections to slices."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared
from karat24.cli.restore import slices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from karat24.refimpl.graph import Array

HELP = "reconstruct the slices of a raw scan (DXchange, NXtomo) by filtered back projection"
EPILOG = """examples:
  karat24 reconstruct scan.h5 scan_rec/
  karat24 reconstruct scan.h5 scan_rec/ --center 295.5 --slices 0:2
  karat24 restore scan_rec/ restored/

Flat and dark fields, minus log, ring removal, parallel beam. Writes one float32 TIFF file
per row of the detector, in 1/pixel, zero outside the circle that all views see.

exit codes: 0 done, 2 usage or input error"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "raw", type=Path, metavar="RAW", help="an HDF5 file with projections, flats and darks"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder for the slices")
    parser.add_argument(
        "--center",
        type=float,
        metavar="X",
        help="column of the rotation axis, counted from 0 (default: found)",
    )
    parser.add_argument(
        "--slices", type=slices, metavar="A:B", default=(None, None), help="rows A to B-1 only"
    )
    parser.add_argument(
        "--views", type=shared.positive, default=1, metavar="N", help="every Nth view only (default: 1)"
    )
    parser.add_argument(
        "--filter", choices=("ramp", "shepp-logan", "cosine", "hamming", "hann"), default="shepp-logan"
    )
    parser.add_argument("--keep-rings", action="store_true", help="no ring removal")
    parser.add_argument("--overwrite", action="store_true", help="replace slices of an earlier run")


def run(options: argparse.Namespace) -> int:
    """Reconstructs and writes."""
    from tqdm import tqdm

    from karat24.refimpl.errors import UsageError
    from karat24.tomography.raw.reconstruction import RING_WIDTH, Options, axis_of, reconstruct, write_slice
    from karat24.tomography.raw.scan import opened_scan

    if not options.raw.is_file():
        raise UsageError(f"{options.raw}: no such file")
    if options.out.is_file():
        raise UsageError(f"{options.out}: is a file; name a folder")
    if options.out.is_dir() and any(options.out.iterdir()) and not options.overwrite:
        raise UsageError(f"{options.out}: holds files already; name another folder, or --overwrite")
    if not options.out.parent.is_dir():
        raise UsageError(f"{options.out}: folder {options.out.parent} does not exist; create it first")
    with opened_scan(options.raw) as scan:
        axis = axis_of(scan) if options.center is None else options.center
        first, stop = options.slices
        rows = (0 if first is None else first, scan.rows if stop is None else stop)
        chosen = Options(axis, rows, options.views, options.filter, 0 if options.keep_rings else RING_WIDTH)
        found = "given" if options.center is not None else "found"
        print(f"input    {options.raw}: {scan.kind}, {len(scan.degrees)} views of {scan.rows} rows, "
              f"{scan.degrees[0]:g} to {scan.degrees[-1]:g} degrees")  # fmt: skip
        print(f"axis     column {axis:.2f}, {found}", flush=True)
        options.out.mkdir(exist_ok=True)
        work: Iterator[tuple[int, Array]] = tqdm(
            reconstruct(scan, axis, chosen), total=rows[1] - rows[0], unit="slice", disable=None
        )
        count = 0
        for row, values in work:
            write_slice(options.out, row, values)
            count += 1
    print(
        f"done     {count} slices in {options.out}; restore them with karat24 restore {options.out} RESTORED"
    )
    return 0
