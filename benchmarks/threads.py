"""``python -m benchmarks.threads``: one thread, two, and the number that karat24 chooses, for every model.

The three programs run in turns in one process. Each figure is the median of several rounds; the time of a
round is the least of some runs. A second thread must never make a network slower by more than LARGEST_LOSS.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.markdown import table
from benchmarks.models import Model, all_models
from benchmarks.results import ROOT
from karat24.feeds import random_feeds
from karat24.golden.provenance import cpu_name
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit.isa import chosen_isa
from karat24.refimpl.kernels.threads.trial import ORDER

LARGEST_LOSS = 0.05
ROUND_SECONDS = 0.03
HEADS = "model", "one thread", "two threads", "gain", "chosen", "time of the choice", "over one thread"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the table; 0, or 1 where the choice loses too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each model (default: 15)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[64], help="of the flagships (default: 64)")
    parser.add_argument("--models", nargs="*", metavar="TEXT", help="only models whose names contain one")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / "threads.md", metavar="FILE.md"
    )
    options = parser.parse_args(arguments)
    rows, losses = [], []
    for model in all_models(options.sizes):
        if options.models and not any(text in model.name for text in options.models):
            continue
        try:
            cells, loss = _measured(model, options.rounds)
        except KaratError as error:
            print(f"{model.name}: not run: {error}", flush=True)
            continue
        print(*cells, sep="  ", flush=True)
        rows.append(cells)
        losses.append(loss)
    options.output.write_text(
        "# A second thread\n\n"
        f"Medians on {cpu_name()} ({os.cpu_count()} cores, {chosen_isa()}). *Chosen* is the number of "
        "threads that the network's first runs decided; networks of less than 3 million products take one "
        "thread without a trial. Measured by `python -m benchmarks.threads`.\n\n" + table(HEADS, rows),
        encoding="utf-8",
    )
    return int(any(loss > LARGEST_LOSS for loss in losses))


def _measured(model: Model, rounds: int) -> tuple[tuple[str, ...], float]:
    """The row of the table, and the loss of the choice as a part of one thread's time."""
    graph = model.quantized()
    feeds = random_feeds(graph, 0)
    chosen = compile_graph(graph, threads=2)
    one, two = compile_graph(graph, threads=1), compile_graph(graph, threads=2, share_small=True)
    two._workspace.run.decision = 1  # two threads, whichever number is faster
    programs = one, two, chosen
    for program in programs:
        for _ in range(len(ORDER) + 1):
            program.run(feeds)
    repeats = max(1, round(ROUND_SECONDS / _least(one, feeds, 3)))
    times = [[_least(program, feeds, repeats) for program in programs] for _ in range(rounds)]
    alone, shared, choice = (median(column) for column in zip(*times, strict=True))
    loss = median(row[2] / row[0] for row in times) - 1
    cells = (
        model.name, _shown(alone), _shown(shared), f"{alone / shared:.2f}×", str(chosen.threads_in_use),
        _shown(choice), f"{loss:+.1%}",
    )  # fmt: skip
    return cells, loss


def _least(program: Program, feeds: dict[int, Array], repeats: int) -> float:
    """The least time of a run, in seconds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        program.run(feeds)
        best = min(best, time.perf_counter() - start)
    return best


def _shown(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
