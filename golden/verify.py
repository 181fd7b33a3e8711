"""Judging a runtime: run the oracle, run the delegate, compare every layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from karat24.delegates.protocol import Delegate, DelegateRun, Model
from karat24.export import write_model
from karat24.export.cut import Cut, single_layer
from karat24.export.onnx import remarks_on
from karat24.golden.attribution import Attribution, Search
from karat24.golden.certify.judging import certify_records
from karat24.golden.diff import diff_arrays
from karat24.golden.explain import Explainer, open_ties_reason, tie_distance
from karat24.golden.layer_record import LayerRecord, OutputRecord
from karat24.golden.left_in_float import why_left_in_float
from karat24.golden.provenance import (
    feeds_digest,
    machine,
    model_digest,
    model_label,
)
from karat24.golden.report import Mode, Origin, Report
from karat24.golden.undefined import cleared, has_variables, notes_on
from karat24.golden.whole import WholeModel, WholeRun, reason_to_give, run_whole
from karat24.refimpl.engine import Feeds, Program, Progress, compile_graph
from karat24.refimpl.errors import CannotCompare, DelegateError, ModelError, UsageError
from karat24.refimpl.graph import Array, Graph, Tensor
from karat24.refimpl.profiles import caveat_of, profile_for
from karat24.refimpl.spec.shared.variables import is_variable
from karat24.refimpl.step import Implementation
from karat24.refimpl.trace import Trace


# Options with defaults follow `*`; a user names each of them, so that a record would not be shorter.
def verify(
    model: Model,
    graph: Graph,
    delegate: Delegate,
    samples: Sequence[Feeds],
    *,
    profile: str | None = None,
    mode: Mode = "isolated",
    threads: int | None = None,
    progress: Progress | None = None,
    implementation: Implementation = "cheapest",
    certify: bool = False,
    keep_state: bool = False,
) -> Report:
    """Compares ``delegate`` with the oracle on every layer and every output, for every sample.

    ``graph`` is the reading of ``model``; the layers judged are those the runtime says it runs for it
    (:meth:`Delegate.executed_graph`). ``isolated`` feeds each one, cut out as a model of its own, with the
    oracle's inputs, so that a difference was introduced there. ``cumulative`` compares one run of the whole
    model. In either mode the outputs of the unchanged file are compared with the oracle's. A layer that the
    oracle lacks, or whose bits no document specifies, is not compared; the layers after it are judged on the
    values the runtime had. With ``certify`` each layer that has a finite description is also fed so that
    every step of its arithmetic is met from both sides. ``profile`` defaults to the one that describes the
    delegate. ``implementation`` is how the oracle computes its layers, as in
    :func:`karat24.refimpl.engine.compile_graph`; the report's versions say how many took which way.
    With ``keep_state`` the samples are one sequence: variables keep their values from one to the next, in the
    runtime and in the oracle. Without it each sample starts from the first values.

    Raises CannotCompare when the delegate has no profile and none is given,
    whatever compiling the graph raises, and DelegateError when the runtime
    cannot run at all. A single layer that cannot be compared is a verdict. Raises UsageError where variables
    are to keep their values and there are none, or the runtime cannot.
    """
    name = profile or delegate.profile
    if not name:
        delegate.versions()  # a missing runtime is reported before a missing profile
        why = delegate.fit.reason and f" ({delegate.fit.reason})"
        raise CannotCompare(f"no profile describes {delegate.name}{why}; choose one with --profile")
    if keep_state and not has_variables(graph):
        raise UsageError("the model has no variables, so there is no state to keep; leave out --keep-state")
    onnx = graph.format == "onnx"
    remarks = [remark.text for remark in remarks_on(graph)] if onnx else notes_on(graph, keep_state)
    profile_for(graph, name)  # before a runtime is asked for anything
    executed = delegate.executed_graph(model, graph)
    graph = executed.graph
    program = compile_graph(graph, name, threads, implementation, missing="given", runs=len(samples))
    probe = delegate.probe()
    comparison = _Isolated(program, delegate) if mode == "isolated" else _Cumulative(program, keep_state)
    whole = WholeModel(delegate, model, program)
    records = [
        _Judged(program, layer.index, position)
        for layer in graph.layers
        for position in range(len(layer.outputs))
    ]
    outputs = [OutputRecord(graph.tensors[index]) for index in graph.outputs]
    versions: dict[str, str] = {}
    everything = mode == "cumulative"
    runs: Iterable[WholeRun] = (whole.run(feeds, everything, progress) for feeds in samples)
    if keep_state:
        runs = whole.sequence(samples, everything, progress)
        comparison.follow(runs)
    for run in runs:
        for record in records:
            if record.given:
                run.hold(record.tensor.index, record)
            if record.left_in_float:
                record.refuse(record.left_in_float)
        comparison.judge(run, [record for record in records if not record.given])
        explaining = {name for record in records for name in record.explainer.profiles}
        others = [delegate.profile, *sorted(explaining)]
        known_others = [other for other in others if not caveat_of(other) and not keep_state]
        whole.judge(run, outputs, known_others)
        versions.update(run.trace.versions)
    undescribed: list[str] = []
    if certify:
        defined = [r for r in records if not r.given and not r.left_in_float]
        undescribed = certify_records(program, delegate, defined, threads)
    layers = [record.verdict() for record in records]
    known = () if profile else (delegate.fit.reason, probe.reason)
    return Report(
        model=model_label(model),
        model_sha256=model_digest(model),
        feeds_sha256=feeds_digest(graph, samples),
        delegate=delegate.name,
        profile=program.profile.name,
        mode=mode,
        samples=len(samples),
        layers=tuple(layers),
        versions={**versions, **delegate.versions()},
        machine=machine(),
        outputs=tuple(record.verdict(layers) for record in outputs),
        notes=tuple(filter(None, (probe.reason, executed.note, *remarks, *undescribed))),
        profile_reason="; ".join(filter(None, (*known, program.profile.caveat))),
    )


class _Judged(LayerRecord):
    """A record of a layer of a program; ``given`` says why its outputs are the runtime's, or is ''."""

    def __init__(self, program: Program, layer: int, position: int) -> None:
        step = program.steps[layer]
        super().__init__(step.view, position, str(step.rule))
        self.explainer = Explainer(program, layer)
        self.given = reason_to_give(step)
        self.left_in_float = why_left_in_float(program.graph, step.view)


class _Isolated:
    """Each layer as a model of its own, fed with the oracle's inputs."""

    def __init__(self, program: Program, delegate: Delegate) -> None:
        self._program, self._delegate, self._search = program, delegate, Search(program)
        self._followed: dict[int, Iterator[DelegateRun | DelegateError]] = {}
        self._cuts = {
            step.view.layer.index: self._cut(step.view.layer.index)
            for step in program.steps
            if not reason_to_give(step)
        }

    def _cut(self, layer: int) -> tuple[Cut, bytes] | str:
        """The layer and its file, or why there is none."""
        try:
            cut = single_layer(self._program.graph, layer)
            return cut, write_model(cut.graph)
        except ModelError as error:
            return f"the layer cannot be written as a model of its own: {error}"

    def follow(self, runs: Sequence[WholeRun]) -> None:
        """Runs each layer that keeps a state on all samples, one after the other, before they are judged."""
        for layer, cut in self._cuts.items():
            if not isinstance(cut, str) and has_variables(cut[0].graph):
                self._followed[layer] = iter(self._sequence(cut, runs))

    def _sequence(
        self, cut: tuple[Cut, bytes], runs: Sequence[WholeRun]
    ) -> list[DelegateRun | DelegateError]:
        return [
            run_whole(
                self._delegate,
                cut[1],
                cut[0].graph,
                _cut_feeds(cut[0], run.trace),
                everything=False,
                step=step,
            )
            for step, run in enumerate(runs)
        ]

    def judge(self, whole: WholeRun, records: Sequence[_Judged]) -> None:
        """Compares every layer on one sample."""
        expected = whole.trace
        jobs = {
            layer: (cut[1], _cut_feeds(cut[0], expected))
            for layer, cut in self._cuts.items()
            if not isinstance(cut, str) and layer not in self._followed
        }
        answers = dict(zip(jobs, self._delegate.run_many(list(jobs.values())), strict=True))
        answers |= {layer: next(found) for layer, found in self._followed.items()}
        for record in records:
            cut, answer = self._cuts[record.layer], answers.get(record.layer)
            if isinstance(cut, str) or answer is None:
                record.refuse(str(cut))
                continue
            if isinstance(answer, DelegateError):
                record.refuse(str(answer))
                continue
            tensors = (cut[0].tensors[i] for i in cut[0].graph.outputs)
            outputs = cleared(cut[0].graph, answer).outputs
            self._compare(record, expected, dict(zip(tensors, outputs, strict=True)))

    def _compare(self, record: _Judged, expected: Trace, found: Mapping[int, Array]) -> None:
        index = record.tensor.index
        try:
            diff = diff_arrays(expected.tensors[index], found[index])
        except CannotCompare as error:
            record.refuse(str(error))
            return
        if diff.equal:
            record.add(diff)
            return
        record.locate(expected.tensors[index], found[index], self._program.graph.format)
        outputs = [found[tensor.index] for tensor in record.view.outputs]
        reason = record.explainer.explain(_inputs(record, expected), outputs)
        accumulator = expected.accumulators.get(record.layer)
        tie = None
        if accumulator is not None:
            tie = tie_distance(record.view, accumulator, expected.tensors[index] != found[index])
        reason = reason or open_ties_reason(
            self._program.profile, record.view, accumulator, expected.tensors[index], found[index]
        )
        inputs = _inputs(record, expected)
        cause = None if reason else self._search.attribute(record.layer, inputs, outputs)
        record.add(diff, reason, "introduced", tie, cause)


def _cut_feeds(cut: Cut, trace: Trace) -> list[Array]:
    """The cut's inputs in order, since the tensors of an ONNX file have no indices of their own."""
    return [trace.tensors[cut.tensors[index]] for index in cut.graph.inputs]


def _inputs(record: _Judged, trace: Trace) -> list[Array | None]:
    """The layer's inputs as the trace holds them, states that are kept among them, or the graph does."""
    return [
        None if tensor is None else trace.tensors.get(tensor.index, tensor.data)
        for tensor in record.view.inputs
    ]


class _Cumulative:
    """One run of the whole model; differences travel downstream."""

    def __init__(self, program: Program, keep_state: bool) -> None:
        self._program, self._search, self._keep_state = program, Search(program), keep_state

    def follow(self, runs: Sequence[WholeRun]) -> None:
        """The runs of the whole model are all there is to compare."""

    def judge(self, whole: WholeRun, records: Sequence[_Judged]) -> None:
        """Compares every tensor of one sample."""
        for record in records:
            if isinstance(whole.run, DelegateError):
                record.refuse(str(whole.run))
            elif record.tensor.index in whole.intervals:
                whole.hold(record.tensor.index, record)
            elif record.tensor.index in whole.unknown:
                record.refuse(whole.unknown[record.tensor.index])
            else:
                self._compare(record, whole.trace, whole.run)

    def _compare(self, record: _Judged, expected: Trace, run: DelegateRun) -> None:
        index = record.tensor.index
        if run.capture_changed:
            record.refuse("keeping every tensor changed the runtime's own outputs")
            return
        if index not in run.trace.tensors:
            record.refuse(run.unreadable.get(index, "the runtime does not show this tensor"))
            return
        try:
            diff = diff_arrays(expected.tensors[index], run.trace.tensors[index])
        except CannotCompare as error:
            record.refuse(str(error))
            return
        if diff.equal:
            record.add(diff)
            return
        record.locate(expected.tensors[index], run.trace.tensors[index], self._program.graph.format)
        try:
            record.add(diff, *self._origin(record, run))
        except CannotCompare as error:
            record.refuse(str(error))

    def _origin(
        self, record: _Judged, run: DelegateRun
    ) -> tuple[str, Origin, float | None, Attribution | None]:
        """Runs the layer on the runtime's own inputs: exact there means inherited. What the runtime kept as
        its state is not shown."""
        if self._keep_state and any(
            tensor is not None and is_variable(tensor) for tensor in record.view.inputs
        ):
            return "", "", None, None
        try:
            inputs = [None if t is None else self._value(t, run) for t in record.view.inputs]
            outputs = [run.trace.tensors[tensor.index] for tensor in record.view.outputs]
        except KeyError:
            return "", "", None, None
        own = self._program.run_layer(record.layer, inputs, accumulator=True)
        if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(own.outputs, outputs, strict=True)):
            return "inherited: exact on the inputs the runtime had", "inherited", None, None
        right, wrong, tie = own.outputs[record.position], outputs[record.position], None
        if own.accumulator is not None:
            tie = tie_distance(record.view, own.accumulator, right != wrong)
        reason = record.explainer.explain(inputs, outputs) or open_ties_reason(
            self._program.profile, record.view, own.accumulator, right, wrong
        )
        if reason:
            return reason, "introduced", tie, None
        return "", "introduced", tie, self._search.attribute(record.layer, inputs, outputs)

    def _value(self, tensor: Tensor, run: DelegateRun) -> Array:
        """The runtime's values of a tensor: the ones it shows, or values computed from those.

        Raises CannotCompare when a layer on the way is one that the oracle cannot reproduce, KeyError when no
        layer leads to the tensor.
        """
        if tensor.data is not None:
            return tensor.data
        if tensor.index in run.trace.tensors or self._program.graph.format != "onnx":
            return run.trace.tensors[tensor.index]
        for step in self._program.steps:
            if tensor in step.view.outputs:
                if reason := reason_to_give(step):
                    raise CannotCompare(f"follows {step.view}: {reason}")
                inputs = [None if t is None else self._value(t, run) for t in step.view.inputs]
                outputs = self._program.run_layer(step.view.layer.index, inputs).outputs
                return outputs[step.view.outputs.index(tensor)]
        raise KeyError(tensor.index)
