"""``karat24 verify``: judge a real runtime against the oracle, layer by layer."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from karat24.delegates import Delegate
    from karat24.delegates.protocol import Model
    from karat24.golden.report import Report
    from karat24.refimpl.engine import Feeds
    from karat24.refimpl.graph import Graph

HELP = "run a model on a real runtime and on the oracle, and compare every layer bit by bit"
EPILOG = """examples:
  karat24 verify model.tflite --delegate litert-xnnpack
  karat24 verify model.tflite --delegate litert-xnnpack --profile litert-2.3-ref
  karat24 verify model.tflite --delegate litert-ref --cumulative --json report.json
  karat24 verify model.tflite --delegate ort --against litert-xnnpack

By default each layer is fed with the oracle's own inputs (a difference was
introduced by that layer); --cumulative lets the runtime run the whole model.
Either way the outputs of the whole model are compared, too.
Without --profile the runtime is held to the arithmetic that describes it; with
another profile, differences that equal a known profile's rule are 'explained'.
With --against, two runtimes are compared; a .tflite model is written as .onnx for
a runtime that reads that, unless --other gives the file.

exit codes: 0 match, 1 mismatch, 2 usage or input error, 3 cannot compare"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    shared.add_subgraph(parser)
    delegate = parser.add_argument(
        "--delegate", "-d", required=True, metavar="D", help="runtime, see `karat24 delegates`"
    )
    against = parser.add_argument(
        "--against", metavar="D2", help="compare with another runtime instead of with the oracle alone"
    )
    for option in (delegate, against):
        shared.complete_with(option, shared.delegate_names)
    parser.add_argument(
        "--other",
        type=Path,
        metavar="MODEL2",
        help="the same model as D2 reads it (with --cumulative)",
    )
    shared.add_profile(parser, "the one that describes the delegate")
    shared.add_feeds(parser)
    parser.add_argument(
        "--samples", type=shared.positive, default=1, metavar="N", help="random inputs to try (default: 1)"
    )
    parser.add_argument("--cumulative", action="store_true", help="compare one run of the whole model")
    parser.add_argument(
        "--accept-explained", action="store_true", help="exit 0 when every difference is explained"
    )
    parser.add_argument("--all", action="store_true", help="list the layers that match, too")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the report as JSON")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="S", help="seconds the runtime may take per run"
    )
    shared.add_threads(parser)


def run(options: argparse.Namespace) -> int:
    """Compares, prints the table, writes the report and returns the verdict's exit code."""
    from karat24.refimpl.errors import UsageError

    if options.json is not None:
        shared.writable(options.json)
    if options.input and options.samples > 1:
        raise UsageError("--samples counts random inputs; it cannot go with --input")
    if options.other is not None and options.against is None:
        raise UsageError("--other is the file of a second runtime: name it with --against")
    read = shared.read_graph(options.model, options.subgraph)
    graph = shared.sized_for_feeds(read, options)
    model = _model(options, graph, graph is not read)
    shared.warn(graph, options.command)
    feeds = [shared.feeds_of(graph, options, sample) for sample in range(options.samples)]
    report = (
        _against_oracle(options, model, graph, feeds)
        if options.against is None
        else _against(options, model, graph, feeds)
    )
    print(report.table(options.all))
    if options.json is not None:
        options.json.write_text(report.to_json() + "\n", encoding="utf-8")
    return report.exit_code(options.accept_explained)


def _against_oracle(
    options: argparse.Namespace, model: Model, graph: Graph, feeds: Sequence[Feeds]
) -> Report:
    from karat24.golden.verify import verify

    with _runtime(options.delegate, options, graph) as delegate:
        _require_format(delegate, options, graph)
        return verify(
            model,
            graph,
            delegate,
            feeds,
            profile=options.profile,
            mode="cumulative" if options.cumulative else "isolated",
            threads=options.threads,
            progress=shared.progress_bar,
        )


def _model(options: argparse.Namespace, graph: Graph, other_sizes: bool) -> Model:
    """The file; one of its subgraphs, and what has ``other_sizes`` than the file, as a model of its own."""
    if options.subgraph is None and not other_sizes:
        return Path(options.model)
    from karat24.export.tflite import write_tflite

    return write_tflite(graph)


def _require_format(delegate: Delegate, options: argparse.Namespace, graph: Graph) -> None:
    """Raises UsageError when the runtime does not read files of the model's format, and says which do."""
    from karat24.delegates import DELEGATES
    from karat24.refimpl.errors import UsageError

    if delegate.format == graph.format:
        return
    fitting = [name for name, make in DELEGATES.items() if make().format == graph.format]
    advice = f"choose one that reads .{graph.format}: {', '.join(fitting)}"
    if delegate.format == "onnx":
        written = shlex.quote(f"{options.model.stem}.onnx")
        source = shlex.quote(str(options.model))
        advice += (
            f"; or write the model as .onnx first: karat24 export {source} --output {written}, then "
            f"karat24 verify {written} --delegate {delegate.name}"
        )
    raise UsageError(
        f"{delegate.name} reads .{delegate.format} files and {options.model} is .{graph.format}; {advice}"
    )


def _against(options: argparse.Namespace, model: Model, graph: Graph, feeds: Sequence[Feeds]) -> Report:
    from karat24.golden.against import compare_runtimes

    other = None
    if options.other is not None:
        other = (options.other, shared.read_graph(options.other))
    second_graph = graph if other is None else other[1]
    with (
        _runtime(options.delegate, options, graph) as first,
        _runtime(options.against, options, second_graph) as second,
    ):
        return compare_runtimes(
            model,
            graph,
            first,
            second,
            feeds,
            other=other,
            mode="cumulative" if options.cumulative else "isolated",
            threads=options.threads,
            progress=shared.progress_bar,
        )


def _runtime(name: str, options: argparse.Namespace, graph: Graph) -> Delegate:
    """The runtime called ``name``; the oracle takes ``--profile``, else the canonical one of the format."""
    from karat24.delegates import delegate_named
    from karat24.refimpl.profiles import profile_for

    if name == "oracle":
        return delegate_named(name, profile=profile_for(graph, options.profile).name)
    return delegate_named(name, time_limit=options.time_limit)
