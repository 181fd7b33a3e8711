"""Verdicts per layer and for the model, as data, as JSON and as a table."""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from karat24.golden.attribution.result import Attribution
from karat24.golden.certify.certificate import Certificate
from karat24.golden.diff import ArrayDiff
from karat24.golden.located import Located
from karat24.refimpl.bounds.interval import Use

Verdict = Literal["certified", "bit_exact", "within_bound", "explained", "mismatch", "not_compared"]
Mode = Literal["isolated", "cumulative", "recorded"]
Origin = Literal["introduced", "inherited", ""]

SCHEMA = 3
"""3: the verdict ``certified`` and a layer's ``certificate``.
2: ``outputs``, the whole model's, beside ``layers``; the verdict ``within_bound`` and its ``bound``."""

EXIT_MATCH, EXIT_MISMATCH, EXIT_CANNOT_COMPARE = 0, 1, 3


@dataclass(frozen=True)
class LayerVerdict:
    """The verdict of one layer output.

    ``reason`` names the rule that explains a difference, or says why nothing was
    compared. ``origin`` tells, in a cumulative comparison, whether the layer's
    inputs already differed. ``tie_distance`` is the largest distance of a
    mismatching element's real-valued result from a rounding tie, in LSBs, where
    accumulators exist: a small number means only the rounding differs. ``bound`` says, where no rule fixes
    the bits of a float32 layer, how wide the intervals of its values are and how much of them was used.
    ``located`` says where differing values lie; it is for pictures, and no part of the JSON.
    ``attribution`` is what a search for the cause of an unexplained difference found.
    ``certified`` is ``bit_exact`` for every input, by its ``certificate``, which is None where it was not
    asked for.
    """

    layer: int
    op: str
    tensor: int
    name: str
    dtype: str
    rule: str
    verdict: Verdict
    diff: ArrayDiff | None = None
    reason: str = ""
    origin: Origin = ""
    tie_distance: float | None = None
    bound: Use | None = None
    located: Located | None = field(default=None, repr=False, compare=False)
    attribution: Attribution | None = None
    certificate: Certificate | None = None

    @property
    def differs(self) -> bool:
        """True where a difference was found, explained or not."""
        return self.verdict in ("mismatch", "explained")


@dataclass(frozen=True)
class OutputVerdict:
    """The verdict of one output of the whole model: the unchanged file, in a user's session.

    ``reason`` names what explains a difference, or says why nothing was compared. ``bound`` is that of a
    layer's output.
    """

    tensor: int
    name: str
    dtype: str
    verdict: Verdict
    diff: ArrayDiff | None = None
    reason: str = ""
    bound: Use | None = None
    located: Located | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Report:
    """The judgement of one model on one runtime under one profile.

    ``layers`` are those the runtime runs, ``outputs`` the model's own, from a run of the file as it is.
    Exact layers say nothing about a model if other layers of it ran: without outputs no report
    passes. ``profile_reason`` says how it is known that the runtime follows this profile on
    this machine, where there was a choice, and what is assumed in a profile that was held against no runtime;
    ``notes`` what else to know, such as a version the profile was not established on.
    """

    model: str
    model_sha256: str
    feeds_sha256: str
    delegate: str
    profile: str
    mode: Mode
    samples: int
    layers: tuple[LayerVerdict, ...]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    outputs: tuple[OutputVerdict, ...] = ()
    notes: tuple[str, ...] = ()
    profile_reason: str = ""

    @property
    def judged(self) -> tuple[LayerVerdict | OutputVerdict, ...]:
        """The layers, then the outputs."""
        return (*self.layers, *self.outputs)

    @property
    def verdict(self) -> Verdict:
        """The worst layer or output decides: mismatch, not compared, explained, then within a bound."""
        found = {judged.verdict for judged in self.judged}
        if not self.outputs:
            found.add("not_compared")
        ranked: tuple[Verdict, ...] = ("mismatch", "not_compared", "explained", "within_bound")
        for verdict in ranked:
            if verdict in found:
                return verdict
        return "bit_exact" if found else "not_compared"

    def exit_code(self, accept_explained: bool = False) -> int:
        """0 match, 1 mismatch, 3 cannot compare. Values within a bound match, since no document says more
        about them. An explained difference is still a difference from the chosen profile, unless the caller
        accepts it."""
        verdict = self.verdict
        if verdict == "mismatch" or (verdict == "explained" and not accept_explained):
            return EXIT_MISMATCH
        if verdict == "not_compared":
            explained = any(judged.verdict == "explained" for judged in self.judged)
            return EXIT_MISMATCH if explained and not accept_explained else EXIT_CANNOT_COMPARE
        return EXIT_MATCH

    @property
    def first_divergence(self) -> LayerVerdict | None:
        """The first layer whose output differs."""
        return next((layer for layer in self.layers if layer.differs), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures, in JSON's own types."""
        content = asdict(
            replace(
                self,
                layers=tuple(replace(layer, located=None) for layer in self.layers),
                outputs=tuple(replace(output, located=None) for output in self.outputs),
            )
        )
        for judged in (*content["layers"], *content["outputs"]):
            del judged["located"]
        content["versions"], content["machine"] = dict(self.versions), dict(self.machine)
        first = self.first_divergence
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "exit_code": self.exit_code(),
            "first_divergence": None if first is None else {"layer": first.layer, "tensor": first.tensor},
            **content,
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as text."""
        return json_text(self.to_dict())

    def _repr_html_(self) -> str:
        """All layers and outputs in a notebook: a table with verdicts in colour, and what explains each."""
        headings = "".join(f"<th>{heading}</th>" for heading in (*_HEADINGS, "reason"))
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return (
            f"<p>{html.escape(self.summary())}</p>" + (f"<ul>{notes}</ul>" if notes else "") + "<table>"
            f"<thead><tr>{headings}</tr></thead><tbody>{''.join(map(_html_row, self.judged))}</tbody></table>"
        )

    def table(self, all_layers: bool = False) -> str:
        """A table a person can read: differing layers, or all of them, and a summary."""
        shown = [v for v in self.judged if all_layers or v.verdict not in ("certified", "bit_exact")]
        lines = []
        if shown:
            rows = [_HEADINGS, *(_row(verdict) for verdict in shown)]
            widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
            lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
            lines += [f"  {_label(v)}: {v.reason}" for v in shown if v.reason]
            lines.append("")
        lines.append(self.summary())
        lines += [f"note: {note}" for note in self.notes if note not in self.profile_reason]
        return "\n".join(lines)

    def summary(self) -> str:
        """One line: the verdict and the counts behind it, of the layers and of the whole model."""
        reason = f" ({self.profile_reason})" if self.profile_reason else ""
        return (
            f"{self.verdict.upper()}: {self.delegate} against {self.profile}{reason}, {self.mode}, "
            f"{self.samples} input{'s' if self.samples != 1 else ''}: "
            f"{_counted(self.layers) or 'no layer'}; outputs of the whole model: "
            f"{_counted(self.outputs) or 'not compared'}"
        )


_ORDER: tuple[Verdict, ...] = (
    "certified", "bit_exact", "within_bound", "explained", "mismatch", "not_compared",
)  # fmt: skip
_HEADINGS = ("layer", "op", "output", "verdict", "differing", "max LSB", "histogram", "first at", "origin")


def _counted(judged: Sequence[LayerVerdict | OutputVerdict]) -> str:
    """``3 bit_exact, 1 mismatch (2 of 60 values differ)``; '' for none."""
    if not judged:
        return ""
    counts = Counter(found.verdict for found in judged)
    said = ", ".join(f"{counts[v]} {v}" for v in _ORDER if counts[v])
    values = sum(found.diff.elements for found in judged if found.diff is not None)
    wrong = sum(found.diff.mismatch_count for found in judged if found.diff is not None)
    return f"{said} ({wrong} of {values} values differ)"


def _label(verdict: LayerVerdict | OutputVerdict) -> str:
    if isinstance(verdict, OutputVerdict):
        return f"output {verdict.name!r}"
    return f"layer {verdict.layer}"


def _row(verdict: LayerVerdict | OutputVerdict) -> tuple[str, ...]:
    diff = verdict.diff
    name = verdict.name if len(verdict.name) <= 32 else "…" + verdict.name[-31:]
    place, op, origin = "", "(whole model)", ""
    if isinstance(verdict, LayerVerdict):
        place, op, origin = str(verdict.layer), verdict.op, verdict.origin
    if diff is None:
        return (place, op, name, verdict.verdict, "-", "-", "-", "-", origin)
    first = diff.first_divergence
    largest = f"{diff.max_abs_diff:.3g}" if verdict.dtype.startswith("float") else str(diff.max_abs_diff_lsb)
    return (
        place,
        op,
        name,
        verdict.verdict,
        f"{diff.mismatch_count}/{diff.elements}",
        largest,
        histogram_text(diff.histogram),
        "-" if first is None else ",".join(map(str, first.index)),
        origin,
    )


_BACKGROUNDS: Mapping[Verdict, str] = {
    "certified": "#bfe3c4", "bit_exact": "#d5eed8", "within_bound": "#e6f5e8",
    "explained": "#f7e3a8", "mismatch": "#f5b5b0", "not_compared": "#c5dcf5",
}  # fmt: skip
"""Behind black text, so that they can be read in light and dark notebooks."""


def _html_row(verdict: LayerVerdict | OutputVerdict) -> str:
    cells = [f"<td>{html.escape(cell)}</td>" for cell in (*_row(verdict), verdict.reason)]
    colour = _BACKGROUNDS[verdict.verdict]
    cells[3] = f'<td style="background: {colour}; color: black">{verdict.verdict}</td>'
    return f"<tr>{''.join(cells)}</tr>"


def histogram_text(histogram: Mapping[int, int], most: int = 4) -> str:
    """``-1:12 +1:3``: the most common differences, without zero."""
    steps = sorted(((n, d) for d, n in histogram.items() if d != 0), reverse=True)
    shown = " ".join(f"{d:+d}:{n}" for d, n in sorted((d, n) for n, d in steps[:most]))
    return shown + (" …" if len(steps) > most else "") if steps else "-"


def json_text(content: object) -> str:
    """A report, or a list of them, as JSON of RFC 8259, which has no number that is not finite: in its place
    stands the text ``NaN``, ``Infinity`` or ``-Infinity``."""
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON's own types of what a report holds."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value
