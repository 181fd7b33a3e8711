"""Certifying layers: the models that meet every case are made, run on a runtime and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from karat24.delegates.protocol import Delegate
from karat24.export import write_model
from karat24.golden.certify.accumulating import PlacedLayer, placed_layers
from karat24.golden.certify.certificate import Certificate, How
from karat24.golden.certify.coverage import StaircaseCoverage, TableCoverage
from karat24.golden.certify.tables import operands_of, table_model
from karat24.golden.diff import ArrayDiff, diff_arrays, merge
from karat24.refimpl.contract import Values
from karat24.refimpl.errors import CannotCompare, DelegateError, KaratError, ModelError
from karat24.refimpl.graph import Array, Graph, LayerView
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Profile, Rule
from karat24.refimpl.staircase import reach, requantization, table
from karat24.refimpl.staircase.regions import regions
from karat24.refimpl.staircase.requantization import ACCUMULATING


@dataclass(frozen=True, eq=False)
class Trial:
    """A model of one layer, or of copies of one, and what it is fed, in input order."""

    graph: Graph
    feeds: tuple[Array, ...]

    def values(self) -> Iterator[tuple[LayerView, Values]]:
        """Each copy with an array for each of its inputs."""
        fed = dict(zip(self.graph.inputs, self.feeds, strict=True))
        for view in self.graph.views():
            yield view, [None if t is None else fed.get(t.index, t.data) for t in view.inputs]


@dataclass(eq=False)
class Certification:
    """A layer that is to be certified: ``how``, the ``trials`` that do it, and what they met so far.

    ``reason`` says why there are none.
    """

    view: LayerView
    profile: Profile
    rule: Rule
    how: How = ""
    trials: Sequence[Trial] = ()
    coverage: StaircaseCoverage | TableCoverage | None = None
    reason: str = ""
    diff: ArrayDiff | None = None
    refused: str = ""
    explanation: str = ""
    _answers: list[tuple[Trial, Sequence[Array]]] = field(default_factory=list)

    def run(self, delegate: Delegate, threads: int | None = None) -> Certificate:
        """Runs the trials; afterwards ``diff`` holds all comparisons and ``refused`` the first error."""
        jobs = ((write_model(trial.graph), list(trial.feeds)) for trial in self.trials)
        for trial, answer in zip(self.trials, delegate.run_many(jobs, threads=threads), strict=True):
            if isinstance(answer, DelegateError):
                self.refused = self.refused or f"a model that certifies it did not run: {answer}"
                continue
            self._compare(trial, answer.outputs)
        if self.diff is not None and not self.diff.equal:
            self.explanation = self._explanation()
        return self.certificate()

    def certificate(self) -> Certificate:
        """What is known so far."""
        if self.coverage is None:
            return Certificate(self.how, reason=self.reason)
        wanted, met = self.coverage.counts()
        wrong = 0 if self.diff is None else self.diff.mismatch_count
        return Certificate(self.how, wanted, met, len(self.trials), wrong, self.coverage.missing())

    def _compare(self, trial: Trial, outputs: Sequence[Array]) -> None:
        assert self.coverage is not None
        for (view, values), found in zip(trial.values(), outputs, strict=True):
            expected = OPS[view.op].spec(view, values, self.rule)
            try:
                diff = diff_arrays(expected.outputs[0], found)
            except CannotCompare as error:
                self.refused = self.refused or str(error)
                return
            self.diff = diff if self.diff is None else merge(self.diff, diff)
            if isinstance(self.coverage, StaircaseCoverage):
                assert expected.accumulator is not None
                self.coverage.add(view, expected.accumulator)
            else:
                fed = [values[position] for position in operands_of(view)]
                self.coverage.add(view, [value for value in fed if value is not None])
        self._answers.append((trial, outputs))

    def _explanation(self) -> str:
        """The profile and rule that give every value found, or ''."""
        for profile in PROFILES.values():
            if profile.format != self.profile.format or profile.caveat:
                continue
            try:
                rule = profile.rule(self.view)
            except KaratError:
                continue
            if rule not in (self.rule,) and rule.method != "unspecified" and self._follows(rule):
                return f"every value equals {profile.name}: {rule}"
        return ""

    def _follows(self, rule: Rule) -> bool:
        """Whether the runtime gave what ``rule`` gives, everywhere."""
        return all(
            np.array_equal(OPS[view.op].spec(view, values, rule).outputs[0], found)
            for trial, outputs in self._answers
            for (view, values), found in zip(trial.values(), outputs, strict=True)
        )


def certification(graph: Graph, layer: int, profile: Profile) -> Certification:
    """The trials that certify one layer of ``graph`` under ``profile``, which must have a rule for it."""
    view = graph.view(layer)
    found = Certification(view, profile, profile.rule(view))
    try:
        if not (_by_staircase(found, graph) or _by_table(found, graph)):
            found.reason = "no finite description: neither a staircase nor a table of one or two bytes"
        else:
            _require_same_rule(found)
    except (CannotCompare, ModelError) as error:
        found.coverage, found.trials, found.reason = None, (), str(error)
    return found


def _by_staircase(found: Certification, graph: Graph) -> bool:
    rounding = requantization(found.view, found.rule)
    if rounding is None:
        return False
    found.how = "staircase"
    within = reach(found.view)
    if within is None:
        raise CannotCompare("the graph computes the filter or the bias, so no accumulator is bounded")
    coverage = StaircaseCoverage(found.view, found.rule, rounding, within)
    found.coverage = coverage
    placed = _placed(found, graph, coverage.thresholds)
    behind_blocks = found.rule.block_axis == "flat" and coverage.has_tail
    found.trials = [
        trial
        for model in placed
        for trial in (_turned(model, found.view, found.rule) if behind_blocks else [_trial(model)])
    ]
    return True


def _placed(found: Certification, graph: Graph, thresholds: list[Array]) -> Iterator[PlacedLayer]:
    """The models, with a bias even where the layer has none, if the runtime rounds it alike then."""
    view = found.view
    has_bias = view.optional_input(ACCUMULATING[view.op].bias) is not None
    with_bias = has_bias
    if not has_bias and view.op != "QLinearMatMul":
        first = next(placed_layers(graph, view.layer.index, thresholds, with_bias=True))
        with_bias = found.profile.rule(first.graph.view(0)) == found.rule
    return placed_layers(graph, view.layer.index, thresholds, with_bias)


def _trial(model: PlacedLayer) -> Trial:
    return Trial(model.graph, (model.feed,))


def _turned(model: PlacedLayer, view: LayerView, rule: Rule) -> Iterator[Trial]:
    """The model with each window in turn as the last, where the elements behind the last block lie."""
    output = model.graph.view(0).output()
    rest, each = math.prod(view.output().shape) % rule.block, math.prod(output.shape[1:])
    windows = len(model.feed)
    more = next((n for n in range(rule.block) if (windows + n) * each % rule.block == rest), 0)
    feed = np.concatenate([model.feed, np.repeat(model.feed[-1:], more, axis=0)])
    graph = _with_batch(model.graph, len(feed))
    for turn in range(more, len(feed)):  # those added repeat a window
        yield Trial(graph, (np.roll(feed, turn, axis=0),))


def _with_batch(graph: Graph, batch: int) -> Graph:
    """The graph of one TRANSPOSE_CONV for another number of windows."""
    view = graph.view(0)
    tensors = list(graph.tensors)
    for tensor in (view.input(2), view.output()):
        tensors[tensor.index] = replace(tensor, shape=(batch, *tensor.shape[1:]))
    shape = view.input(0)
    tensors[shape.index] = replace(shape, data=np.array([batch, *view.output().shape[1:]], np.int32))
    return replace(graph, tensors=tuple(tensors))


def _by_table(found: Certification, graph: Graph) -> bool:
    if found.rule.method in ("unspecified", "given"):
        return False
    (first, *_) = regions(found.view, [found.rule])
    if table(found.view, found.rule, first.methods[0]) is None:
        return False
    coverage = TableCoverage(found.view, found.rule)
    found.how = "pairs" if len(operands_of(found.view)) > 1 else "table"
    found.coverage = coverage
    layer = found.view.layer.index
    models = []
    if found.rule.method in coverage.methods:
        models.append(table_model(graph, layer))
    if found.rule.tail in coverage.methods:
        models.append(table_model(graph, layer, found.rule.block - 1))
    found.trials = [Trial(model.graph, model.feeds) for model in models]
    return True


def _require_same_rule(found: Certification) -> None:
    """Raises CannotCompare where a trial is a layer of another kind, which the runtime rounds otherwise."""
    for graph in {id(trial.graph): trial.graph for trial in found.trials}.values():
        view = graph.view(0)
        OPS[view.op].check(view)
        rule = found.profile.rule(view)
        if rule != found.rule:
            raise CannotCompare(f"a model that meets its cases is rounded otherwise: {rule}")
