"""``python -m benchmarks.first_run``: the time of a user's first ``karat24 verify``, and of later ones.

Every cold run is a process of its own with an empty cache of compiled kernels; warm runs use the cache of the
last cold one. The time is the wall time of the whole command, including imports and the runtime's process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.markdown import table
from benchmarks.models import Model, all_models
from benchmarks.results import ROOT
from karat24.export import write_model
from karat24.golden.provenance import cpu_name
from karat24.refimpl.cost import count
from karat24.refimpl.errors import KaratError
from karat24.refimpl.kernels.jit.compile_cache import VARIABLE
from karat24.refimpl.kernels.jit.isa import chosen_isa

SMALL_MACS = 50_000_000
LARGE = ("coral/tf2_mobilenet_v2_1.0_224_ptq", "tomogan-bilinear-64")
LIMITS = {"coral/tf2_mobilenet_v2_1.0_224_ptq": 8.0, "tomogan-bilinear-64": 15.0}
SMALL_LIMIT = 6.0
"""The most seconds that the median cold run may take on two idle cores."""


@dataclass(frozen=True)
class FirstRun:
    """Seconds of cold and of warm runs of one model, and the command's exit code."""

    model: Model
    macs: int
    cold: tuple[float, ...]
    warm: tuple[float, ...]
    code: int

    @property
    def limit(self) -> float:
        """The most seconds that the median of the cold runs may take."""
        return LIMITS.get(self.model.name, SMALL_LIMIT)

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        cold, warm = median(self.cold), median(self.warm)
        return (
            self.model.name, f"{self.macs / 1e6:.1f}", f"{cold:.1f} s", f"{self.limit:.0f} s",
            "yes" if cold < self.limit else "NO", f"{warm:.1f} s", f"{cold / warm:.1f}×", str(self.code),
        )  # fmt: skip


_KARAT24 = "import sys; from karat24.cli.main import main; sys.exit(main())"
HEADS = "model", "million products", "cold", "limit", "within", "warm", "cold / warm", "exit code"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the table; returns 1 where a median is over its limit, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="cold runs of each model (default: 5)")
    parser.add_argument("--warm-rounds", type=int, default=3, help="warm runs (default: 3)")
    parser.add_argument("--delegate", default="litert-xnnpack", help="runtime to judge")
    parser.add_argument("--models", nargs="*", metavar="TEXT", help="only models whose names contain one")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / "first-run.md", metavar="FILE.md"
    )
    options = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory(prefix="karat24-first-run-") as folder:
        for model, macs, path in _subjects(Path(folder), options.models):
            results.append(_measured(model, macs, path, options))
            print(*results[-1].cells(), sep="  ", flush=True)
    options.output.write_text(_document(results, options), encoding="utf-8")
    return int(any(median(result.cold) >= result.limit for result in results))


def _subjects(folder: Path, wanted: Sequence[str] | None) -> Iterator[tuple[Model, int, Path]]:
    """The models, their products, and their files."""
    for model in all_models([64]):
        if wanted and not any(text in model.name for text in wanted):
            continue
        if model.path is None and model.name not in LARGE:
            continue
        try:
            graph = model.quantized()
        except KaratError:
            continue  # a file that the oracle does not read
        macs = count(graph).macs
        if macs >= SMALL_MACS and model.name not in LARGE:
            continue
        path = model.path
        if path is None:
            path = folder / f"{model.name}.tflite"
            path.write_bytes(write_model(graph))
        yield model, macs, path


def _measured(model: Model, macs: int, path: Path, options: argparse.Namespace) -> FirstRun:
    cold, warm = [], []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="karat24-empty-") as cache:
            seconds, code = _verify(path, options.delegate, cache)
            cold.append(seconds)
            if number == options.rounds - 1:
                warm = [_verify(path, options.delegate, cache)[0] for _ in range(options.warm_rounds)]
    return FirstRun(model, macs, tuple(cold), tuple(warm), code)


def _verify(path: Path, delegate: str, cache: str) -> tuple[float, int]:
    """Seconds and exit code of the command with that cache."""
    command = [sys.executable, "-c", _KARAT24, "verify", str(path), "--delegate", delegate]
    start = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, VARIABLE: cache}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    return time.perf_counter() - start, done.returncode


def _document(results: Sequence[FirstRun], options: argparse.Namespace) -> str:
    return (
        "# The first run\n\n"
        f"`karat24 verify MODEL --delegate {options.delegate}`: medians of {options.rounds} runs with an "
        f"empty cache of kernels and of {options.warm_rounds} with a full one, whole command, on "
        f"{cpu_name()} ({os.cpu_count()} cores, {chosen_isa()}). Exit code 3: LiteRT does not run every "
        "layer of the file. Measured by `python -m benchmarks.first_run`.\n\n"
        + table(HEADS, [result.cells() for result in results])
    )


if __name__ == "__main__":
    sys.exit(main())
