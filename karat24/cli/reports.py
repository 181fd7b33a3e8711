"""Reports that several commands write: on the terminal, as files, and where a workflow shows them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.cli import options as shared

if TYPE_CHECKING:
    from karat24.golden.report import Report
    from karat24.golden.reports.refusal import Refusal

FILES = {
    "json": ("OUT.json", "write the report as JSON"),
    "junit": ("OUT.xml", "write a test case per layer as JUnit XML"),
    "html": ("OUT.html", "write a page that needs no network"),
    "overlay": ("OUT.json", "write verdicts as node data for Model Explorer (.tflite)"),
}


def add_reports(parser: argparse.ArgumentParser) -> None:
    """One option per kind of file."""
    for name, (metavar, text) in FILES.items():
        parser.add_argument(f"--{name}", type=Path, metavar=metavar, help=text)


def require_writable(options: argparse.Namespace) -> None:
    """Raises UsageError for a file that cannot be written, before anything runs."""
    for name in FILES:
        if getattr(options, name) is not None:
            shared.writable(getattr(options, name))
    if options.overlay is not None and hasattr(options, "model"):
        _require_places(options.overlay, str(options.model))


def table(report: Report, all_layers: bool) -> str:
    """The report as the terminal wants it: coloured, and as wide as the window."""
    from karat24.golden.reports.terminal import terminal_text, wants_colour

    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    return terminal_text(report, all_layers, wants_colour(os.environ, is_terminal), width)


def write(
    options: argparse.Namespace,
    reports: Sequence[Report],
    names: Sequence[str],
    refusals: Sequence[Refusal] = (),
) -> None:
    """Writes the files asked for; ``names`` are the goldens or models that the reports are of, ``refusals``
    the goldens that could not be compared."""
    if options.json is not None:
        single = options.command == "verify"
        content = reports[0].to_json() if single else _json_list(reports, names, refusals)
        options.json.write_text(content + "\n", encoding="utf-8")
    if options.junit is not None:
        from karat24.golden.reports.junit import junit_xml

        options.junit.write_text(junit_xml(reports, names, refusals), encoding="utf-8")
    if options.html is not None:
        from karat24.golden.reports.page import page

        options.html.write_text(page(reports, names, refusals), encoding="utf-8")
    if options.overlay is not None:
        _write_overlay(options.overlay, reports)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from karat24.golden.reports.github import annotation_lines, refusal_line

        for refusal in refusals:
            print(refusal_line(refusal))
        for report, name in zip(reports, names, strict=True):
            for line in annotation_lines(report, name):
                print(line)


def _json_list(reports: Sequence[Report], names: Sequence[str], refusals: Sequence[Refusal]) -> str:
    """``verify`` writes its one report; goldens are many, so theirs are a list, each with its golden."""
    from karat24.golden.report import json_text

    named = [{"golden": name, **report.to_dict()} for report, name in zip(reports, names, strict=True)]
    return json_text([*named, *(refusal.to_dict() for refusal in refusals)])


def _require_places(overlay: Path, model: str) -> None:
    """Raises UsageError for a model whose layers are not those of its file, one for one."""
    from karat24.refimpl.errors import UsageError

    if model.lower().endswith(".onnx"):
        raise UsageError(
            f"{overlay}: an overlay names layers by their place in a .tflite file; ONNX Runtime makes layers "
            "of its own of an .onnx file. --html shows these"
        )


def _write_overlay(path: Path, reports: Sequence[Report]) -> None:
    from karat24.golden.reports.overlay import overlay_json
    from karat24.refimpl.errors import UsageError

    if len(reports) != 1:
        raise UsageError(
            f"{path}: an overlay is of one model, and {len(reports)} reports are here; name one golden"
        )
    _require_places(path, reports[0].model)
    path.write_text(overlay_json(reports[0]), encoding="utf-8")
