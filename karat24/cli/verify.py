"""``karat24 verify``: judge a real runtime against the oracle, layer by layer."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared
from karat24.cli import reports

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
  karat24 verify model.tflite --delegate litert-ref --certify     # for every input, not for some
  karat24 verify model.tflite --delegate litert-ref --input case.npz    # of `karat24 seek`
  karat24 verify keyword.tflite --delegate tflm --samples 20 --keep-state    # of an LSTM or SVDF
  karat24 verify model.tflite --delegate ort --against litert-xnnpack
  karat24 verify model.tflite --recorded dump.npz --input x.npy --profile tflm
  karat24 verify model.tflite --delegate-command 'runner {model} {inputs} {outputs}' --profile tflm
  karat24 verify model.tflite --certify --delegate-folder device --profile tflm    # twice: ask, judge

By default each layer is fed with the oracle's own inputs (a difference was
introduced by that layer); --cumulative lets the runtime run the whole model.
Either way the outputs of the whole model are compared, too.
Without --profile the runtime is held to the arithmetic that describes it; with
another profile, differences that equal a known profile's rule are 'explained'.
With --certify a layer that passes is 'certified': equal for all inputs, as long as
its outputs never go down while its sums go up. A layer whose cases could not all be
met is not compared; layers without a finite description are listed.
With --against, two runtimes are compared; a .tflite model is written as .onnx for
a runtime that reads that, unless --other gives the file.
With --delegate-folder the runtime is a device that cannot be started from here: the first run writes
every model into a folder, with its inputs; once the outputs lie beside them, the same command judges.

exit codes: 0 match, 1 mismatch, 2 usage or input error, 3 cannot compare"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    shared.add_subgraph(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    delegate = source.add_argument("--delegate", "-d", metavar="D", help="runtime, see `karat24 delegates`")
    shared.add_delegate_command(source)
    shared.add_delegate_folder(source)
    source.add_argument(
        "--recorded",
        type=Path,
        metavar="DUMP",
        help="values another runtime gave: .npz, folder of .npy, or one tensor as .npy, raw bytes or C text",
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
    parser.add_argument(
        "--recorded-tensor", metavar="T", help="name or index of the tensor in a DUMP that holds one"
    )
    parser.add_argument(
        "--only-recorded",
        action="store_true",
        help="leave out layers without a recording, so that an output that is equal can pass",
    )
    parser.add_argument(
        "--stale",
        type=Path,
        nargs="+",
        default=[],
        metavar="OLD",
        help="other versions of the model, one of which the device may have run instead (with --recorded)",
    )
    parser.add_argument(
        "--keep-state",
        action="store_true",
        help="the samples are one sequence: variables keep their values from one to the next",
    )
    parser.add_argument("--cumulative", action="store_true", help="compare one run of the whole model")
    parser.add_argument(
        "--certify",
        action="store_true",
        help="also meet every threshold of every channel from both sides, and all values of small tables",
    )
    parser.add_argument(
        "--accept-explained", action="store_true", help="exit 0 when every difference is explained"
    )
    parser.add_argument("--all", action="store_true", help="list the layers that match, too")
    reports.add_reports(parser)
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="S", help="seconds the runtime may take per run"
    )
    shared.add_implementation(parser)
    shared.add_threads(parser)


def run(options: argparse.Namespace) -> int:
    """Compares, prints the table, writes the report and returns the verdict's exit code."""
    from karat24.refimpl.errors import UsageError

    reports.require_writable(options)
    if options.input and options.samples > 1:
        raise UsageError("--samples counts random inputs; it cannot go with --input")
    if options.certify and options.against is not None:
        raise UsageError("--certify holds a runtime to the oracle; it cannot go with --against")
    if options.keep_state and (options.against is not None or options.recorded is not None):
        raise UsageError(
            "--keep-state holds a runtime to the oracle; it goes with neither --against nor --recorded"
        )
    if options.other is not None and options.against is None:
        raise UsageError("--other is the file of a second runtime: name it with --against")
    _require_fitting(options)
    read = shared.read_graph(options.model, options.subgraph)
    graph = shared.sized_for_feeds(read, options)
    model = _model(options, graph, graph is not read)
    shared.warn(graph, options.command)
    if options.recorded is not None:
        return _finish(options, _recorded(options, model, graph))
    feeds = shared.cases_of(graph, options)
    report = (
        _against_oracle(options, model, graph, feeds)
        if options.against is None
        else _against(options, model, graph, feeds)
    )
    return _finish(options, report)


def _finish(options: argparse.Namespace, report: Report) -> int:
    """Shows and writes a report; the exit code of its verdict."""
    if options.verbose and "threads" in report.versions:
        print(f"karat24: threads: up to {report.versions['threads']}", file=sys.stderr)
    print(reports.table(report, options.all))
    reports.write(options, [report], [str(options.model)])
    return report.exit_code(options.accept_explained)


def _require_fitting(options: argparse.Namespace) -> None:
    """Raises UsageError for options that do not go with the chosen way of judging."""
    from karat24.refimpl.errors import UsageError

    if options.recorded is not None and options.certify:
        raise UsageError("--certify runs models of its own: a device is asked with --delegate-folder")
    if options.recorded is None:
        for given, name in (
            (options.recorded_tensor, "--recorded-tensor"),
            (options.only_recorded, "--only-recorded"),
            (options.stale, "--stale"),
        ):
            if given:
                raise UsageError(f"{name} goes with --recorded")
        return
    for given, name in (
        (options.against, "--against"),
        (options.cumulative, "--cumulative"),
        (options.samples > 1, "--samples"),
    ):
        if given:
            raise UsageError(f"{name} runs a runtime; a recording is of one run that was")


def _recorded(options: argparse.Namespace, model: Model, graph: Graph) -> Report:
    from karat24.golden.recordings.judge import verify_recorded

    return verify_recorded(
        model,
        graph,
        options.recorded,
        shared.feeds_of(graph, options) if options.input else None,
        profile=options.profile,
        tensor=options.recorded_tensor,
        only_recorded=options.only_recorded,
        others=[(str(path), shared.read_graph(path)) for path in options.stale],
        threads=options.threads,
    )


def _against_oracle(
    options: argparse.Namespace, model: Model, graph: Graph, feeds: Sequence[Feeds]
) -> Report:
    from karat24.golden.verify import verify

    with _runtime(options.delegate, options, graph) as delegate:
        _require_format(delegate, options, graph)
        report = verify(
            model,
            graph,
            delegate,
            feeds,
            profile=options.profile,
            mode="cumulative" if options.cumulative else "isolated",
            threads=options.threads,
            progress=shared.progress(options),
            implementation=options.implementation,
            certify=options.certify,
            keep_state=options.keep_state,
        )
        shared.tell_waiting(delegate)
        return report


def _model(options: argparse.Namespace, graph: Graph, other_sizes: bool) -> Model:
    """The file; as a model of its own, a subgraph of it or a graph with ``other_sizes`` than the file."""
    if options.subgraph is None and not other_sizes:
        return Path(options.model)
    from karat24.export import write_model

    return write_model(graph)


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
            progress=shared.progress(options),
            implementation=options.implementation,
        )


def _runtime(name: str | None, options: argparse.Namespace, graph: Graph) -> Delegate:
    """The runtime called ``name``; the oracle takes ``--profile``, else the canonical one of the format.
    Without a name it is one behind a command or a folder."""
    from karat24.delegates import delegate_named
    from karat24.refimpl.profiles import profile_for

    if name is None:
        return shared.unlisted_runtime(options, graph.format, options.profile or "")
    if name == "oracle":
        return delegate_named(name, profile=profile_for(graph, options.profile).name)
    return delegate_named(name, time_limit=options.time_limit)
