"""``karat24 restore``: a whole scan."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from karat24.tomography.scan.manifest import Manifest
    from karat24.tomography.scan.plan import Plan
    from karat24.tomography.scan.records import Record

HELP = "restore a reconstructed volume slice by slice; give the same command again to resume it"
EPILOG = """examples:
  karat24 restore scan_rec/ restored/ --dry-run           # what is there, what will be done
  karat24 restore scan_rec/ restored/ --preview look.png  # one slice, before and after
  karat24 restore scan_rec/ restored/ --slices 1000:1016  # a trial; its slices are part of the whole
  karat24 restore scan_rec/ restored/ --check 5           # the whole, then five slices once more
  karat24 restore scan.h5 restored.zarr --dataset exchange/data --mask nan

SCAN: a folder of TIFF files, a TIFF file of many pages, HDF5, Zarr, .npy, MRC.
OUT: a folder (TIFF files with the input's names), NAME.zarr (OME-Zarr 0.5), or a single
file made at the end (.h5, .tif, .npy). Beside it, OUT.karat24 holds manifest, records and
report. Raw projections are reconstructed first, with `karat24 reconstruct`.

exit codes: 0 done, 1 a checked slice differs, 2 usage or input error, 3 cannot compare, 4 done, but
more than noise was taken from some slices: see the report (--accept-loss makes it 0)"""

LOSS = 4
"""Exit code of a run that took structure away."""

UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("scan", type=Path, metavar="SCAN", help="the reconstructed volume")
    parser.add_argument("out", type=Path, metavar="OUT", help="where the restored volume goes")
    parser.add_argument("--slices", type=slices, metavar="A:B", default=(None, None), help="A to B-1 only")
    parser.add_argument("--dataset", metavar="PATH", help="the array inside an HDF5 file or Zarr store")
    parser.add_argument(
        "--axis", type=int, choices=(0, 1, 2), default=0, help="the axis across the slices (default: 0)"
    )
    parser.add_argument(
        "--range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="values of the darkest and the brightest material, instead of those that a sample shows",
    )  # fmt: skip
    parser.add_argument(
        "--mask", type=float, metavar="VALUE", help="pixels of this value (or nan) hold no measurement"
    )
    parser.add_argument("--dtype", choices=("float32", "uint16", "uint8"), default="float32")
    parser.add_argument(
        "--quality", choices=("fast", "best"), default="fast",
        help="best averages small tiles and takes twenty times as long (default: fast)",
    )  # fmt: skip
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="S",
        help="1 (default) keeps the network's result; lower values give back more of the structure that it "
        "removed, 0 all of it",
    )  # fmt: skip
    parser.add_argument(
        "--skip-clean", action="store_true",
        help="leave slices as they are that a small network finds clean; the report names them",
    )  # fmt: skip
    parser.add_argument(
        "--accept-loss", action="store_true",
        help="exit code 0 even where more than noise was taken away",
    )  # fmt: skip
    shared.add_profile(parser, "the canonical one")
    parser.add_argument("--max-memory", type=size, metavar="8G", help="for all processes together")
    parser.add_argument("--workers", type=shared.positive, metavar="N", help="processes (default: by memory)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="restore on the workers of a Dask scheduler")
    parser.add_argument("--allow-gaps", action="store_true", help="take slices around a gap for neighbours")
    parser.add_argument("--overwrite", action="store_true", help="begin again")
    parser.add_argument("--verify", action="store_true", help="read finished slices, and redo damaged ones")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and the time it takes, only")
    parser.add_argument(
        "--preview", type=Path, metavar="F.png", help="restore the middle slice to a picture, only"
    )
    parser.add_argument(
        "--check", type=shared.positive, metavar="N", help="restore N slices once more and compare bits"
    )
    delegate = parser.add_argument(
        "--delegate", metavar="D", help="the runtime that --check uses, see `karat24 delegates`"
    )
    shared.complete_with(delegate, shared.delegate_names)


def slices(text: str) -> tuple[int | None, int | None]:
    """argparse type: ``A:B``, either of which may be left out."""
    first, colon, stop = text.partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (first, stop)):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form A:B")
    return (int(first) if first else None), (int(stop) if stop else None)


def size(text: str) -> int:
    """argparse type: bytes, as 8G or 500M."""
    number, unit = text.upper().removesuffix("B"), 1
    if number and number[-1] in UNITS:
        number, unit = number[:-1], UNITS[number[-1]]
    value = float(number)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory")
    return int(value * unit)


def run(options: argparse.Namespace) -> int:
    """Plans, restores, checks and reports."""
    from karat24.refimpl.errors import UsageError
    from karat24.refimpl.profiles import CANONICAL
    from karat24.tomography.scan.plan import Options, make_plan
    from karat24.tomography.scan.volumes import Source

    if options.delegate and not options.check:
        raise UsageError("--delegate is the runtime of --check; say --check N, too")
    span = tuple(options.range) if options.range else None
    if span is not None and not -math.inf < span[0] < span[1] < math.inf:
        raise UsageError("--range takes a finite LOW below HIGH")
    plan = make_plan(
        Source(options.scan, options.dataset, options.axis, options.allow_gaps),
        options.out,
        Options(
            slices=options.slices,
            span=span,
            mask=options.mask,
            dtype=options.dtype,
            quality=options.quality,
            profile=options.profile or CANONICAL,
            strength=options.strength,
            skip_clean=options.skip_clean,
            max_memory=options.max_memory,
            workers=options.workers,
            command=["karat24", *sys.argv[1:]],
        ),
    )
    if options.delegate:
        from karat24.tomography.scan.check import require_usable

        require_usable(options.delegate, plan.manifest)
    print("\n".join(plan.lines()), flush=True)
    for warning in plan.warnings:
        print(f"karat24 restore: warning: {warning}", file=sys.stderr)
    if options.preview:
        return _preview(plan, options.preview)
    if options.dry_run:
        return _dry_run(plan)
    return _restore(plan, options)


def _restore(plan: Plan, options: argparse.Namespace) -> int:
    from karat24.tomography.scan.check import check
    from karat24.tomography.scan.pool import in_processes
    from karat24.tomography.scan.records import digest_of_all
    from karat24.tomography.scan.report import write_report
    from karat24.tomography.scan.run import carry_out

    def finish(manifest: Manifest, todo: Sequence[int]) -> Iterator[Record]:
        if options.scheduler:
            from karat24.tomography.scan.cluster import on_cluster

            return on_cluster(manifest, todo, options.scheduler)
        return in_processes(manifest, todo, plan.workers, plan.threads)

    outcome = carry_out(plan, finish, _progress, options.overwrite, options.verify)
    if outcome.done_before:
        print(
            f"resumed  {outcome.done_before} slices were finished before; {outcome.removed} stray parts "
            f"removed"
        )
    if outcome.redone:
        print(
            f"redone   {len(outcome.redone)} slices that were damaged or missing, first {outcome.redone[0]}"
        )
    checked = []
    if options.check:
        for found in check(plan.manifest, options.check, options.delegate):
            checked.append(found)
            print(f"check    slice {found.name}: {'equal' if found.equal else 'DIFFERS'}", flush=True)
    report = write_report(plan, outcome, checked, options.delegate)
    print(f"done     {len(outcome.records)} slices, SHA-256 of their values {digest_of_all(outcome.records)}")
    print(f"report   {report}")
    lost = _tell_losses(outcome.records.values())
    if not all(found.equal for found in checked):
        return 1
    return LOSS if lost and not options.accept_loss else 0


def _tell_losses(records: Iterable[Record]) -> int:
    """Prints from how many slices more than noise was removed, and for how many this cannot be judged."""
    records = list(records)
    marked = [record for record in records if record.structured]
    blind = sum(not record.judged for record in records)
    skipped = sum(record.skipped for record in records)
    told = f", {blind} cannot be judged" if blind else ""
    noise = len(records) - len(marked) - blind - skipped
    print(f"removed  noise from {noise} slices, more than noise from {len(marked)}{told}")
    constant = [record.name for record in records if record.constant]
    if constant:
        print(
            f"karat24 restore: warning: {len(constant)} slices hold one value only, first {constant[0]}: was "
            "the volume reconstructed to its end?",
            file=sys.stderr,
        )
    if skipped:
        print(f"skipped  {skipped} slices that looked clean")
    if marked:
        print(
            f"karat24 restore: warning: more than noise was taken from {len(marked)} of {len(records)} "
            f"slices, first {marked[0].name} ({marked[0].removed}); look at the report, lower --strength, or "
            "use a classical filter",
            file=sys.stderr,
        )
    if blind:
        print(
            f"karat24 restore: warning: {blind} slices have too few views to tell lost structure from "
            "streaks",
            file=sys.stderr,
        )
    return len(marked)


def _progress(records: Iterable[Record], total: int) -> Iterable[Record]:
    """A bar with rate and time left, on a terminal only."""
    from tqdm import tqdm

    yield from tqdm(records, total=total, desc="karat24", unit="slice", disable=None, smoothing=0.1)


def _dry_run(plan: Plan) -> int:
    """Restores one slice twice, whether it is clean or not: once to compile, once to time it."""
    import time
    from dataclasses import replace

    from karat24.tomography.scan.plan import require_space
    from karat24.tomography.scan.work import Worker

    require_space(plan, plan.manifest.count)
    recipe = plan.manifest.recipe
    worker = Worker(replace(plan.manifest, recipe=replace(recipe, selector="")), plan.threads)
    middle = plan.manifest.first + plan.manifest.count // 2
    worker.restore(middle)
    began = time.perf_counter()
    worker.restore(middle)
    seconds = time.perf_counter() - began
    minutes = seconds * plan.manifest.count / plan.workers / 60
    most = "at most" if recipe.selector else "about"
    print(f"time     {seconds:.2f} s for slice {middle}: {most} {minutes:.1f} minutes for all")
    return 0


def _preview(plan: Plan, path: Path) -> int:
    from karat24.tomography.scan.pictures import write_preview

    middle = plan.manifest.first + plan.manifest.count // 2
    write_preview(plan.manifest, middle, shared.writable(path))
    print(f"preview  slice {middle}, before, after and difference: {path}")
    return 0
