"""The oracle on a model in both formats: ``python -m benchmarks formats``.

A .tflite is written as ONNX with integer ops (QOperator); both run in turns in one process, on equal inputs.
Their outputs may differ, since the formats round differently; ``python -m benchmarks`` and the tests compare
bits.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.markdown import table
from benchmarks.models import Model, all_models
from karat24.export import read_model, write_model
from karat24.export.onnx import to_onnx
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import DTYPES, Array, Tensor

DEFAULT = ("pretrainedResnet", "tf2_mobilenet", "tomogan-bilinear", "tomogan-transposed")
"""A part of the name of each model that is timed."""

LEAST_TURN = 0.002
"""The least seconds of a turn; a short network runs several times in it."""


@dataclass(frozen=True)
class BothFormats:
    """One model's times, in seconds per run, a value for each turn."""

    name: str
    tflite: tuple[float, ...]
    onnx: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The time from ONNX over that from .tflite: the median of the ratios of adjacent turns."""
        return statistics.median(b / a for a, b in zip(self.tflite, self.onnx, strict=True))

    @property
    def best(self) -> float:
        """The time from ONNX over that from .tflite, in the best turn of each."""
        return min(self.onnx) / min(self.tflite)


def compare(arguments: Sequence[str]) -> int:
    """Times the models in both formats and prints a table. Raises UsageError."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks formats", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(DEFAULT), metavar="TEXT")
    parser.add_argument("--sizes", nargs="*", type=int, default=[64], help="of the flagships")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        raise UsageError(f"{options.rounds} rounds; at least one is needed")
    models = [m for m in all_models(options.sizes) if any(text in m.name for text in options.models)]
    times = [time_both(model, options.threads, options.rounds) for model in models]
    print(table(("model", ".tflite", ".onnx", "best turns", "median of turns"), map(_row, times)), end="")
    return 0


def time_both(model: Model, threads: int, rounds: int) -> BothFormats:
    """Runs both formats in turns, ``rounds`` times each, on random input."""
    graph = model.quantized()
    turns = [
        _turn(compile_graph(each, threads=threads))
        for each in (graph, read_model(write_model(to_onnx(graph, "qoperator"))))
    ]
    tflite, onnx = zip(*([turn() for turn in turns] for _ in range(rounds)), strict=True)
    return BothFormats(model.name, tflite, onnx)


def _turn(program: Program) -> Callable[[], float]:
    """A turn of a program: seconds per run."""
    feeds = {index: _random(program.graph.tensors[index]) for index in program.graph.inputs}
    program.run(feeds)  # the first run compiles and lays out memory
    begun = time.perf_counter()
    program.run(feeds)
    runs = max(1, round(LEAST_TURN / (time.perf_counter() - begun)))

    def turn() -> float:
        begun = time.perf_counter()
        for _ in range(runs):
            program.run(feeds)
        return (time.perf_counter() - begun) / runs

    return turn


def _random(tensor: Tensor) -> Array:
    values = np.random.default_rng(0).integers(0, 100, tensor.shape)
    return values.astype(DTYPES[tensor.dtype])


def _row(times: BothFormats) -> tuple[str, ...]:
    first, second = (f"{1e3 * min(each):.3g} ms" for each in (times.tflite, times.onnx))
    return times.name, first, second, f"{times.best:.2f}", f"{times.ratio:.2f}"
