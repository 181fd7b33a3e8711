"""What was done, for people (HTML) and for programs (JSON), beside the output."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from karat24.refimpl.graph import Array
from karat24.tomography.scan.check import Checked
from karat24.tomography.scan.files import write_json, write_whole
from karat24.tomography.scan.outputs import EXPORTS, format_of
from karat24.tomography.scan.pictures import picture_of
from karat24.tomography.scan.plan import Plan
from karat24.tomography.scan.records import Record, digest_of_all
from karat24.tomography.scan.run import Outcome
from karat24.tomography.scan.volumes import Source, open_volume
from karat24.tomography.scan.work import Worker

PICTURES = 3
MARKED = 6
"""Pictures of slices from which more than noise was taken."""
WIDTH, HEIGHT = 640, 120

STYLE = """body { font: 15px/1.5 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
img, svg { max-width: 100%; background: #f4f4f4 } td, th { padding: 0 1em 0 0; text-align: left }
pre { white-space: pre-wrap; background: #f4f4f4; padding: .7em } .warning { color: #a30 }"""

HONEST = """An int8 network restores what it was trained on: simulated samples of several kinds. It may smooth
away structures near the noise, and round what lies beyond its range. Look at the differences: noise is what
should be seen there. Edges or textures of the sample in them are what was lost."""


def write_report(
    plan: Plan, outcome: Outcome, checked: Sequence[Checked] = (), delegate: str | None = None
) -> Path:
    """Writes ``report.json`` and ``report.html`` to the folder beside the output; returns the latter's
    path."""
    manifest = plan.manifest
    counts, low, high = plan.sample.histogram()
    value = {
        "command": manifest.told["command"],
        "fingerprint": manifest.fingerprint,
        "voxel_size_micrometers": plan.volume.about.voxel,
        "terms": manifest.judged(),
        "warnings": list(plan.warnings),
        "sha256_of_all_values": digest_of_all(outcome.records),
        "finished_before": outcome.done_before,
        "stray_parts_removed": outcome.removed,
        "done_again": list(outcome.redone),
        "histogram": {"low": low, "high": high, "counts": [int(count) for count in counts]},
        "masked_share_of_sample": plan.sample.masked,
        "more_than_noise_removed": [
            outcome.records[index].name
            for index in sorted(outcome.records)
            if outcome.records[index].structured
        ],
        "skipped_as_clean": [
            outcome.records[index].name for index in sorted(outcome.records) if outcome.records[index].skipped
        ],
        "checked": [{**asdict(found), "equal": found.equal} for found in checked],
        "checked_on": delegate or "oracle",
        "slices": [asdict(outcome.records[index]) for index in sorted(outcome.records)],
    }
    write_json(manifest.state / "report.json", value)
    path = manifest.state / "report.html"
    write_whole(path, _page(plan, outcome, value).encode())
    return path


def _page(plan: Plan, outcome: Outcome, value: dict[str, Any]) -> str:
    manifest = plan.manifest
    records = [outcome.records[index] for index in sorted(outcome.records)]
    histogram = value["histogram"]
    last = len(records) - 1
    shown = sorted({last * part // max(PICTURES - 1, 1) for part in range(PICTURES)})
    pictures = [_picture(records[place].name, content) for place, content in _pictures(plan, shown)]
    checks = "".join(
        f"<li>slice {html.escape(found['name'])}: {'equal' if found['equal'] else '<b>DIFFERS</b>'}</li>"
        for found in value["checked"]
    )
    means = [record.difference for record in records]
    deviations = [record.deviation for record in records]
    clipped = [float(record.clipped) for record in records]
    parts = [
        f"<h1>{html.escape(manifest.out.name)}</h1>",
        f"<pre>{html.escape(manifest.told['command'])}\n\n{html.escape(chr(10).join(plan.lines()))}</pre>",
        *(f"<p class='warning'>{html.escape(warning)}</p>" for warning in plan.warnings),
        f"<p>{len(records)} slices, {outcome.done_before} of them finished by an earlier run; "
        f"{outcome.removed} stray parts were removed. SHA-256 of all values: "
        f"<code>{value['sha256_of_all_values']}</code></p>",
        *_done_again(outcome.redone),
        "<h2>Values in the sample</h2>",
        f"<p>{histogram['low']:.6g} to {histogram['high']:.6g}; the marks are the range of the network's "
        f"scale.</p>",
        _bars(histogram["counts"], histogram["low"], histogram["high"], plan),
        "<h2>Before, after, difference</h2>",
        f"<p>{HONEST} The difference is shown four times as strong.</p>",
        *pictures,
        *_losses(plan, records),
        "<h2>Difference by slice</h2>",
        "<p>Mean of restored minus measured, in the volume's unit: it should neither drift nor jump.</p>",
        _line(means),
        "<p>Standard deviation of the difference: the noise that was taken away.</p>",
        _line(deviations),
        "<p>Pixels beyond the network's range, clipped.</p>",
        _line(clipped),
    ]
    if checks:
        parts.append(f"<h2>Restored once more on {html.escape(value['checked_on'])}</h2><ul>{checks}</ul>")
    return (
        f"<!DOCTYPE html><html lang='en'><meta "
        f"charset='utf-8'><title>{html.escape(manifest.out.name)}</title>"
        f"<style>{STYLE}</style>{''.join(parts)}</html>"
    )


def _done_again(names: Sequence[str]) -> list[str]:
    listed = html.escape(", ".join(names))
    return [f"<p>Done again, because they were damaged or missing: {listed}.</p>"] if names else []


def _losses(plan: Plan, records: Sequence[Record]) -> list[str]:
    """Slices from which more than noise was taken, the worst with their pictures."""
    marked = [place for place, record in enumerate(records) if record.structured]
    blind = sum(not record.judged for record in records)
    skipped = sum(record.skipped for record in records)
    found_clean = f"<p>Found clean and left as they are: {skipped} slices.</p>"
    parts = [
        "<h2>What was taken away</h2>",
        f"<p>Tested slice by slice against the noise that it should be, and against the slice's own edges. "
        f"More than noise: <b>{len(marked)}</b> of {len(records)} slices. Too few views to tell: "
        f"{blind}.</p>",
        *([found_clean] if plan.manifest.recipe.selector else []),
    ]
    if marked:
        lines = "".join(
            f"<li class='warning'>slice {html.escape(records[place].name)}: "
            f"{html.escape(records[place].removed)}</li>"
            for place in marked
        )
        parts.append(f"<ul>{lines}</ul>")
        parts += [
            _picture(records[place].name, content) for place, content in _pictures(plan, marked[:MARKED])
        ]
    return parts


def _picture(name: str, content: bytes) -> str:
    return (
        f"<h3>slice {html.escape(name)}</h3><img alt='before, after, difference' "
        f"src='data:image/png;base64,{base64.b64encode(content).decode()}'>"
    )


def _pictures(plan: Plan, places: Sequence[int]) -> list[tuple[int, bytes]]:
    """Pictures of slices, by their place among the chosen ones."""
    manifest = plan.manifest
    worker = Worker(manifest)
    single = open_volume(Source(manifest.out)) if format_of(manifest.out) in EXPORTS else None
    found = []
    for place in places:
        stored: Array = worker.store.read(place) if single is None else single.read(place)
        found.append((place, picture_of(worker, manifest.first + place, stored)))
    return found


def _bars(counts: Sequence[int], low: float, high: float, plan: Plan) -> str:
    most = max(*counts, 1)
    wide = WIDTH / len(counts)
    bars = "".join(
        f"<rect x='{place * wide:.1f}' width='{wide:.1f}' y='{HEIGHT - HEIGHT * count / most:.1f}' "
        f"height='{HEIGHT * count / most:.1f}' fill='#678'/>"
        for place, count in enumerate(counts)
    )
    marks = ""
    for value in (plan.manifest.scale.low, plan.manifest.scale.high):
        if high > low and low <= value <= high:
            x = WIDTH * (value - low) / (high - low)
            marks += f"<path d='M{x:.1f} 0V{HEIGHT}' stroke='#a30' stroke-width='2'/>"
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}'>{bars}{marks}</svg>"


def _line(values: Sequence[float]) -> str:
    """A line over the slices, from the lowest to the highest value, which stand beside it."""
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    across, up = WIDTH / max(len(values) - 1, 1), (HEIGHT - 8) / span
    points = " ".join(
        f"{across * place:.1f},{HEIGHT - 4 - up * (value - least):.1f}" for place, value in enumerate(values)
    )
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}'><polyline points='{points}' fill='none' stroke='#357'/></svg>"
        f"<p>{least:.6g} to {most:.6g}</p>"
    )
