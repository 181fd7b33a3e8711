"""Restoration quality and its cost: ``python -m benchmarks.quality [run|latency|real|field]``.

``run`` simulates the test set, applies every method to every slice and measures; it can be interrupted and
started again, and only computes what is missing or out of date. ``latency`` times the 64×64-tile restoration
of one image on every available runtime, beside the figures published in 2019. ``real`` restores a real scan
from a part of its views, and compares the result with a row that no method saw. ``field`` simulates scans
under the conditions of the field, of samples that no network was trained on.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.markdown import fill
from benchmarks.quality.plans import WeightFiles
from karat24.refimpl.errors import KaratError, UsageError

RESULTS = Path(__file__).resolve().parents[1] / "results"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("command", nargs="?", choices=("run", "latency", "real", "field"), default="run")
    made.add_argument("--folder", type=Path, default=Path("work/quality"), help="slices, models and records")
    made.add_argument("--size", type=int, default=1024, help="side of the slices, a multiple of 64")
    made.add_argument("--slices", type=int, default=66, help="about two in eleven are of a held-out family")
    made.add_argument("--few", type=int, default=2, help="slices per family for profiles and steps (0: none)")
    made.add_argument("--processes", type=int, default=2)
    made.add_argument(
        "--weights", action="append", default=[], metavar="NAME=FILE",
        help="a weight file in place of the shipped one, such as tomogan-bilinear=aware.npz",
    )  # fmt: skip
    made.add_argument(
        "--documents", nargs="*", type=Path, default=[], metavar="FILE.md",
        help="documents whose marked tables are replaced",
    )  # fmt: skip
    made.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/COMMAND-DATE.json)")
    made.add_argument("--pictures", type=Path, help="folder for pictures (default: FOLDER/pictures)")
    made.add_argument(
        "--scan", type=Path, default=Path("../shared/scans/tooth_aps/tooth.h5"),
        help="real: the tooth as tomopy ships it (default: %(default)s)",
    )  # fmt: skip
    made.add_argument("--seed", type=int, default=7, help="field: of the samples")
    made.add_argument(
        "--before", type=Path, metavar="FILE.json",
        help="field: figures of the same seed, from which the classical filters' are taken",
    )  # fmt: skip
    made.add_argument("--rounds", type=int, default=7, help="latency: interleaved rounds")
    made.add_argument("--threads", type=int, help="latency: threads per runtime (default: all cores)")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; an error is one line."""
    options = parser().parse_args(arguments)
    try:
        return {"run": run, "latency": run_latency, "real": run_real, "field": run_field}[options.command](
            options
        )
    except KaratError as error:
        print(f"benchmarks.quality: {error}", file=sys.stderr)
        return error.exit_code


def run(options: argparse.Namespace) -> int:
    """Measures, then writes figures, tables and pictures."""
    from benchmarks.quality import evaluate, pictures, summary, tables
    from benchmarks.quality.cases import choose_cases
    from benchmarks.quality.plans import prepare

    if options.processes < 1 or options.few < 0:
        raise UsageError("--processes is at least 1, --few at least 0")
    cases = choose_cases(options.slices, options.size)
    models = prepare(options.folder / "models", weight_files(options.weights), say)
    settings = evaluate.Settings(options.folder, models, options.few)
    evaluate.evaluate(settings, cases, options.processes, say)
    entries = evaluate.results(settings, cases)
    output = options.output or RESULTS / f"quality-{datetime.now(UTC):%Y-%m-%d}.json"
    summary.keep(entries, options.size, models, output)
    (options.folder / "report.md").write_text(tables.report(entries), encoding="utf-8")
    say(tables.report(entries))
    place(options.documents, tables.texts(entries))
    drawn = pictures.draw_all(settings, entries, cases, options.pictures or options.folder / "pictures")
    for path in (output, options.folder / "report.md", *drawn):
        say(f"wrote {path}")
    return 0


def run_latency(options: argparse.Namespace) -> int:
    """Times the runtimes; returns 1 when a restored image differs from the oracle's."""
    from benchmarks.quality import latency

    found = latency.time_restorations(
        options.folder, options.size, weight_files(options.weights), options.rounds, options.threads, say
    )
    output = options.output or RESULTS / f"latency-{datetime.now(UTC):%Y-%m-%d}.json"
    latency.keep(found, output)
    say(latency.table_of(found))
    place(options.documents, {"quality: latency": latency.table_of(found)})
    drawn = latency.draw(found, (options.pictures or options.folder / "pictures") / "quality-latency.png")
    for path in (output, drawn):
        say(f"wrote {path}")
    return 1 if found.differing else 0


def run_real(options: argparse.Namespace) -> int:
    """Measures on the real scan; ``--weights NAME=FILE`` adds float networks."""
    from benchmarks.quality import real

    rows = real.measure(options.scan, dict(weight_files(options.weights).given), say)
    output = options.output or RESULTS / f"real-{datetime.now(UTC):%Y-%m-%d}.json"
    real.keep(rows, output)
    say(real.table_of(rows))
    place(options.documents, {"quality: real": real.table_of(rows)})
    say(f"wrote {output}")
    return 0


def run_field(options: argparse.Namespace) -> int:
    """Measures on simulated scans of the field; ``--weights NAME=FILE`` adds float networks."""
    from benchmarks.quality import field

    before = field.kept(options.before) if options.before else ()
    found = field.measure(options.seed, weight_files(options.weights).given, say, before)
    output = options.output or RESULTS / f"field-{datetime.now(UTC):%Y-%m-%d}.json"
    field.keep(found, output)
    for text in field.tables(found).values():
        say(text)
    place(options.documents, field.tables(found))
    say(f"wrote {output}")
    return 0


def weight_files(given: list[str]) -> WeightFiles:
    """``NAME=FILE`` pairs. Raises UsageError."""
    pairs = [pair.partition("=") for pair in given]
    if any(not name or not file for name, _, file in pairs):
        raise UsageError(f"--weights takes NAME=FILE, got {' '.join(given)}")
    return WeightFiles(given={name: Path(file) for name, _, file in pairs})


def place(documents: list[Path], texts: dict[str, str]) -> None:
    """Puts tables into the given documents."""
    for document in documents:
        say(f"{document}: replaced {', '.join(fill(document, texts))}")


def say(text: str) -> None:
    """Prints without buffering, so that progress is visible through a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
