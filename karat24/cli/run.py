"""``karat24 run``: run a model on the oracle."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared
from karat24.cli import tiled_run
from karat24.cli.npz import write_npz

if TYPE_CHECKING:
    from karat24.refimpl.engine import Program
    from karat24.refimpl.graph import Array, Graph
    from karat24.refimpl.trace import Trace

HELP = "run a model on the oracle under a named arithmetic profile"
EPILOG = """examples:
  karat24 run model.tflite --input photo.png
  karat24 run model.tflite --input x.npy --profile litert-2.3-xnnpack --save outputs.npz
  karat24 run model.tflite --seed 7 --trace trace.npz --accumulators
  karat24 run tile-model.tflite --input slice.npy --tiles exact --save restored.npz

--trace writes every tensor the run produced under its tensor index (.tflite) or name (.onnx)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    shared.add_subgraph(parser)
    shared.add_feeds(parser)
    shared.add_profile(parser, "litert-2.3-ref for .tflite, ort-1.31 for .onnx")
    shared.add_threads(parser)
    parser.add_argument("--save", type=Path, metavar="OUT.npz", help="write the outputs, by output name")
    parser.add_argument(
        "--trace", type=Path, metavar="OUT.npz", help="write every tensor, by tensor index (.onnx: name)"
    )
    parser.add_argument(
        "--accumulators", action="store_true",
        help="add the int32 accumulators of each convolution to --trace, as 'acc_LAYER'",
    )  # fmt: skip
    shared.add_implementation(parser)
    tiled_run.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the model, prints a line per output and writes what was asked for."""
    from karat24.export import graph_under
    from karat24.refimpl.engine import compile_graph
    from karat24.refimpl.errors import UsageError
    from karat24.refimpl.profiles import profile_for

    if options.accumulators and options.trace is None:
        raise UsageError("--accumulators adds to --trace; give --trace OUT.npz too")
    if options.tiles and options.trace is not None:
        raise UsageError("--trace is of one run, and --tiles makes one for each tile; leave one of them out")
    for path in (options.save, options.trace):
        if path is not None:
            shared.writable(path)
    graph = shared.read_graph(options.model, options.subgraph)
    if not options.tiles:
        graph = shared.sized_for_feeds(graph, options)
    shared.warn(graph, options.command)
    profile = profile_for(graph, options.profile)
    graph = graph_under(graph, profile)
    program = compile_graph(graph, profile, options.threads, options.implementation)
    bar = shared.progress(options)
    trace: Trace | None = None
    if options.tiles:
        outputs: tuple[Array, ...] = (tiled_run.run(options, graph, program),)
    else:
        result = program.run(
            shared.feeds_of(graph, options), options.trace is not None, options.accumulators, bar
        )
        outputs, trace = result.outputs, result.trace
    if options.verbose:
        print(f"karat24: {_threads(program, options.trace is not None)}", file=sys.stderr)
    if profile.caveat:
        print(f"note: {profile.caveat}")
    for index, value in zip(graph.outputs, outputs, strict=True):
        digest = hashlib.sha256(value.tobytes()).hexdigest()[:16]
        span = f"min {value.min()} max {value.max()}" if value.size else "empty"
        print(f"{graph.tensors[index].name}: {value.dtype} {value.shape} {span} sha256 {digest}")
    if options.save is not None:
        named = {
            _output_key(graph, index): value for index, value in zip(graph.outputs, outputs, strict=True)
        }
        write_npz(options.save, named)
    if trace is not None and options.trace is not None:
        arrays: dict[str, Array] = {
            graph.tensors[i].name if graph.format == "onnx" else str(i): value
            for i, value in sorted(trace.tensors.items())
        }
        arrays |= {f"acc_{i}": value for i, value in sorted(trace.accumulators.items())}
        write_npz(options.trace, arrays)
    return 0


def _threads(program: Program, traced: bool) -> str:
    """How many threads the run took; what later runs would take is settled by timing the first ones."""
    most = program.target.threads
    if traced:
        return f"threads: up to {most}"
    used = program.threads_in_use
    if used is None:
        return f"threads: up to {most}; the first runs of a program settle whether one is faster"
    return f"threads: {used}"


def _output_key(graph: Graph, index: int) -> str:
    """The output's name, made unique by its tensor index where a file repeats a name."""
    name = graph.tensors[index].name
    repeated = sum(graph.tensors[i].name == name for i in graph.outputs) > 1
    return f"{name}#{index}" if repeated or not name else name
