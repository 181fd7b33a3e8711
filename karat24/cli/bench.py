"""``karat24 bench``: how fast the oracle is beside real runtimes, parity first."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from karat24.contest.runner import Say

HELP = "time the oracle and real runtimes on one model, in turns, after comparing their outputs"
EPILOG = """examples:
  karat24 bench model.tflite --against litert-xnnpack
  karat24 bench model.tflite --against litert-xnnpack --against ort --threads 2 --json speed.json
  karat24 bench model.tflite --isa avx2 --isa portable --layers

The oracle and each runtime run in processes of their own. Outputs are compared first: the
oracle, under the profile that describes a runtime (--profile: under that one), must equal it
bit by bit, or nothing is timed. Then all take turns. Printed are medians, quartiles and the
ratio of the runtime's median to the oracle's.

  GMAC/s  thousand million multiplication-additions per second
  peak    that, as a fraction of what the instruction set's innermost loop reaches on data in
          the first-level cache, measured just before; for a runtime, that of the best set here
  memory  the largest resident memory of the process
  cold    seconds from starting a fresh process with an empty cache of kernels to its first result
  warm    the same with the cache filled (a runtime has none: its only start)

All are timed from input arrays to output arrays, copies in and out included.
Quote the ratio of two medians of one run; times alone depend on what else the machine does.

exit codes: 0 equal, 1 outputs differ, 2 usage or input error, 3 cannot compare or run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    against = parser.add_argument(
        "--against", action="append", default=[], metavar="D",
        help="a runtime, see `karat24 delegates`; may be repeated (default: the oracle alone)",
    )  # fmt: skip
    shared.complete_with(against, _runtime_names)
    shared.add_profile(parser, "for each runtime the one that describes it")
    also = parser.add_argument(
        "--also", action="append", default=[], metavar="P",
        help="time the oracle under this profile, too; may be repeated",
    )  # fmt: skip
    shared.complete_with(also, shared.profile_names)
    parser.add_argument(
        "--threads", type=shared.positive, default=1, metavar="N", help="threads of each (default: 1)"
    )
    isa = parser.add_argument(
        "--isa", action="append", default=[], metavar="I",
        help="instruction set of the oracle; may be repeated (default: the best here)",
    )  # fmt: skip
    shared.complete_with(isa, _instruction_sets)
    parser.add_argument(
        "--rounds",
        type=shared.positive,
        default=15,
        metavar="N",
        help="turns of each (default: 15)",
    )
    parser.add_argument(
        "--seconds", type=float, default=120.0, metavar="S",
        help="stop after this many seconds, with at least 3 rounds (default: 120)",
    )  # fmt: skip
    parser.add_argument("--layers", action="store_true", help="show where the time goes, layer by layer")
    parser.add_argument("--traced", action="store_true", help="time the oracle keeping every tensor, too")
    parser.add_argument("--no-cold", action="store_true", help="skip the start with an empty cache")
    parser.add_argument("--time-anyway", action="store_true", help="time even where outputs differ")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="S",
        help="seconds for one turn or start, after which a contestant is stopped (default: 600)",
    )  # fmt: skip
    shared.add_feeds(parser)
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write all figures as JSON")


def run(options: argparse.Namespace) -> int:
    """Holds the contest, prints its table, writes the figures and returns the verdict's exit code."""
    import json

    from karat24.contest.contestants import Subject, line_up, oracle
    from karat24.contest.runner import Rules, run_contest
    from karat24.contest.table import table
    from karat24.export import graph_under
    from karat24.golden.provenance import model_label
    from karat24.refimpl.engine import compile_graph
    from karat24.refimpl.profiles import profile_named

    if options.json is not None:
        shared.writable(options.json)
    graph = shared.read_graph(options.model)
    feeds = shared.feeds_of(graph, options)
    subject = Subject(options.model.read_bytes(), graph, tuple(feeds[index] for index in graph.inputs))
    instruction_sets = list(dict.fromkeys(options.isa)) or [None]
    contestants = line_up(
        subject,
        list(dict.fromkeys(options.against)),
        profile=options.profile,
        threads=options.threads,
        instruction_sets=instruction_sets,
        traced=options.traced,
    )
    known = {contestant.name for contestant in contestants}
    extra = [
        oracle(subject, profile, options.threads, isa) for profile in options.also for isa in instruction_sets
    ]
    contestants = [who for who in extra if who.name not in known] + contestants
    for who in contestants:
        if who.kind == "oracle":  # what it refuses it refuses here, in its own words
            profile = profile_named(who.profile)
            compile_graph(graph_under(who.subject.graph, profile), profile, who.threads)
    rules = Rules(
        rounds=options.rounds,
        seconds=options.seconds,
        time_limit=options.time_limit,
        cold=not options.no_cold,
        time_anyway=options.time_anyway,
        layers=max(3, min(options.rounds, 10)) if options.layers else 0,
    )
    with _status() as say:
        contest = run_contest(model_label(options.model), subject, contestants, rules, say)
    print(table(contest))
    if options.json is not None:
        options.json.write_text(json.dumps(contest.to_dict(), indent=1) + "\n", encoding="utf-8")
    if any(parity.verdict == "differs" for parity in contest.parity) and not options.time_anyway:
        print("outputs differ, so nothing was timed; --time-anyway times them nevertheless")
    return contest.exit_code


@contextmanager
def _status() -> Iterator[Say]:
    """A line on a terminal's stderr that says what happens now."""
    from tqdm import tqdm

    with tqdm(bar_format="karat24 bench: {desc} ({elapsed})", leave=False, disable=None) as line:
        yield line.set_description_str


def _runtime_names() -> Iterable[str]:
    from karat24.contest.contestants import runtime_names

    return runtime_names()


def _instruction_sets() -> Iterable[str]:
    from karat24.refimpl.kernels.jit.isa import FEATURES

    return FEATURES
