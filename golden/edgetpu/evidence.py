"""What has been found out about one layer so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from karat24.golden.edgetpu.finding import Finding, LayerProof, Verdict
from karat24.golden.edgetpu.placing import Place
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import LayerView

T = TypeVar("T")

MAX_FINDINGS = 20
"""Differences kept per layer; all are counted."""


class Evidence:
    """Collects what is proved of a layer, what differs and what cannot be compared."""

    def __init__(self, view: LayerView) -> None:
        self.view = view
        self.on_cpu = False
        self.may_hold_more = False
        """Whether bytes that no layer explains may be its: how its op keeps parameters is not known."""
        self.proved: Counter[str] = Counter()
        self.places: list[Place] = []
        self.stages: list[int] = []
        self.reasons: list[str] = []
        self._findings: list[Finding] = []
        self._finding_count = 0

    def differs(self, findings: Iterable[Finding]) -> None:
        """Adds differences."""
        for finding in findings:
            self._finding_count += 1
            if len(self._findings) < MAX_FINDINGS:
                self._findings.append(finding)

    def cannot(self, reason: str) -> None:
        """Adds a reason why something could not be compared."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def attempt(self, work: Callable[[], T]) -> T | None:
        """What ``work`` gives; None, and a reason, where the layer lacks what it needs."""
        try:
            return work()
        except ModelError as error:
            self.cannot(str(error))
            return None

    def conclude(self) -> LayerProof:
        """The verdict: one difference outweighs everything, and what could not be compared is not proved."""
        verdict: Verdict = "proved"
        if self._finding_count:
            verdict = "differs"
        elif self.on_cpu:
            verdict = "on_cpu"
        elif self.reasons:
            verdict = "not_provable"
        return LayerProof(
            self.view.layer.index,
            self.view.op,
            self.view.outputs[0].name if self.view.outputs else "",
            verdict,
            self.proved,
            tuple(self._findings),
            self._finding_count,
            tuple(self.reasons),
            tuple(self.places),
            tuple(self.stages),
        )
