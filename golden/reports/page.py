"""A report as one page: everything it needs is inside, and it asks no network for anything."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from karat24.golden.located import Located
from karat24.golden.report import LayerVerdict, OutputVerdict, Report, histogram_text
from karat24.golden.reports.pictures import (
    difference_picture,
    heat_svg,
    histogram_svg,
    png_uri,
    similarity,
)
from karat24.golden.reports.refusal import Refusal
from karat24.refimpl import __version__

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""What the page may load: nothing that is not in it."""

SIGNS = {
    "certified": "≡",
    "bit_exact": "=",
    "within_bound": "≈",
    "explained": "~",
    "mismatch": "≠",
    "not_compared": "?",
}
"""Beside a colour, so that a verdict can be told without seeing it."""

COLUMNS = ("layer", "op", "output", "type", "verdict", "differing", "max LSB", "origin", "more")
NUMERIC = ("layer", "differing", "max LSB")
MOST_CHANNELS = 256
"""A row of more cells than this cannot be read; channels are then counted in groups."""

LONG_NAME = 64
"""Characters of a name of which the table shows a part; the details show it whole."""

Judged = LayerVerdict | OutputVerdict


def page(reports: Sequence[Report], names: Sequence[str], refusals: Sequence[Refusal] = ()) -> str:
    """Reports as an HTML page; ``names`` are the headings, goldens or models. ``refusals`` come first."""
    here = Path(__file__)
    style = here.with_name("page.css").read_text(encoding="utf-8")
    script = here.with_name("page.js").read_text(encoding="utf-8")
    body = "".join(map(_refusal, refusals))
    body += "".join(_section(report, name) for report, name in zip(reports, names, strict=True))
    title = html.escape(", ".join([*(refusal.name for refusal in refusals), *names]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>karat24: {title}</title><style>{style}</style></head>"
        f"<body><header><h1>karat24 {__version__}</h1>{_filters()}</header><main>{body}</main>"
        f"<script>{script}</script></body></html>\n"
    )


def _filters() -> str:
    options = "".join(f'<option value="{v}">{sign} {v}</option>' for v, sign in SIGNS.items())
    return (
        '<form role="search"><label>Find <input id="text" type="search" placeholder="op or name"></label> '
        f'<label>Verdict <select id="verdict"><option value="">all</option>{options}</select></label> '
        '<output id="shown" aria-live="polite"></output></form>'
    )


def _section(report: Report, name: str) -> str:
    inputs = f"{report.samples} input{'s' if report.samples != 1 else ''}"
    facts = {
        "model": report.model,
        "SHA-256": report.model_sha256,
        "run": f"{report.delegate}, {report.mode}, {inputs}",
        "against": " ".join(filter(None, (report.profile, report.profile_reason))),
        "versions": ", ".join(f"{key} {value}" for key, value in report.versions.items()),
        "machine": ", ".join(report.machine.values()),
    }
    told = "".join(f"<dt>{key}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items() if value)
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in report.notes)
    heading = html.escape(name)
    rows = "".join(_row(judged) for judged in report.judged)
    return (
        f"<section><h2>{_badge(report.verdict)} {heading}</h2><p>{html.escape(report.summary())}</p>"
        f"<dl>{told}</dl>{notes}{_overview(report)}"
        f'<div class="scroll" role="region" tabindex="0" aria-label="layers of {heading}">'
        '<table role="table"><caption>Layers and outputs; a heading sorts</caption>'
        f'<thead role="rowgroup"><tr role="row">{_headings()}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table></div></section>'
    )


def _refusal(refusal: Refusal) -> str:
    heading = f"{_badge('not_compared')} {html.escape(refusal.name)}"
    return f"<section><h2>{heading}</h2><p>{html.escape(refusal.reason)}</p></section>"


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{SIGNS[verdict]} {verdict.replace("_", " ")}</span>'


def _overview(report: Report) -> str:
    """The model as a strip, a cell per layer in the order they run."""
    cells = []
    for judged in report.judged:
        title = html.escape(f"{_place(judged)} {judged.name}: {judged.verdict}")
        cells.append(f'<li class="{judged.verdict}" title="{title}">{SIGNS[judged.verdict]}</li>')
    return f'<ol class="strip" aria-label="verdicts in the order of the layers">{"".join(cells)}</ol>'


def _headings() -> str:
    headings = []
    for column in COLUMNS:
        kind = "number" if column in NUMERIC else "text"
        button = f'<button type="button" data-kind="{kind}">{column}</button>'
        inner = button if column != "more" else column
        headings.append(f'<th role="columnheader" scope="col">{inner}</th>')
    return "".join(headings)


def _place(judged: Judged) -> str:
    return f"{judged.layer} {judged.op}" if isinstance(judged, LayerVerdict) else "output"


def _row(judged: Judged) -> str:
    diff = judged.diff
    layer, op, origin = "", "whole model", ""
    if isinstance(judged, LayerVerdict):
        layer, op, origin = str(judged.layer), judged.op, judged.origin
    largest = ""
    if diff is not None:
        floating = judged.dtype.startswith("float")
        largest = f"{diff.max_abs_diff:.3g}" if floating else str(diff.max_abs_diff_lsb)
    count = "" if diff is None else f"{diff.mismatch_count}"
    cells = [layer, op, judged.name, judged.dtype, None, count, largest, origin]
    shown = [_badge(judged.verdict) if cell is None else html.escape(cell) for cell in cells]
    shown[2] = f'<span class="name" title="{shown[2]}">{shown[2]}</span>'  # fused layers have long names
    written = "".join(
        f'<td role="cell" data-label="{column}">{cell}</td>'
        for column, cell in zip(COLUMNS[:-1], shown, strict=True)
    )
    return (
        f'<tr role="row" data-verdict="{judged.verdict}">{written}<td role="cell">{_more(judged)}</td></tr>'
    )


def _more(judged: Judged) -> str:
    """What explains a row: reason, rule, histogram, maps and pictures."""
    parts = [f"<p>{html.escape(judged.reason)}</p>"] if judged.reason else []
    if isinstance(judged, LayerVerdict):
        if judged.tie_distance is not None:
            parts.append(f"<p>at most {judged.tie_distance:.3g} LSB from a tie</p>")
        if judged.rule and judged.verdict not in ("certified", "bit_exact"):
            parts.append(f"<p>rule: {html.escape(judged.rule)}</p>")
    diff = judged.diff
    if diff is not None and not diff.equal:
        parts.append(f"<p>{diff.mismatch_count} of {diff.elements}: {histogram_text(diff.histogram)}</p>")
        if first := diff.first_divergence:
            place = ", ".join(map(str, first.index))
            parts.append(f"<p>first at {place}: expected {first.expected:g}, found {first.found:g}</p>")
        parts.append(_figure(histogram_svg(diff.histogram, "differences in LSBs"), "LSBs, logarithmic"))
    if judged.located is not None:
        parts += _maps(judged.located)
    if len(judged.name) > LONG_NAME:
        parts.append(f'<p class="note">{html.escape(judged.name)}</p>')
    inner = "".join(parts)
    return f"<details><summary>show</summary>{inner}</details>" if inner else ""


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{html.escape(caption)}</figcaption></figure>" if drawing else ""


def _maps(located: Located) -> list[str]:
    group = -(-len(located.channels) // MOST_CHANNELS) or 1
    channels = [sum(located.channels[i : i + group]) for i in range(0, len(located.channels), group)]
    per_row = 32
    rows = [channels[i : i + per_row] for i in range(0, len(channels), per_row)]
    rows[-1] = rows[-1] + [0] * (len(rows[0]) - len(rows[-1]))
    caption = f"per channel, {per_row} a row" + (f", {group} in a cell" if group > 1 else "")
    parts = [_figure(heat_svg(rows, "differing values per channel"), caption)]
    if located.places:
        caption = f"per place, {located.block[0]}×{located.block[1]} in a cell"
        parts.append(_figure(heat_svg(located.places, "differing values per place"), caption))
    if located.pictures is not None:
        expected, found = located.pictures
        value = similarity(expected, found)
        said = "SSIM needs karat24[image]" if value is None else f"SSIM {value:.4f}"
        shown = (expected, "expected"), (found, "found"), (difference_picture(expected, found), "difference")
        images = "".join(
            f'<figure><img src="{png_uri(pixels)}" alt="{name}"><figcaption>{name}</figcaption></figure>'
            for pixels, name in shown
        )
        parts.append(f'<div class="images">{images}<p>{said}</p></div>')
    return parts
