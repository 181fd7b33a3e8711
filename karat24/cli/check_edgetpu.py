"""``karat24 check-edgetpu``: what of a model the Edge TPU will take, and what to change about the rest."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from karat24.export.edgetpu.check import LayerCheck

HELP = "hold every layer of a .tflite against the Edge TPU compiler's documented limits"
EPILOG = """examples:
  karat24 check-edgetpu model.tflite

The compiler is not needed. It maps one run of layers: what reads from a layer that stays on
the CPU stays there too.

exit codes: 0 every layer keeps the limits, 1 some layer breaks one, 2 usage or input error,
3 all keep them, but the compiler is known to leave such layers on the CPU sometimes"""

WORDS = {"maps": "maps", "may_stay": "may stay on CPU", "stays": "stays on CPU", "behind": "behind another"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Prints one line per layer."""
    from karat24.export.edgetpu.check import check_graph

    checks = check_graph(shared.read_graph(options.model))
    if options.json:
        print(json.dumps({"layers": [vars(check) for check in checks]}, indent=1))
    else:
        print("\n".join(lines(checks)))
    return exit_code(checks)


def exit_code(checks: Sequence[LayerCheck]) -> int:
    """1 where a limit is broken, 3 where only doubts remain, else 0."""
    outcomes = {check.outcome for check in checks}
    return 1 if "stays" in outcomes else 3 if outcomes - {"maps"} else 0


def lines(checks: Sequence[LayerCheck]) -> Iterator[str]:
    """A table, and a summary."""
    width = max((len(check.op) for check in checks), default=0)
    for check in checks:
        yield f"{check.layer:4}  {check.op:{width}}  {WORDS[check.outcome]:15}  {check.name!r}"
        for reason in check.reasons:
            yield f"          {reason}"
    counts = {outcome: sum(check.outcome == outcome for check in checks) for outcome in WORDS}
    runtime = max((check.runtime for check in checks), default=0)
    yield ""
    yield ", ".join(f"{counts[outcome]} {word}" for outcome, word in WORDS.items() if counts[outcome])
    if counts["maps"]:
        yield f"by its documentation, for Edge TPU runtime {runtime} or later"
