"""Kept figures as Markdown, and put between two markers of a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.summary import LEDGER, Table, canonical, entry, ratio, timed
from karat.contest.table import seconds_text
from refimpl.errors import UsageError

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

COLUMNS = (
    ("xnnpack", "litert-xnnpack", "LiteRT XNNPACK"),
    ("builtin", "litert-builtin", "LiteRT builtin"),
    ("ort-s8s8", "ort s8s8", "ORT s8s8"),
    ("ort-u8s8", "ort u8s8", "ORT u8s8"),
    ("float", "litert float", "LiteRT float"),
    ("float", "ort float", "ORT float"),
    ("ref", "litert-ref", "LiteRT reference"),
)
"""Group, contestant and heading of each column."""


def markdown(content: Mapping[str, Any]) -> str:
    """All tables of a file of results."""
    table = Table(content)
    if not table.contests:
        return "No contest has been held yet.\n"
    parts = [_heading(table), _main(table), _instruction_sets(table), _ledger(table)]
    return "\n".join(part for part in parts if part)


def put_between_markers(path: Path, text: str) -> None:
    """Replaces what stands between the markers. Raises UsageError where they are missing or out of order."""
    try:
        document = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{path}: the tables go between a line {BEGIN} and a line {END}; add both")
    path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}", encoding="utf-8")


def _heading(table: Table) -> str:
    first = next(iter(table.contests.values()))
    versions = {
        name: version
        for contest in table.contests.values()
        for found in contest["entries"]
        for name, version in found["versions"].items()
        if name in ("karat", "numba", "ai-edge-litert", "onnxruntime")
    }
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    days = sorted({contest["date"][:10] for contest in table.contests.values()})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{first['machine']['cpu']}, {first['machine']['cores']} cores, "
        f"{first['threads']} threads; {listed}; {when}. Medians of interleaved runs; outputs were equal "
        "bit by bit unless it says so (float networks have none to compare with).\n"
    )


def _main(table: Table) -> str:
    """One row per model: the oracle's median in the newest contest; each runtime's, and its ratio to the
    oracle in the same contest."""
    columns = [column for column in COLUMNS if any(group == column[0] for _, group in table.pairs)]
    rows, left_out = [], []
    for model in table.models:
        own = [
            (contest["date"], found["quartiles"]["median"])
            for contest in table.of(model)
            if (found := canonical(contest)) and timed(found)
        ]
        if all(
            found["stopped"] for c in table.of(model) for found in c["entries"] if found["kind"] == "oracle"
        ):
            left_out.append(model)
            continue
        mine = seconds_text(max(own)[1]) if own else ""
        rows.append([model, mine, *(_cell(table.get(model, group), name) for group, name, _ in columns)])
    heading = ["int8 model", "oracle", *(title for _, _, title in columns)]
    note = (
        "\n×: the runtime's time over the oracle's (profile `litert-2.3-ref`, best instruction set) in the "
        "same contest; above 1 the oracle is faster. Its own column is of the newest.\n"
    )
    if left_out:
        note += f"Left out, since the oracle does not run them: {', '.join(left_out)}.\n"
    return _grid(heading, rows) + note


def _cell(contest: Mapping[str, Any] | None, name: str) -> str:
    if contest is None:
        return ""
    found = entry(contest, name)
    if found is None:
        return ""
    if found["stopped"]:
        return "stopped"
    if any(p["other"] == name and p["verdict"] == "differs" for p in contest["parity"]):
        return "differs"
    if not timed(found):
        return "not timed"
    mine = canonical(contest)
    times = f" ({ratio(mine, found):.2f}×)" if mine is not None and timed(mine) else ""
    return seconds_text(found["quartiles"]["median"]) + times


def _instruction_sets(table: Table) -> str:
    """The oracle on every instruction set, beside XNNPACK."""
    contests = {model: table.get(model, "xnnpack") for model in table.models}
    sets = list(
        dict.fromkeys(
            found["isa"]
            for contest in contests.values()
            if contest is not None
            for found in contest["entries"]
            if found["kind"] == "oracle" and found["isa"]
        )
    )
    if not sets:
        return ""
    rows = []
    for model, contest in contests.items():
        if contest is None:
            continue
        runtime = entry(contest, "litert-xnnpack")
        cells = []
        for isa in sets:
            found = canonical(contest, isa)
            if found is None or not timed(found):
                cells.append("")
                continue
            times = f"{ratio(found, runtime):.2f}×" if runtime is not None and timed(runtime) else ""
            of_peak = f"{found['peak_fraction']:.0%}" if found["peak_fraction"] else ""
            told = ", ".join(part for part in (times, f"{found['gmac_per_s']:.0f} GMAC/s", of_peak) if part)
            cells.append(told)
        if any(cells):
            rows.append([model, *cells])
    return _grid(["XNNPACK / oracle, rate, of peak", *sets], rows)


def _ledger(table: Table) -> str:
    rows = [[title, figure] for title, figures in LEDGER for figure in [figures(table)] if figure]
    return _grid(["figure", "measured"], rows) if rows else ""


def _grid(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
