"""``python -m benchmarks`` times the oracle beside real runtimes; ``python -m benchmarks render FILE
--documents README.md benchmarks/results/speed.md`` writes tables of kept results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.formats import compare
from benchmarks.markdown import fill
from benchmarks.models import FLAGSHIPS, Model, all_models
from benchmarks.plan import GROUPS, Unit, units
from benchmarks.render import markdown, texts
from benchmarks.results import compact, default_path, keep, load
from karat24.contest.figures import Contest
from karat24.contest.runner import Rules, run_contest
from karat24.contest.table import table
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import KaratError
from karat24.refimpl.kernels.jit.isa import FEATURES

EPILOG = (
    "contestants:\n"
    + "\n".join(f"  {name:9} {text}" for name, text in GROUPS.items())
    + """

Kept contests are not measured again (except with --again), so that a run may be ended at any moment.
`python -m benchmarks render FILE` prints the tables of a file of results as Markdown; with
--documents FILE.md it puts them into the places that the document marks.
`python -m benchmarks formats` times the oracle on models in both formats."""
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures or renders; 0, or 1 where outputs differ, 2 for wrong use, 3 for a stopped contestant."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        other = {"render": render, "formats": compare}.get(given[0] if given else "")
        return other(given[1:]) if other else time_models(given)
    except KaratError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks: interrupted; what is finished is kept", file=sys.stderr)
        return 130


def render(arguments: Sequence[str]) -> int:
    """The tables of a file of results, printed or put into a document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks render")
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--documents", nargs="*", type=Path, default=[], metavar="FILE.md",
        help="documents whose marked tables are replaced",
    )  # fmt: skip
    parser.add_argument(
        "--restricted", type=Path, metavar="FILE",
        help="results of the same machine where all contestants were told of fewer instructions",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    content = load(options.results)
    restricted = load(options.restricted) if options.restricted else None
    if not options.documents:
        print(markdown(content, restricted), end="")
    for document in options.documents:
        fill(document, texts(content, restricted))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The measuring command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", default=[""], metavar="TEXT",
        help=f"models whose name holds one of these ({', '.join(FLAGSHIPS)}, public ones as folder/name)",
    )  # fmt: skip
    parser.add_argument("--sizes", nargs="*", type=int, default=[64, 1024, 2560], help="of the flagships")
    parser.add_argument("--contestants", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument(
        "--isa", nargs="+", choices=list(FEATURES), help="instruction sets (default: all this machine has)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="per contest; at least 3 rounds are run")
    parser.add_argument("--time-limit", type=float, default=180.0, help="most seconds for one turn or start")
    parser.add_argument("--quick", action="store_true", help="3 rounds, 64 and 1024 only, XNNPACK only")
    parser.add_argument("--again", action="store_true", help="also measure contests that are kept already")
    parser.add_argument("--list", action="store_true", help="only print the contests")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/DATE-CPU.json)")
    return parser


def time_models(arguments: Sequence[str]) -> int:
    """Holds every contest that is not kept yet, and keeps its result."""
    options = build_parser().parse_args(arguments)
    if options.quick:
        options.sizes = [size for size in options.sizes if size <= 1024]
        options.contestants, options.rounds = ["xnnpack"], 3
    rules = Rules(rounds=options.rounds, seconds=options.seconds, time_limit=options.time_limit)
    models = [m for m in all_models(options.sizes) if any(text in m.name for text in options.models)]
    path = options.output or default_path()
    content = load(path)
    planned = list(units(models, options.contestants, options.threads, options.isa))
    waiting = [unit for unit in planned if options.again or unit.key not in content["contests"]]
    print(f"{len(planned)} contests, {len(planned) - len(waiting)} of them kept in {path}", flush=True)
    if options.list:
        print("\n".join(unit.key for unit in waiting))
        return 0
    refused: set[str] = set()
    worst = 0
    begun = time.perf_counter()
    for number, unit in enumerate(waiting):
        spent = time.perf_counter() - begun
        left = f", about {spent / number * (len(waiting) - number) / 60:.0f} min to go" if number else ""
        print(f"\n[{number + 1}/{len(waiting)}{left}] {unit.key}", flush=True)
        if unit.model.name in refused:
            continue
        try:
            contest = _hold(unit, rules)
        except KaratError as error:
            print(f"skipped: {error}", flush=True)
            content["skipped"][unit.key] = str(error)
            keep(path, content)
            if _hopeless(unit.model):
                refused.add(unit.model.name)
            continue
        print(table(contest), flush=True)
        content["contests"][unit.key] = compact(contest.to_dict())
        content["skipped"].pop(unit.key, None)
        keep(path, content)
        worst = _worse(worst, contest)
    print(f"\n{markdown(content)}\nkept in {path}")
    return worst


def _hold(unit: Unit, rules: Rules) -> Contest:
    subject, contestants = unit.contestants()
    return run_contest(unit.model.name, subject, contestants, unit.rules(rules), _say)


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="\r", file=sys.stderr, flush=True)


def _hopeless(model: Model) -> bool:
    """Whether the oracle cannot run the model in any group."""
    try:
        compile_graph(model.quantized())
    except KaratError:
        return True
    return False


def _worse(code: int, contest: Contest) -> int:
    """The exit code of all contests: 1 before 3 before 0. Float networks, which no profile describes, do not
    count."""
    if code == 1 or any(parity.verdict == "differs" for parity in contest.parity):
        return 1
    return 3 if code == 3 or any(entry.stopped for entry in contest.entries) else 0


if __name__ == "__main__":
    sys.exit(main())
