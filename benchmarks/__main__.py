"""Times the oracle beside LiteRT's lanes: ``python -m benchmarks [MODEL ...]``.

Each model's outputs are compared bit by bit first; a model that differs is not
timed. Then oracle and runtime take turns, and medians and their ratio are
printed and kept in ``benchmarks/results/`` with versions and the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export.quantize import PRESETS, quantize_model
from export.tflite import read_tflite, write_tflite
from golden.provenance import cpu_name
from karat.feeds import random_feeds
from refimpl.cost import count
from refimpl.engine import compile_graph
from refimpl.errors import KaratError
from refimpl.graph import Array, Graph
from refimpl.networks import network

ROOT = Path(__file__).resolve().parent.parent
LANES = {
    "litert-ref": "litert-2.3-ref",
    "litert-builtin": "litert-2.3-builtin",
    "litert-xnnpack": "litert-2.3-xnnpack",
}
SIZES = (64, 1024)


@dataclass(frozen=True)
class Timing:
    """Medians in seconds; ``ratio`` is runtime over oracle (above 1: the oracle is faster)."""

    model: str
    lane: str
    threads: int
    macs: int
    oracle_s: float
    runtime_s: float
    ratio: float
    runs: int


def litert(model: bytes, lane: str, threads: int) -> Any:
    """A LiteRT interpreter for the lane, tensors allocated."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = {
        "litert-ref": OpResolverType.BUILTIN_REF,
        "litert-builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "litert-xnnpack": OpResolverType.AUTO,
    }[lane]
    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=resolver, num_threads=threads
    )
    interpreter.allocate_tensors()
    return interpreter


def compare_and_time(
    name: str, model: bytes, graph: Graph, lane: str, threads: int, seconds: float
) -> Timing | str:
    """The timing, or why there is none."""
    program = compile_graph(graph, LANES[lane], threads)
    feeds = random_feeds(graph, 0)
    interpreter = litert(model, lane, threads)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], feeds[detail["index"]])
    interpreter.invoke()
    found = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    expected = program.run(feeds).outputs
    differing = sum(int((a != b).sum()) for a, b in zip(expected, found, strict=True))
    if differing:
        return f"not timed: {differing} output values differ"
    oracle, runtime = interleave(lambda: program.run(feeds), interpreter.invoke, seconds)
    mine, theirs = statistics.median(oracle), statistics.median(runtime)
    return Timing(name, lane, threads, count(graph).macs, mine, theirs, theirs / mine, len(oracle))


def interleave(
    first: Callable[[], object], second: Callable[[], object], seconds: float
) -> tuple[list[float], list[float]]:
    """Times both in turn for about ``seconds``, three to fifty times each."""
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while len(times[0]) < 3 or (time.perf_counter() - start < seconds and len(times[0]) < 50):
        for run, kept in zip((first, second), times, strict=True):
            before = time.perf_counter()
            run()
            kept.append(time.perf_counter() - before)
    return times


def flagship_models(sizes: tuple[int, ...]) -> dict[str, bytes]:
    """TomoGAN, both variants, and Fine-Tune, quantized to int8 at the given sizes."""
    models = {}
    for name, upsampling in (("tomogan", "bilinear"), ("tomogan", "transposed"), ("fine-tune", "bilinear")):
        for size in sizes:
            graph = network(name, size, size, upsampling)
            shape = graph.tensors[graph.inputs[0]].shape
            sample: Array = np.random.default_rng(0).random(shape, np.float32)
            title = f"{name} {upsampling if name == 'tomogan' else ''} {size}".replace("  ", " ")
            models[title] = write_tflite(quantize_model(graph, [sample], PRESETS["int8"]))
    return models


def main() -> int:
    """Runs the benchmark and returns 0 when every model that was timed had parity."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "models", nargs="*", type=Path, help="model files (default: public models + flagships)"
    )
    parser.add_argument("--lanes", nargs="+", default=list(LANES), choices=list(LANES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=3.0, help="time to spend per model and lane")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), help="sizes of the flagships")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/DATE-CPU.json)")
    options = parser.parse_args()
    models = {path.name: path.read_bytes() for path in options.models}
    if not models:
        folder = Path(os.environ.get("KARAT_MODELS", ROOT.parent / "shared" / "models"))
        models = {path.name: path.read_bytes() for path in sorted(folder.glob("*/*.tflite"))}
        models |= flagship_models(tuple(options.sizes))
    timings: list[Timing] = []
    wrong = 0
    print(f"{'model':44} {'lane':15} {'MMAC':>9} {'oracle ms':>10} {'runtime ms':>11} {'ratio':>7}")
    for name, content in models.items():
        try:
            graph = read_tflite(content)
            compile_graph(graph, threads=options.threads)
        except KaratError as error:
            print(f"{name:44} skipped: {str(error)[:90]}")
            continue
        for lane in options.lanes:
            timing = compare_and_time(name, content, graph, lane, options.threads, options.seconds)
            if isinstance(timing, str):
                wrong += 1
                print(f"{name:44} {lane:15} {timing}")
                continue
            timings.append(timing)
            print(
                f"{name:44} {lane:15} {timing.macs / 1e6:9.1f} {timing.oracle_s * 1e3:10.3f} "
                f"{timing.runtime_s * 1e3:11.3f} {timing.ratio:7.2f}",
                flush=True,
            )
    keep(timings, options.output)
    return 1 if wrong else 0


def keep(timings: list[Timing], path: Path | None) -> None:
    """Writes the figures with what they depend on."""
    now = datetime.now(UTC)
    cpu = cpu_name()
    if path is None:
        slug = "".join(c if c.isalnum() else "-" for c in cpu.lower()).strip("-")
        path = ROOT / "benchmarks" / "results" / f"{now:%Y-%m-%d}-{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "date": now.isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "numba", "ai-edge-litert")},
        "timings": [asdict(timing) for timing in timings],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"kept in {path}")


if __name__ == "__main__":
    sys.exit(main())
