"""Which rules of a space give every value that a runtime gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from karat24.golden.certify.certify import Trial
from karat24.refimpl.contract import Values
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import Profile, Rule
from karat24.refimpl.profiles.tflite.broadcast import inner_loop
from karat24.refimpl.spec.shared.primitives import body_mask


@dataclass(eq=False)
class Search:
    """Rules, each with how many values it got wrong so far, and where first.

    A rule of blocks is judged by what its two methods give for the whole: each plain rule is computed once.
    """

    wrong: dict[Rule, int]
    examples: dict[Rule, str] = field(default_factory=dict)
    values: int = 0

    @classmethod
    def over(cls, rules: Iterable[Rule]) -> Search:
        """A search that has seen nothing yet."""
        return cls(dict.fromkeys(rules, 0))

    def add(self, trial: Trial, outputs: Sequence[Array]) -> None:
        """Counts what a runtime made of one trial."""
        for (view, given), found in zip(trial.values(), outputs, strict=True):
            self.values += found.size
            expected: dict[Rule, Array | None] = {}
            masks: dict[tuple[int, str], Array] = {}
            for rule in self.wrong:
                body = _outputs(expected, view, given, _plain(rule, rule.method))
                if body is not None and rule.tail is not None:
                    tail = _outputs(expected, view, given, _plain(rule, rule.tail))
                    key = rule.block, rule.block_axis
                    if key not in masks:
                        masks[key] = body_mask(found.shape, rule, _run(view))
                    body = None if tail is None else np.where(masks[key], body, tail)
                self._count(rule, body, found)

    def _count(self, rule: Rule, expected: Array | None, found: Array) -> None:
        if expected is None or expected.shape != found.shape:
            self.wrong[rule] += found.size
            return
        differing = _unequal(expected, found)
        count = int(differing.sum())
        if count and rule not in self.examples:
            place = tuple(int(i) for i in np.argwhere(differing)[0])
            self.examples[rule] = f"{found[place]} where it gives {expected[place]}, at {list(place)}"
        self.wrong[rule] += count

    @property
    def fitting(self) -> tuple[Rule, ...]:
        """The rules that give every value, in the order of the space: without blocks first."""
        return tuple(rule for rule, wrong in self.wrong.items() if wrong == 0)

    @property
    def counterexample(self) -> str:
        """Where no rule fits: how far the nearest is, and a value it does not give."""
        nearest = min(self.wrong, key=lambda rule: self.wrong[rule])
        example = self.examples.get(nearest, "it is not defined here")
        return f"{self.wrong[nearest]} of {self.values} values, nearest {nearest}: {example}"


@cache
def _plain(rule: Rule, method: str) -> Rule:
    return replace(rule, method=method, tail=None, block=0, block_axis="none")  # type: ignore[arg-type]


def _run(view: LayerView) -> int | None:
    return inner_loop(view).run if view.op in ("ADD", "SUB", "MUL") else None


def _outputs(known: dict[Rule, Array | None], view: LayerView, given: Values, rule: Rule) -> Array | None:
    """What a rule gives, None where the spec does not define it."""
    if rule not in known:
        try:
            known[rule] = OPS[view.op].spec(view, given, rule).outputs[0]
        except KaratError:
            known[rule] = None
    return known[rule]


def _unequal(expected: Array, found: Array) -> Array:
    """Elements whose bits differ; all NaNs count as equal."""
    if found.dtype.kind != "f":
        return np.asarray(expected != found)
    either = np.isnan(expected) & np.isnan(found)
    return np.asarray((expected.view(np.uint32) != found.view(np.uint32)) & ~either)


def followed(
    profiles: Iterable[Profile], answers: Sequence[tuple[Trial, Sequence[Array]]]
) -> Iterator[Profile]:
    """The profiles whose own rules give every value of the answers."""
    copies = [
        (view, given, found)
        for trial, outputs in answers
        for (view, given), found in zip(trial.values(), outputs, strict=True)
    ]
    agreeing: dict[tuple[Rule, ...], bool] = {}
    for profile in profiles:
        try:
            rules = tuple(profile.rule(view) for view, _, _ in copies)
        except KaratError:
            continue
        if any(rule.method in ("unspecified", "given") for rule in rules):
            continue
        if rules not in agreeing:
            agreeing[rules] = all(
                _gives(view, given, rule, found)
                for (view, given, found), rule in zip(copies, rules, strict=True)
            )
        if agreeing[rules]:
            yield profile


def _gives(view: LayerView, given: Values, rule: Rule, found: Array) -> bool:
    try:
        expected = OPS[view.op].spec(view, given, rule).outputs[0]
    except KaratError:
        return False
    return expected.shape == found.shape and not _unequal(expected, found).any()
