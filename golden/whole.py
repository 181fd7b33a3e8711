"""One run of an unchanged model file, and the oracle's run of the same layers beside it.

Layers whose bits no document specifies, and those the oracle lacks, take the values the runtime had, so that
whatever lies behind them can be compared for equality.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from karat24.delegates.protocol import Delegate, DelegateRun, Model
from karat24.golden.diff import diff_arrays
from karat24.golden.explain_whole import WholeExplainer
from karat24.golden.layer_record import Gathered, OutputRecord
from karat24.golden.undefined import cleared, unchanged
from karat24.refimpl.bounds import Interval, bounds_for
from karat24.refimpl.bounds.chain import interval_of
from karat24.refimpl.engine import Feeds, Program, Progress
from karat24.refimpl.errors import (
    CannotCompare,
    DelegateError,
    DelegateUnavailable,
    ModelError,
    UnsupportedOp,
)
from karat24.refimpl.graph import DTYPES, Array, Graph
from karat24.refimpl.profiles import METHODS
from karat24.refimpl.step import Step
from karat24.refimpl.trace import Trace

UNSPECIFIED = METHODS["unspecified"]


def reason_to_give(step: Step) -> str:
    """Why a layer takes the runtime's values: the oracle lacks it, or no document fixes its bits; else ''."""
    if step.missing:
        return step.missing
    return UNSPECIFIED if step.rule.method == "unspecified" else ""


def run_whole(
    delegate: Delegate, model: Model, graph: Graph, feeds: Feeds, everything: bool
) -> DelegateRun | DelegateError:
    """One run of a file whose layers are those of ``graph``; its outputs are those of a run that no inner
    tensor was read from.

    A file the runtime does not run is an answer; raises DelegateUnavailable, FeedError, UsageError.
    """
    try:
        run = cleared(graph, delegate.run(model, feeds, tensors="all" if everything else "outputs"))
        if run.capture_changed:
            undisturbed = cleared(graph, delegate.run(model, feeds, tensors="outputs")).outputs
            run = unchanged(run, undisturbed) or replace(run, outputs=undisturbed)
    except DelegateUnavailable:
        raise
    except DelegateError as error:
        return error
    except UnsupportedOp as error:  # the oracle as a runtime
        return DelegateError(f"{delegate.name}: {error}")
    return run


@dataclass(frozen=True)
class WholeRun:
    """A runtime's run of a file, and what the oracle has for the same feeds.

    ``run`` is the error where the runtime did not run the file. ``trace`` is the oracle's, ``given``
    the tensors in it that are the runtime's own values. ``unknown`` maps tensors that follow from a
    value that could not be read to the reason: the oracle's values there are no prediction of the runtime's.
    ``shown`` is what the runtime shows; ``intervals`` maps the tensors it gave, and those it shows behind
    a hidden one, to what any order of float32 operations can give there, or to the reason why that is not
    known.
    """

    run: DelegateRun | DelegateError
    trace: Trace
    given: Mapping[int, Array]
    unknown: Mapping[int, str]
    shown: Mapping[int, Array]
    intervals: Mapping[int, Interval | str]

    def hold(self, tensor: int, record: Gathered) -> None:
        """Compares the runtime's own values of a tensor with what may be there."""
        interval = self.intervals[tensor]
        if isinstance(interval, str):
            record.refuse(interval)
            return
        try:
            record.add_bounded(interval, self.shown[tensor])
        except CannotCompare as error:
            record.refuse(str(error))

    @property
    def settled(self) -> dict[int, Array]:
        """The oracle's values of the tensors that follow from no hidden one."""
        return {index: values for index, values in self.trace.tensors.items() if index not in self.unknown}

    @property
    def outputs(self) -> tuple[Array, ...] | str:
        """The runtime's outputs, or why there are none."""
        return str(self.run) if isinstance(self.run, DelegateError) else self.run.outputs


@dataclass(frozen=True)
class _Read:
    """What a layer read that goes on with the runtime's values: equal, not to be compared, or differing."""

    refused: str = ""
    differing: str = ""
    explained: str = ""

    def count_for(self, record: OutputRecord) -> None:
        """Adds what was read to the record of an output behind that layer."""
        if self.refused:
            record.refuse(self.refused)
        elif self.differing:
            record.disagree(self.explained or self.differing, explained=bool(self.explained))


class WholeModel:
    """A file, the runtime it is run on and the program of the layers that runtime runs for it."""

    def __init__(self, delegate: Delegate, model: Model, program: Program) -> None:
        self._delegate, self._model, self._program = delegate, model, program
        self._given = {
            tensor.index: step
            for step in program.steps
            if reason_to_give(step)
            for tensor in step.view.outputs
        }

    @property
    def needs_values(self) -> bool:
        """True where layers go on with values the runtime must show."""
        return bool(self._given)

    def run(self, feeds: Feeds, everything: bool = False, progress: Progress | None = None) -> WholeRun:
        """Runs the file, reading inner tensors where ``everything`` is asked for or one must be given."""
        everything = everything or self.needs_values
        run = run_whole(self._delegate, self._model, self._program.graph, feeds, everything)
        return self.beside(run, feeds, progress)

    def beside(
        self, run: DelegateRun | DelegateError, feeds: Feeds, progress: Progress | None = None
    ) -> WholeRun:
        """The oracle's run beside one of the runtime's."""
        given, absent = self._values_given(run)
        result = self._program.run(feeds, accumulators=True, progress=progress, given=given)
        assert result.trace is not None
        unknown = self._behind(absent)
        shown = {} if isinstance(run, DelegateError) or run.capture_changed else run.trace.tensors
        values = {**{i: v for i, v in result.trace.tensors.items() if i not in unknown}, **shown}
        intervals = {
            index: interval_of_step(step, index, values, unknown.get(index, ""))
            for index, step in self._given.items()
        }
        for index in unknown.keys() & shown.keys() - self._given.keys():
            intervals[index] = self._interval_behind(index, values, unknown[index])
        return WholeRun(run, result.trace, given, unknown, shown, intervals)

    def _interval_behind(self, index: int, values: Mapping[int, Array], hidden: str) -> Interval | str:
        """What a tensor behind a hidden one may hold, or why that is not known."""
        try:
            return interval_of(self._program, index, {i: v for i, v in values.items() if i != index})
        except CannotCompare as error:
            return f"{hidden}; {error}"

    def _values_given(self, run: DelegateRun | DelegateError) -> tuple[dict[int, Array], dict[int, str]]:
        """What to go on with behind the layers that are given, and of which tensors it is not true.

        A layer the oracle lacks needs some value even where the runtime shows none, so that layers
        behind it can be fed; zeros are as good as any for that.
        """
        given, absent = {}, {}
        for index, step in self._given.items():
            tensor = self._program.graph.tensors[index]
            why = _why_unreadable(run, index)
            value = None if why or isinstance(run, DelegateError) else run.trace.tensors[index]
            if value is not None and not tensor.is_opaque:
                if (value.dtype, value.shape) == (DTYPES[tensor.dtype], tensor.shape):
                    given[index] = value
                    continue
                why = f"the runtime writes {value.dtype} {value.shape} there"
            absent[index] = f"follows {step.view}, whose values in the runtime's run are not known: {why}"
            if step.missing:
                given[index] = np.zeros(tensor.shape, DTYPES.get(tensor.dtype, np.uint8))
        return given, absent

    def _behind(self, absent: Mapping[int, str]) -> dict[int, str]:
        """Everything that follows from a tensor whose values are not known."""
        unknown = dict(absent)
        for layer in self._program.graph.layers:
            found = next((unknown[index] for index in layer.inputs if index in unknown), "")
            for index in layer.outputs if found else ():
                if index not in self._given:
                    unknown[index] = found
        return unknown

    def judge(self, whole: WholeRun, records: Iterable[OutputRecord], others: Iterable[str]) -> None:
        """Compares each output of the run; ``others`` name profiles that may explain a difference.

        An output behind a layer that takes the runtime's values says nothing of the layers before that one.
        So what such layers read is compared like an output, and counts for every output behind it.
        """
        found = whole.outputs
        if isinstance(found, str):
            for record in records:
                record.refuse(found)
            return
        explainer = WholeExplainer(
            self._program,
            {index: whole.trace.tensors[index] for index in self._program.graph.inputs},
            whole.given,
            whole.shown,
            others,
        )
        read = {index for before in self._read_before.values() for index in before}
        found_before = {index: self._what_was_read(whole, index, explainer) for index in sorted(read)}
        for value, record in zip(found, records, strict=True):
            for index in self._read_before[record.tensor.index]:
                found_before[index].count_for(record)
            self._compare(whole, record, value, explainer)

    def _what_was_read(self, whole: WholeRun, index: int, explainer: WholeExplainer) -> _Read:
        """Compares what a layer reads that goes on with the runtime's values."""
        label = self._program.graph.label(index)
        if index in whole.unknown:
            return _Read(refused=whole.unknown[index])
        if index not in whole.shown:
            return _Read(refused=f"{label} cannot be compared: {_why_unreadable(whole.run, index)}")
        try:
            diff = diff_arrays(whole.trace.tensors[index], whole.shown[index])
        except CannotCompare as error:
            return _Read(refused=f"{label}: {error}")
        if diff.equal:
            return _Read()
        differing = f"{diff.mismatch_count} of {diff.elements} values of {label} differ in the whole run"
        return _Read(differing=differing, explained=explainer.explain(index, whole.shown[index]))

    def _compare(
        self, whole: WholeRun, record: OutputRecord, value: Array, explainer: WholeExplainer
    ) -> None:
        index = record.tensor.index
        if index in self._given:
            whole.hold(index, record)
            return
        try:
            if index in whole.unknown:  # what the runtime shows behind a hidden tensor proves nothing of it
                interval = self._interval_behind(index, whole.settled, whole.unknown[index])
                if isinstance(interval, str):
                    record.refuse(interval)
                else:
                    record.add_bounded(interval, value)
                return
            diff = diff_arrays(whole.trace.tensors[index], value)
        except CannotCompare as error:
            record.refuse(str(error))
            return
        if not diff.equal:
            record.locate(whole.trace.tensors[index], value, self._program.graph.format)
        record.add(diff, "" if diff.equal else explainer.explain(index, value))

    @cached_property
    def _read_before(self) -> dict[int, tuple[int, ...]]:
        """By output, what the layers before it read whose own outputs are the runtime's values."""
        graph = self._program.graph
        before: dict[int, dict[int, None]] = {}
        for layer in graph.layers:
            found: dict[int, None] = {}
            computed = [i for i in layer.inputs if i != -1 and not graph.tensors[i].is_constant]
            for index in computed:
                found |= before.get(index, {})
                if any(output in self._given for output in layer.outputs):
                    found |= dict.fromkeys([index])
            for index in layer.outputs:
                before[index] = found
        settled = {*graph.inputs, *self._given}
        return {
            index: tuple(read for read in before.get(index, {}) if read not in settled)
            for index in graph.outputs
        }


def interval_of_step(step: Step, output: int, values: Mapping[int, Array], absent: str) -> Interval | str:
    """What any order of float32 operations makes of a layer's inputs in tensor ``output``, or why that is not
    known.

    ``absent`` says why the runtime's values are not known, where they are not.
    """
    view = step.view
    try:
        bounds = bounds_for(view, step.rule)
    except ModelError:
        return reason_to_give(step)
    inputs = []
    for tensor in view.inputs:
        value = None if tensor is None else tensor.data if tensor.is_constant else values.get(tensor.index)
        if tensor is not None and value is None:
            return f"{reason_to_give(step)}; the runtime does not show what the layer reads"
        inputs.append(value)
    try:
        return absent or bounds(inputs)[[tensor.index for tensor in view.outputs].index(output)]
    except CannotCompare as error:
        return str(error)


def _why_unreadable(run: DelegateRun | DelegateError, index: int) -> str:
    if isinstance(run, DelegateError):
        return str(run)
    if run.capture_changed:
        return "keeping every tensor changed the runtime's own outputs"
    if index not in run.trace.tensors:
        return run.unreadable.get(index, "the runtime does not show this tensor")
    return ""
