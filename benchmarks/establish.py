"""Tables of the results of ``karat24 establish --report``: ``python benchmarks/establish.py ref.json …``.

Writes Markdown to standard output, such as ``benchmarks/results/establish.md``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """# Rules found blind

`karat24 establish --delegate LANE --report LANE.json` asked each runtime; the search knew the space of rules
(`refimpl/profiles/space.py`) and no profile. *nearest* is the known profile that gives every value in
most kinds of layers. `+n`: n other rules of the space also fit, and no tried input distinguishes them.
A dash: the runtime refuses the layer. `python benchmarks/establish.py *.json` writes this page.
"""


def main(paths: list[str]) -> None:
    """Prints a table of the runtimes, and one of the rules for each file format."""
    reports = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    print(HEAD)
    print("| lane | runtime | machine | nearest profile | kinds that run | departing | not in the space |")
    print("|---|---|---|---|---|---|---|")
    for report in reports:
        print(f"| {' | '.join(_row(report))} |")
    for tables in (True, False):
        chosen = [report for report in reports if next(iter(report["kinds"])).split()[0].isupper() == tables]
        if chosen:
            _rules(chosen)


def _row(report: dict[str, Any]) -> list[str]:
    versions = report["versions"]
    package, version = next(iter(versions.items()))
    ran = [found for found in report["kinds"].values() if "refused" not in found]
    outside = sum("not in the space" in found for found in ran)
    agreeing = f"{report['nearest']} in {report['agreeing']}"
    machine = f"{versions.get('machine', '')} {versions.get('cpu', '')}"
    departing = ", ".join(report["departing"]) or "none"
    return [
        report["delegate"],
        f"{package} {version}",
        machine,
        agreeing,
        str(len(ran)),
        departing,
        str(outside),
    ]


def _rules(reports: list[dict[str, Any]]) -> None:
    print(f"\n| kind | {' | '.join(report['delegate'] for report in reports)} |")
    print("|---" * (len(reports) + 1) + "|")
    for kind in dict.fromkeys(kind for report in reports for kind in report["kinds"]):
        cells = [_cell(report["kinds"].get(kind, {"refused": ""})) for report in reports]
        print(f"| {kind} | {' | '.join(cells)} |")


def _cell(found: dict[str, Any]) -> str:
    if "refused" in found:
        return "–"
    if "rule" not in found:
        return "not in the space"
    others = found["not told apart"]
    return found["rule"].replace(" multiplier", "") + (f" +{others}" if others else "")


if __name__ == "__main__":
    main(sys.argv[1:])
