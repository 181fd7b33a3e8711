"""One run of an unchanged model file, and the oracle's run of the layers that the runtime runs for it.

The outputs of layers whose bits no document specifies, and of layers the oracle lacks, are set to the
runtime's values, so that all later layers can be compared for equality.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from karat24.delegates.protocol import Delegate, DelegateRun, Model, Sequential, Tensors
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
    UsageError,
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
    delegate: Delegate, model: Model, graph: Graph, feeds: Feeds, everything: bool, step: int | None = None
) -> DelegateRun | DelegateError:
    """One run of a file whose layers are those of ``graph``. The outputs are those of a run in which no inner
    tensor was read.

    ``step`` counts the runs of a sequence in which variables keep their values, from 0. Returns the error for
    a file that the runtime does not run. Raises DelegateUnavailable, FeedError, UsageError.
    """
    try:
        if step is not None:
            return in_sequence(delegate, model, graph, feeds, "all" if everything else "outputs", step)
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


def in_sequence(
    delegate: Delegate, model: Model, graph: Graph, feeds: Feeds, tensors: Tensors, step: int
) -> DelegateRun:
    """Run ``step`` of a sequence in which variables keep their values; it cannot be run twice.

    Raises as :meth:`Sequential.run_in_sequence` does, and DelegateError where reading tensors changed them.
    """
    if not isinstance(delegate, Sequential):
        raise UsageError(f"{delegate.name} cannot keep variables from run to run; leave out --keep-state")
    run = cleared(graph, delegate.run_in_sequence(model, feeds, first=step == 0, tensors=tensors))
    if run.capture_changed:
        raise DelegateError(f"{delegate.name}: keeping every tensor changed the runtime's own outputs")
    return run


@dataclass(frozen=True)
class WholeRun:
    """A runtime's run of a file, and the oracle's for equal feeds.

    ``run`` is the error if the runtime did not run the file. ``trace`` is the oracle's; ``given`` are the
    tensors in it that hold the runtime's own values. ``unknown`` maps tensors that follow from a value that
    could not be read to the reason: the oracle's values there do not predict the runtime's. ``shown`` are the
    values that the runtime shows. ``intervals`` maps the given tensors, and those shown after a hidden one,
    to the values that any order of float32 operations can give, or to the reason why these are not known.
    ``states`` are the values that the oracle's run left in variables that keep them.
    """

    run: DelegateRun | DelegateError
    trace: Trace
    given: Mapping[int, Array]
    unknown: Mapping[int, str]
    shown: Mapping[int, Array]
    intervals: Mapping[int, Interval | str]
    states: Mapping[int, Array] = field(default_factory=dict)

    def hold(self, tensor: int, record: Gathered) -> None:
        """Compares the runtime's own values of a tensor with their interval."""
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
        """The oracle's values of all tensors that do not follow from a hidden one."""
        return {index: values for index, values in self.trace.tensors.items() if index not in self.unknown}

    @property
    def outputs(self) -> tuple[Array, ...] | str:
        """The runtime's outputs, or why there are none."""
        return str(self.run) if isinstance(self.run, DelegateError) else self.run.outputs


@dataclass(frozen=True)
class _Read:
    """The inputs of a layer whose outputs are the runtime's: equal, not comparable, or differing."""

    refused: str = ""
    differing: str = ""
    explained: str = ""

    def count_for(self, record: OutputRecord) -> None:
        """Adds the state of the inputs to the record of an output after that layer."""
        if self.refused:
            record.refuse(self.refused)
        elif self.differing:
            record.disagree(self.explained or self.differing, explained=bool(self.explained))


class WholeModel:
    """A file, the runtime that runs it, and the program of the layers that the runtime runs for it."""

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
        """True where the oracle needs values that the runtime must show."""
        return bool(self._given)

    def run(self, feeds: Feeds, everything: bool = False, progress: Progress | None = None) -> WholeRun:
        """Runs the file; inner tensors are read with ``everything``, or if the oracle needs one."""
        everything = everything or self.needs_values
        run = run_whole(self._delegate, self._model, self._program.graph, feeds, everything)
        return self.beside(run, feeds, progress)

    def sequence(
        self, samples: Iterable[Feeds], everything: bool, progress: Progress | None
    ) -> list[WholeRun]:
        """Runs the file on one sample after the other; variables keep their values, there and here."""
        runs: list[WholeRun] = []
        states: Mapping[int, Array] = {}
        everything = everything or self.needs_values
        for step, feeds in enumerate(samples):
            run = run_whole(self._delegate, self._model, self._program.graph, feeds, everything, step)
            runs.append(self.beside(run, feeds, progress, states))
            states = runs[-1].states
        return runs

    def beside(
        self,
        run: DelegateRun | DelegateError,
        feeds: Feeds,
        progress: Progress | None = None,
        states: Mapping[int, Array] | None = None,
    ) -> WholeRun:
        """The oracle's run beside one of the runtime's; ``states`` are as in :meth:`Program.run`."""
        given, absent = self._values_given(run)
        result = self._program.run(feeds, accumulators=True, progress=progress, given=given, states=states)
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
        return WholeRun(run, result.trace, given, unknown, shown, intervals, result.states)

    def _interval_behind(self, index: int, values: Mapping[int, Array], hidden: str) -> Interval | str:
        """The interval of a tensor after a hidden one, or why it is not known."""
        try:
            return interval_of(self._program, index, {i: v for i, v in values.items() if i != index})
        except CannotCompare as error:
            return f"{hidden}; {error}"

    def _values_given(self, run: DelegateRun | DelegateError) -> tuple[dict[int, Array], dict[int, str]]:
        """The values to continue with after the given layers, and the tensors whose values are not true.

        A layer the oracle lacks needs values even if the runtime shows none, so that later layers can be fed;
        these are zeros.
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
        """All tensors that follow from a tensor whose values are not known, with the reason."""
        unknown = dict(absent)
        for layer in self._program.graph.layers:
            found = next((unknown[index] for index in layer.inputs if index in unknown), "")
            for index in layer.outputs if found else ():
                if index not in self._given:
                    unknown[index] = found
        return unknown

    def judge(self, whole: WholeRun, records: Iterable[OutputRecord], others: Iterable[str]) -> None:
        """Compares each output of the run; ``others`` name profiles that may explain a difference.

        An output after a layer with the runtime's values says nothing about the layers before that one.
        Therefore the inputs of such layers are compared like outputs, and count for every output after them.
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
        """Compares an input of a layer whose outputs are the runtime's values."""
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
            if index in whole.unknown:  # shown values after a hidden tensor prove nothing about it
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
        """By output, the inputs of layers before it whose own outputs are the runtime's values."""
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
    """The interval of tensor ``output`` over all orders of float32 operations, or why it is not known.

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
