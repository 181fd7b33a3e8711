"""Gathering the comparisons of one tensor over all samples into a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field

from karat24.golden.attribution.result import Attribution
from karat24.golden.certify.certificate import Certificate
from karat24.golden.diff import ArrayDiff, diff_arrays, merge
from karat24.golden.located import Located, locate
from karat24.golden.report import LayerVerdict, Origin, OutputVerdict, Verdict
from karat24.refimpl.bounds.interval import Interval, Use
from karat24.refimpl.graph import Array, Format, LayerView, Tensor


@dataclass(kw_only=True)
class Gathered:
    """Comparisons of one tensor, sample after sample."""

    diff: ArrayDiff | None = None
    refused: str = ""
    unexplained: bool = False
    reasons: list[str] = field(default_factory=list)
    origins: set[Origin] = field(default_factory=set)
    tie: float | None = None
    bound: Use | None = None
    disagreed: bool = False
    located: Located | None = None
    attribution: Attribution | None = None

    def refuse(self, reason: str) -> None:
        """Counts a sample that could not be compared, with the reason."""
        self.refused = self.refused or reason

    def add(
        self,
        diff: ArrayDiff,
        reason: str = "",
        origin: Origin = "",
        tie: float | None = None,
        attribution: Attribution | None = None,
    ) -> None:
        """Adds one comparison; ``reason`` explains its differences. With '' they are unexplained, whatever
        cause ``attribution`` names."""
        self.diff = diff if self.diff is None else merge(self.diff, diff)
        if diff.equal:
            return
        self.unexplained |= not reason
        if reason and reason not in self.reasons:
            self.reasons.append(reason)
        if origin:
            self.origins.add(origin)
        if tie is not None:
            self.tie = max(tie, self.tie or 0.0)
        if attribution is not None:
            own = self.attribution
            self.attribution = attribution if own is None else own.merged(attribution)

    def locate(self, expected: Array, found: Array, format: Format) -> None:
        """Keeps the places of differing values of the first comparison that differs."""
        if self.located is None:
            self.located = locate(expected, found, format)

    def disagree(self, reason: str, explained: bool) -> None:
        """Adds a difference of another tensor that also counts for this one."""
        self.disagreed = True
        self.unexplained |= not explained
        if reason not in self.reasons:
            self.reasons.append(reason)

    def add_bounded(self, interval: Interval, found: Array, origin: Origin = "") -> None:
        """Adds one comparison with an interval; a value outside differs, and nothing explains it.

        Raises CannotCompare for another shape or element type.
        """
        use = interval.use(found)
        if found.dtype.kind == "f" or not interval.is_exact:  # fixed integers are compared for equality
            self.bound = use if self.bound is None else self.bound.merged(use)
        self.add(diff_arrays(interval.nearest(found), found), "", origin)

    def worst(self) -> tuple[Verdict, str]:
        """The verdict that the worst sample decides, and its reason."""
        if self.disagreed or (self.diff is not None and not self.diff.equal):
            cause = [] if self.attribution is None else [str(self.attribution)]
            return ("mismatch" if self.unexplained else "explained"), "; ".join([*self.reasons, *cause])
        if self.refused or self.diff is None:
            found = "" if self.bound is None else f" ({self.bound})"
            return "not_compared", (self.refused or "no sample was run") + found
        if self.bound is not None:
            return "within_bound", str(self.bound)
        return "bit_exact", "; ".join(self.reasons)


@dataclass
class LayerRecord(Gathered):
    """Comparisons of output ``position`` of a layer; ``rule`` names the profile and its rule, for the report.

    ``certificate`` is None where certifying the layer was not tried.
    """

    view: LayerView
    position: int
    rule: str
    certificate: Certificate | None = field(default=None, kw_only=True)

    @property
    def layer(self) -> int:
        """The layer's index."""
        return self.view.layer.index

    @property
    def tensor(self) -> Tensor:
        """The output compared."""
        return self.view.outputs[self.position]

    def verdict(self) -> LayerVerdict:
        """The verdict, which the worst comparison decides."""
        verdict, reason = self.worst()
        if verdict == "bit_exact" and self.certificate is not None and self.certificate.certified:
            verdict = "certified"
        origin: Origin = "introduced" if "introduced" in self.origins else ""
        if self.origins == {"inherited"}:
            origin = "inherited"
        return LayerVerdict(
            layer=self.layer,
            op=self.view.op,
            tensor=self.tensor.index,
            name=self.tensor.name,
            dtype=self.tensor.dtype,
            rule=self.rule,
            verdict=verdict,
            diff=self.diff,
            reason=reason,
            origin=origin,
            tie_distance=self.tie,
            bound=self.bound,
            located=self.located,
            attribution=self.attribution,
            certificate=self.certificate,
        )


NOT_WHAT_RAN = (
    "no layer shown differs and yet this output does: the layers shown are not what the runtime ran"
)


@dataclass
class OutputRecord(Gathered):
    """Comparisons of one output of the whole model."""

    tensor: Tensor

    def verdict(self, layers: list[LayerVerdict]) -> OutputVerdict:
        """The verdict, which the worst comparison decides; ``layers`` are the verdicts of the layers."""
        verdict, reason = self.worst()
        if verdict == "mismatch" and not any(layer.differs for layer in layers):
            reason = "; ".join(filter(None, (NOT_WHAT_RAN, reason)))
        return OutputVerdict(
            tensor=self.tensor.index,
            name=self.tensor.name,
            dtype=self.tensor.dtype,
            verdict=verdict,
            diff=self.diff,
            reason=reason,
            bound=self.bound,
            located=self.located,
        )
