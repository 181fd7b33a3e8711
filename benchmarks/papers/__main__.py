"""``python -m benchmarks.papers bits|powers|selective|slices``: the experiments of two papers, on this
project's networks and on data that packages contain. Each can be ended at any moment and started again;
results are kept, and tables and pictures are made of those that exist.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.papers import report
from benchmarks.papers.tasks import Task, kept, run_tasks
from karat24.refimpl.errors import KaratError

RESULTS = Path(__file__).resolve().parents[1] / "results"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.papers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("experiment", choices=tuple(EXPERIMENTS))
    made.add_argument("--folder", type=Path, help="data and records (default: work/EXPERIMENT)")
    made.add_argument(
        "--minutes", type=float, default=20,
        help="processor time of each process after which no task begins (default: 20)",
    )  # fmt: skip
    made.add_argument("--processes", type=int, default=2)
    made.add_argument("--seeds", type=int, help="powers, selective: repetitions (default: 10 and 5)")
    made.add_argument("--quick", action="store_true", help="powers, selective: a tenth of the training")
    made.add_argument("--slices", type=int, default=22, help="bits: test slices (default: 22)")
    made.add_argument("--size", type=int, default=512, help="bits, slices: their side (default: 512)")
    made.add_argument("--scans", type=int, default=42, help="slices: scans of six slices (default: 42)")
    made.add_argument("--steps", type=int, default=100, help="bits: steps of each retraining (default: 100)")
    made.add_argument("--members", type=int, default=2, help="bits: retrained networks of an ensemble")
    made.add_argument(
        "--retrain",
        type=int,
        nargs="*",
        default=[2, 3, 4, 5],
        metavar="BITS",
        help="bits: those retrained, too",
    )
    made.add_argument("--output", type=Path, default=RESULTS, help="folder of tables and pictures")
    return made


def bits_tasks(options: argparse.Namespace) -> list[Task]:
    """The tasks of :mod:`benchmarks.papers.bits`; simulates the training slices they need."""
    from benchmarks.papers import bits
    from training import data

    path = options.folder / "train.npz"
    if options.retrain and not path.is_file():
        say("simulating training slices …")
        data.simulate([(256, 48)], 256, 300, path)
    return bits.tasks(
        options.folder, options.slices, options.size, options.steps, options.members, tuple(options.retrain)
    )


def powers_tasks(options: argparse.Namespace) -> list[Task]:
    """The tasks of :mod:`benchmarks.papers.powers`."""
    from benchmarks.papers import powers

    return powers.tasks(options.folder, options.seeds or 10, options.quick)


def selective_tasks(options: argparse.Namespace) -> list[Task]:
    """The tasks of :mod:`benchmarks.papers.selective`."""
    from benchmarks.papers import selective

    return selective.tasks(options.seeds or 5, options.quick)


def slices_tasks(options: argparse.Namespace) -> list[Task]:
    """The tasks of :mod:`benchmarks.papers.slices`."""
    from benchmarks.papers import slices

    return slices.tasks(options.size, options.scans)


EXPERIMENTS: Mapping[str, Callable[[argparse.Namespace], list[Task]]] = {
    "bits": bits_tasks, "powers": powers_tasks, "selective": selective_tasks, "slices": slices_tasks,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs tasks and writes pages; returns 0, or 3 while tasks are left, 2 for wrong use."""
    options = parser().parse_args(arguments)
    options.folder = options.folder or Path("work") / options.experiment
    try:
        tasks = EXPERIMENTS[options.experiment](options)
        options.left = run_tasks(tasks, options.folder / "records", options.minutes, options.processes, say)
        for path in report.WRITERS[options.experiment](
            kept(tasks, options.folder / "records"), options, options.output
        ):
            say(f"wrote {path}")
    except KaratError as error:
        print(f"benchmarks.papers {options.experiment}: {error}", file=sys.stderr)
        return error.exit_code
    if options.left:
        say(f"{options.left} tasks are left: start again to continue")
    return 3 if options.left else 0


def say(text: str) -> None:
    """Prints without buffering, so that progress is visible through a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
