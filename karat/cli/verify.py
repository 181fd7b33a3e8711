"""``karat verify``: judge a real runtime against the oracle, layer by layer."""

from __future__ import annotations

import argparse
from pathlib import Path

from karat.cli import options as shared

HELP = "run a model on a real runtime and on the oracle, and compare every layer bit by bit"
EPILOG = """examples:
  karat verify model.tflite --delegate litert-xnnpack
  karat verify model.tflite --delegate litert-xnnpack --profile litert-2.3-ref
  karat verify model.tflite --delegate litert-ref --cumulative --json report.json

By default each layer is fed with the oracle's own inputs (a difference was
introduced by that layer); --cumulative lets the runtime run the whole model.
Without --profile the runtime is held to the arithmetic that describes it; with
another profile, differences that equal a known profile's rule are 'explained'.

exit codes: 0 match, 1 mismatch, 2 usage or input error, 3 cannot compare"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    parser.add_argument("--delegate", "-d", required=True, metavar="D", help="runtime, see `karat delegates`")
    shared.add_profile(parser, None)
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
    from delegates import delegate_named
    from golden.verify import verify
    from refimpl.errors import UsageError

    if options.json is not None:
        shared.writable(options.json)
    if options.input and options.samples > 1:
        raise UsageError("--samples counts random inputs; it cannot go with --input")
    graph = shared.read_graph(options.model)
    with delegate_named(options.delegate, time_limit=options.time_limit) as delegate:
        report = verify(
            options.model,
            graph,
            delegate,
            [shared.feeds_of(graph, options, sample) for sample in range(options.samples)],
            profile=options.profile,
            mode="cumulative" if options.cumulative else "isolated",
            threads=options.threads,
            progress=shared.progress_bar,
        )
    print(report.table(options.all))
    if options.json is not None:
        options.json.write_text(report.to_json() + "\n", encoding="utf-8")
    return report.exit_code(options.accept_explained)
