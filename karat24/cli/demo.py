"""``karat24 demo``: a demonstration on a simulated tomography slice."""

from __future__ import annotations

import argparse
from pathlib import Path

from karat24.cli import options as shared

HELP = "restore a simulated tomography slice in int8 and hold LiteRT's lanes to their arithmetic"
EPILOG = """example:
  karat24 demo --size 256 --output demo-output

Writes the quantized models and before/after pictures to --output, and prints the verdict of
every layer. Takes about a minute; --size 256 is quicker.

exit codes: 0 match, 1 mismatch, 2 usage or input error, 3 cannot compare"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--output", "-o", type=Path, default=Path("demo-output"), metavar="FOLDER")
    parser.add_argument("--size", type=shared.positive, default=1024, help="slice size, a multiple of 8")
    parser.add_argument("--tile", type=shared.positive, default=64, help="tile size, a multiple of 8")
    overlap = parser.add_mutually_exclusive_group()
    overlap.add_argument(
        "--blend", type=int, metavar="PIXELS",
        help="tiles overlap by this and are averaged, after Fine-Tune (default: 39 of 64)",
    )  # fmt: skip
    overlap.add_argument(
        "--halo", type=int, metavar="PIXELS",
        help="tiles overlap by this on each side, which is discarded; Fine-Tune sees the stitched image",
    )  # fmt: skip
    parser.add_argument("--upsampling", choices=("bilinear", "transposed"), default="bilinear")
    parser.add_argument("--family", default="spheres", help="kind of sample (default: spheres)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")


def run(options: argparse.Namespace) -> int:
    """Runs the demonstration."""
    from karat24.refimpl.errors import UsageError
    from karat24.tomography.demo import Options, run_demo

    if options.output.exists() and not options.output.is_dir():
        raise UsageError(f"{options.output}: is a file; name a folder")
    halo, blend = options.halo or 0, options.blend or 0
    if options.halo is None and options.blend is None:
        # Tiles of 64 start 25 apart: at every phase of a pool by 8.
        blend = max(options.tile * 5 // 8 - 1, 0)
    chosen = Options(
        options.size, options.tile, halo, blend, options.upsampling, options.family, options.seed
    )
    return run_demo(chosen, options.output, lambda line: print(line, flush=True))
