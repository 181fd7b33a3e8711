"""Annotations that GitHub shows beside a change: lines a workflow's step prints.

Source: GitHub Docs, "Workflow commands for GitHub Actions", setting an error message.
"""

from __future__ import annotations

from karat24.golden.report import LayerVerdict, Report
from karat24.golden.reports.refusal import Refusal

MOST = 10
"""GitHub shows no more annotations of one kind per step."""


def annotation_lines(report: Report, file: str) -> list[str]:
    """An error for each layer and output that differs or was not compared; the last one counts what is left.

    ``file`` is the golden or model the annotations stand at. A passed report gives none.
    """
    found = [
        judged for judged in report.judged if judged.verdict not in ("certified", "bit_exact", "within_bound")
    ]
    lines = []
    for judged in found[: MOST - 1] if len(found) > MOST else found:
        place = f"layer {judged.layer} ({judged.op})" if isinstance(judged, LayerVerdict) else "output"
        title = f"{place} {judged.name}: {judged.verdict}"
        lines.append(_error(file, title, judged.reason or report.summary()))
    if len(found) > MOST:
        lines.append(_error(file, f"and {len(found) - MOST + 1} more", report.summary()))
    if not found and report.exit_code() != 0:
        lines.append(_error(file, report.verdict, report.summary()))
    return lines


def refusal_line(refusal: Refusal) -> str:
    """An error at a golden that could not be compared at all."""
    return _error(refusal.name, "not_compared", refusal.reason)


def _error(file: str, title: str, message: str) -> str:
    return f"::error file={_property(file)},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
