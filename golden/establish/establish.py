"""Finding a runtime's arithmetic: which rule of a space of rules gives every value that the runtime gives?

For each kind of layer a few models are fed so that the rules of the space differ. The search knows nothing of
profiles; which of them agree with the runtime is found out afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from karat24.delegates.protocol import Delegate
from karat24.export import write_model
from karat24.golden.certify.certify import Trial
from karat24.golden.establish.kinds import KINDS, Kind
from karat24.golden.establish.search import Search, followed
from karat24.golden.establish.trials import trials_of
from karat24.refimpl.errors import DelegateError
from karat24.refimpl.graph import Array, Format
from karat24.refimpl.profiles import PROFILES, Rule, variant_of
from karat24.refimpl.profiles import Established as Stands


@dataclass(frozen=True)
class Finding:
    """What was found for one kind of layer: the rules of the space that give all ``values`` values, and the
    profiles that do.

    There are several rules where no model that was run tells them apart. Where there is none,
    ``counterexample`` shows a value that the nearest rule does not give. ``refused`` is what a runtime says
    that runs no such layer.
    """

    kind: Kind
    variant: str
    rules: tuple[Rule, ...] = ()
    followed: tuple[str, ...] = ()
    values: int = 0
    tried: int = 0
    counterexample: str = ""
    refused: str = ""

    def __str__(self) -> str:
        if self.refused:
            return f"{self.kind}: not run: {self.refused}"
        if not self.rules:
            return f"{self.kind}: not in the space of {self.tried} rules: {self.counterexample}"
        others = f", or {len(self.rules) - 1} others of {self.tried}" if len(self.rules) > 1 else ""
        first = [name for name in self.followed if PROFILES[name].variant_of not in self.followed]
        names = ", ".join(first) or "no known profile"
        return f"{self.kind}: {self.rules[0]}{others} ({self.values} values; as {names})"


@dataclass(frozen=True)
class Established:
    """All findings about one runtime."""

    delegate: str
    format: Format
    versions: Mapping[str, str]
    findings: tuple[Finding, ...]

    def nearest(self) -> tuple[str, int]:
        """The known profile that agrees with most kinds of layers, and with how many."""
        names = [profile.name for profile in PROFILES.values() if profile.format == self.format]
        counts = {name: sum(name in finding.followed for finding in self.findings) for name in names}
        best = max(counts, key=lambda name: counts[name])
        return best, counts[best]

    def departures(self) -> tuple[Finding, ...]:
        """Kinds that run and do not follow the nearest profile."""
        base, _ = self.nearest()
        return tuple(f for f in self.findings if not f.refused and base not in f.followed)

    @property
    def complete(self) -> bool:
        """Every kind that runs has a rule."""
        return all(finding.rules or finding.refused for finding in self.findings)

    def profile(self, name: str) -> dict[str, Any]:
        """A profile in the form of ``karat24.refimpl.profiles.file``: the nearest one, and what departs."""
        rules: dict[str, dict[str, Any]] = {}
        for finding in self.departures():
            rule = finding.rules[0] if finding.rules else Rule("unspecified")
            rules.setdefault(finding.kind.op, {})[finding.variant] = _words(rule)
        return {
            "name": name, "base": self.nearest()[0], "established": asdict(self.established), "rules": rules,
        }  # fmt: skip

    @property
    def established(self) -> Stands:
        """The runtime's package and version, and the processor."""
        package, version = next(iter(self.versions.items()))
        machine, cpu = (self.versions.get(key, "") for key in ("machine", "cpu"))
        return Stands(package, (version,), (" ".join(filter(None, (machine, cpu))) or "unknown",))

    def report(self) -> dict[str, Any]:
        """Everything that was found, for JSON."""
        base, agreeing = self.nearest()
        return {
            "delegate": self.delegate,
            "versions": dict(self.versions),
            "nearest": base,
            "agreeing": agreeing,
            "departing": [str(finding.kind) for finding in self.departures()],
            "kinds": {str(finding.kind): _described(finding) for finding in self.findings},
        }


def _words(rule: Rule) -> dict[str, Any]:
    """A rule's fields but for those that have their default."""
    defaults = {field.name: field.default for field in fields(Rule)}
    return {name: value for name, value in asdict(rule).items() if value != defaults[name]}


def _described(finding: Finding) -> dict[str, Any]:
    if finding.refused:
        return {"refused": finding.refused}
    found: dict[str, Any] = {"values": finding.values, "tried": finding.tried}
    if not finding.rules:
        return {**found, "not in the space": finding.counterexample}
    return {
        **found, "rule": str(finding.rules[0]), "not told apart": len(finding.rules) - 1,
        "as": list(finding.followed),
    }  # fmt: skip


def establish(delegate: Delegate, kinds: Sequence[Kind] | None = None) -> Established:
    """Finds the rule of each kind of layer that the runtime's format has, or of ``kinds``.

    Raises DelegateUnavailable where there is no runtime.
    """
    versions = delegate.versions()
    chosen = KINDS[delegate.format] if kinds is None else kinds
    findings = tuple(_finding(delegate, kind) for kind in chosen)
    return Established(delegate.name, delegate.format, versions, findings)


def _finding(delegate: Delegate, kind: Kind) -> Finding:
    trials = trials_of(kind)
    variant = variant_of(trials[0].graph.view(0), kind.format)
    jobs = [(write_model(trial.graph), list(trial.feeds)) for trial in trials]
    search = Search.over(kind.space.rules())
    answers: list[tuple[Trial, Sequence[Array]]] = []
    refused = ""
    for trial, answer in zip(trials, delegate.run_many(jobs), strict=True):
        if isinstance(answer, DelegateError):
            refused = refused or str(answer).splitlines()[0]
            continue
        search.add(trial, answer.outputs)
        answers.append((trial, answer.outputs))
    if refused:
        return Finding(kind, variant, refused=refused)
    known = [profile for profile in PROFILES.values() if profile.format == kind.format]
    names = tuple(profile.name for profile in followed(known, answers))
    rules = search.fitting
    counterexample = "" if rules else search.counterexample
    return Finding(kind, variant, rules, names, search.values, len(search.wrong), counterexample)
