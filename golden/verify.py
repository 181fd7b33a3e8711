"""Judging a runtime: run the oracle, run the delegate, compare every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from delegates.protocol import Delegate, DelegateRun, Model
from export.cut import Cut, single_layer
from golden.diff import diff_arrays
from golden.explain import Explainer, tie_distance
from golden.provenance import feeds_digest, machine, model_digest, model_label, written
from golden.record import Record
from golden.report import Mode, Origin, Report
from refimpl.engine import Feeds, Program, Progress, compile_graph
from refimpl.errors import CannotCompare, DelegateError
from refimpl.graph import Array, Graph, Tensor
from refimpl.profiles import METHODS
from refimpl.trace import Trace


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
) -> Report:
    """Compares ``delegate`` with the oracle on every layer, for every sample.

    ``isolated`` feeds each layer, cut out as a model of its own, with the
    oracle's inputs, so that a difference was introduced there. ``cumulative``
    compares one run of the whole ``model``, of which ``graph`` is the reading. Where the runtime turns
    ops between DequantizeLinear and QuantizeLinear into integer ops, its layers are those.
    ``profile`` defaults to the one that describes the delegate.

    Raises CannotCompare when the delegate has no profile and none is given,
    whatever compiling the graph raises, and DelegateError when the runtime
    cannot run at all. A single layer that cannot be compared is a verdict.
    """
    name = profile or delegate.profile
    if not name:
        delegate.versions()  # a runtime that is not here needs no profile first
        why = delegate.fit.reason and f" ({delegate.fit.reason})"
        raise CannotCompare(f"no profile describes {delegate.name}{why}; choose one with --profile")
    if graph.format == "onnx" and getattr(delegate, "fuses_qdq", False):
        from export.onnx import lower_qdq

        graph = lower_qdq(graph)
    program = compile_graph(graph, name, threads)
    probe = delegate.probe()
    comparison = _Isolated(program, delegate) if mode == "isolated" else _Cumulative(program, delegate, model)
    records = [
        _Judged(program, layer.index, position)
        for layer in graph.layers
        for position in range(len(layer.outputs))
    ]
    for feeds in samples:
        expected = program.run(feeds, accumulators=True, progress=progress).trace
        assert expected is not None
        comparison.judge(expected, records)
    return Report(
        model=model_label(model),
        model_sha256=model_digest(model),
        feeds_sha256=feeds_digest(graph, samples),
        delegate=delegate.name,
        profile=program.profile.name,
        mode=mode,
        samples=len(samples),
        layers=tuple(record.verdict() for record in records),
        versions={**comparison.versions, **delegate.versions()},
        machine=machine(),
        notes=(probe.reason,) if probe.reason else (),
        profile_reason="" if profile else "; ".join(filter(None, (delegate.fit.reason, probe.reason))),
    )


UNSPECIFIED = METHODS["unspecified"]


class _Judged(Record):
    """A record of a layer the oracle computes."""

    def __init__(self, program: Program, layer: int, position: int) -> None:
        step = program.steps[layer]
        super().__init__(step.view, position, str(step.rule))
        self.explainer = Explainer(program, layer)
        self.unspecified = step.rule.method == "unspecified"


class _Isolated:
    """Each layer as a model of its own, fed with the oracle's inputs."""

    def __init__(self, program: Program, delegate: Delegate) -> None:
        self._program, self._delegate = program, delegate
        self._cuts = [single_layer(program.graph, layer.index) for layer in program.graph.layers]
        self._models = [written(cut.graph) for cut in self._cuts]
        self.versions: Mapping[str, str] = {}

    def judge(self, expected: Trace, records: Sequence[_Judged]) -> None:
        """Compares every layer on one sample."""
        self.versions = expected.versions
        jobs = [
            (model, _cut_feeds(cut, expected)) for model, cut in zip(self._models, self._cuts, strict=True)
        ]
        answers = list(self._delegate.run_many(jobs))
        for record in records:
            if record.unspecified:
                record.refuse(UNSPECIFIED)
                continue
            answer, cut = answers[record.layer], self._cuts[record.layer]
            if isinstance(answer, DelegateError):
                record.refuse(str(answer))
                continue
            found = dict(zip((cut.tensors[i] for i in cut.graph.outputs), answer.outputs, strict=True))
            self._compare(record, expected, found)

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
        outputs = [found[tensor.index] for tensor in record.view.outputs]
        reason = record.explainer.explain(_inputs(record, expected), outputs)
        accumulator = expected.accumulators.get(record.layer)
        tie = None
        if accumulator is not None:
            tie = tie_distance(record.view, accumulator, expected.tensors[index] != found[index])
        if not reason and self._program.profile.open_ties and tie == 0 and diff.max_abs_diff_lsb == 1:
            reason = "exact ties, which the runtime's choice of kernel decides"
        record.add(diff, reason, "introduced", tie)


def _cut_feeds(cut: Cut, trace: Trace) -> list[Array]:
    """In input order: an ONNX file gives its tensors no indices of their own."""
    return [trace.tensors[cut.tensors[index]] for index in cut.graph.inputs]


def _inputs(record: _Judged, trace: Trace) -> list[Array | None]:
    """The layer's inputs as the trace holds them; constants are the graph's own."""
    return [
        None if tensor is None else tensor.data if tensor.data is not None else trace.tensors[tensor.index]
        for tensor in record.view.inputs
    ]


class _Cumulative:
    """One run of the whole model; differences travel downstream."""

    def __init__(self, program: Program, delegate: Delegate, model: Model) -> None:
        self._program, self._delegate, self._model = program, delegate, model
        self.versions: Mapping[str, str] = {}

    def judge(self, expected: Trace, records: Sequence[_Judged]) -> None:
        """Compares every tensor of one sample."""
        self.versions = expected.versions
        graph = self._program.graph
        run = self._delegate.run(self._model, {i: expected.tensors[i] for i in graph.inputs}, tensors="all")
        for record in records:
            self._compare(record, expected, run)

    def _compare(self, record: _Judged, expected: Trace, run: DelegateRun) -> None:
        index = record.tensor.index
        if record.unspecified:
            record.refuse(UNSPECIFIED)
            return
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
        try:
            record.add(diff, *self._attribute(record, run))
        except CannotCompare as error:
            record.refuse(str(error))

    def _attribute(self, record: _Judged, run: DelegateRun) -> tuple[str, Origin]:
        """Runs the layer on the runtime's own inputs: exact there means inherited."""
        try:
            inputs = [None if t is None else self._value(t, run) for t in record.view.inputs]
            outputs = [run.trace.tensors[tensor.index] for tensor in record.view.outputs]
        except KeyError:
            return "", ""
        own = self._program.run_layer(record.layer, inputs)
        if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(own.outputs, outputs, strict=True)):
            return "inherited: exact on the inputs the runtime had", "inherited"
        return record.explainer.explain(inputs, outputs), "introduced"

    def _value(self, tensor: Tensor, run: DelegateRun) -> Array:
        """What the runtime had there: what it shows, else worked out from what it shows.

        Raises CannotCompare when that takes a layer nobody can reproduce, KeyError when nothing leads
        to the tensor.
        """
        if tensor.data is not None:
            return tensor.data
        if tensor.index in run.trace.tensors or self._program.graph.format != "onnx":
            return run.trace.tensors[tensor.index]
        for step in self._program.steps:
            if tensor in step.view.outputs:
                if step.rule.method == "unspecified":
                    raise CannotCompare(f"follows {step.view}, which is {UNSPECIFIED}")
                inputs = [None if t is None else self._value(t, run) for t in step.view.inputs]
                outputs = self._program.run_layer(step.view.layer.index, inputs).outputs
                return outputs[step.view.outputs.index(tensor)]
        raise KeyError(tensor.index)
