"""One run of a model file as it is, and the oracle's run of the same layers beside it.

Layers whose bits nobody specifies, and those the oracle lacks, take the values the runtime had, so that
whatever lies behind them can be compared for equality.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from delegates.protocol import Delegate, DelegateRun, Model
from golden.diff import diff_arrays
from golden.explain import differs_in_ties
from golden.record import OutputRecord
from refimpl.engine import Feeds, Program, Progress, Step, compile_graph
from refimpl.errors import CannotCompare, DelegateError, DelegateUnavailable, KaratError, UnsupportedOp
from refimpl.graph import DTYPES, Array
from refimpl.profiles import METHODS
from refimpl.trace import Trace

UNSPECIFIED = METHODS["unspecified"]


def reason_to_give(step: Step) -> str:
    """Why a layer takes the runtime's values: the oracle lacks it or nobody specifies it; '' otherwise."""
    if step.missing:
        return step.missing
    return UNSPECIFIED if step.rule.method == "unspecified" else ""


def run_whole(
    delegate: Delegate, model: Model, feeds: Feeds, everything: bool
) -> DelegateRun | DelegateError:
    """One run of a file; its outputs are those of a run that no inner tensor was read from.

    A file the runtime does not run is an answer; raises DelegateUnavailable, FeedError, UsageError.
    """
    try:
        run = delegate.run(model, feeds, tensors="all" if everything else "outputs")
        if run.capture_changed:
            run = replace(run, outputs=delegate.run(model, feeds, tensors="outputs").outputs)
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
    value nobody could read to the reason: the oracle's values there are no prediction of the runtime's.
    """

    run: DelegateRun | DelegateError
    trace: Trace
    given: Mapping[int, Array]
    unknown: Mapping[int, str]

    @property
    def outputs(self) -> tuple[Array, ...] | str:
        """The runtime's outputs, or why there are none."""
        return str(self.run) if isinstance(self.run, DelegateError) else self.run.outputs


class WholeModel:
    """A file, the runtime it is run on and the program of the layers that runtime runs for it."""

    def __init__(self, delegate: Delegate, model: Model, program: Program) -> None:
        self._delegate, self._model, self._program = delegate, model, program
        self._given = {
            tensor.index: (step, reason)
            for step in program.steps
            if (reason := reason_to_give(step))
            for tensor in step.view.outputs
        }

    @property
    def needs_values(self) -> bool:
        """True where layers go on with values the runtime must show."""
        return bool(self._given)

    def run(self, feeds: Feeds, everything: bool = False, progress: Progress | None = None) -> WholeRun:
        """Runs the file, reading inner tensors where ``everything`` is asked for or one must be given."""
        run = run_whole(self._delegate, self._model, feeds, everything or self.needs_values)
        return self.beside(run, feeds, progress)

    def beside(
        self, run: DelegateRun | DelegateError, feeds: Feeds, progress: Progress | None = None
    ) -> WholeRun:
        """The oracle's run beside one of the runtime's."""
        given, absent = self._values_given(run)
        result = self._program.run(feeds, accumulators=True, progress=progress, given=given)
        assert result.trace is not None
        return WholeRun(run, result.trace, MappingProxyType(given), self._behind(absent))

    def _values_given(self, run: DelegateRun | DelegateError) -> tuple[dict[int, Array], dict[int, str]]:
        """What to go on with behind the layers that are given, and of which tensors it is not true.

        A layer the oracle lacks needs some value even where the runtime shows none, so that layers
        behind it can be fed; zeros are as good as any for that.
        """
        given, absent = {}, {}
        for index, (step, _) in self._given.items():
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

    def _behind(self, absent: Mapping[int, str]) -> Mapping[int, str]:
        """Everything that follows from a tensor whose values are not known."""
        unknown = dict(absent)
        for layer in self._program.graph.layers:
            found = next((unknown[index] for index in layer.inputs if index in unknown), "")
            for index in layer.outputs if found else ():
                if index not in self._given:
                    unknown[index] = found
        return MappingProxyType(unknown)

    def judge(self, whole: WholeRun, records: Iterable[OutputRecord], others: Iterable[str]) -> None:
        """Compares each output of the run; ``others`` name profiles that may explain a difference."""
        found = whole.outputs
        compared = []
        for position, record in enumerate(records):
            index = record.tensor.index
            if isinstance(found, str):
                record.refuse(found)
            elif index in whole.unknown:
                record.refuse(whole.unknown[index])
            elif index in self._given:
                step, reason = self._given[index]
                record.refuse(f"{step.view} writes it: {reason}")
            else:
                compared.append((position, record, found[position]))
        explanations = _Explanations(self._program, whole, others)
        for position, record, value in compared:
            try:
                diff = diff_arrays(whole.trace.tensors[record.tensor.index], value)
            except CannotCompare as error:
                record.refuse(str(error))
                continue
            record.add(diff, "" if diff.equal else explanations.of(position, value), "")


class _Explanations:
    """Do the layers under another profile give the outputs found, or with the runtime's ties?"""

    def __init__(self, program: Program, whole: WholeRun, profiles: Iterable[str]) -> None:
        self._program, self._whole = program, whole
        self._profiles = [name for name in dict.fromkeys(profiles) if name != program.profile.name]
        self._outputs: dict[str, tuple[Array, ...]] = {}

    def of(self, position: int, value: Array) -> str:
        """What explains an output, or ''."""
        for profile in self._profiles:
            if self._equal(profile, position, value):
                return f"every value equals that of the model under {profile}"
        if self._program.profile.open_ties and self._equal("", position, value):
            return "exact ties, which the runtime's choice of kernel decides, and what follows from them"
        return ""

    def _equal(self, profile: str, position: int, value: Array) -> bool:
        if profile not in self._outputs:
            try:
                self._outputs[profile] = self._run_under(profile) if profile else self._run_with_its_ties()
            except KaratError:
                self._outputs[profile] = ()
        outputs = self._outputs[profile]
        return bool(outputs) and diff_arrays(outputs[position], value).equal

    def _feeds(self) -> dict[int, Array]:
        return {index: self._whole.trace.tensors[index] for index in self._program.graph.inputs}

    def _run_under(self, profile: str) -> tuple[Array, ...]:
        graph, threads = self._program.graph, self._program.target.threads
        program = compile_graph(graph, profile, threads, missing="given")
        return program.run(self._feeds(), given=self._whole.given).outputs

    def _run_with_its_ties(self) -> tuple[Array, ...]:
        """The oracle's run, which goes on with the runtime's values where only exact ties went elsewhere."""
        graph = self._program.graph
        shown = {} if isinstance(self._whole.run, DelegateError) else self._whole.run.trace.tensors
        values = {t.index: t.data for t in graph.tensors if t.data is not None} | self._feeds()
        for step in self._program.steps:
            view = step.view
            if all(tensor.index in self._whole.given for tensor in view.outputs):
                values |= {tensor.index: self._whole.given[tensor.index] for tensor in view.outputs}
                continue
            inputs = [None if tensor is None else values[tensor.index] for tensor in view.inputs]
            result = self._program.run_step(step, inputs, accumulator=True)
            for tensor, own in zip(view.outputs, result.outputs, strict=True):
                found = shown.get(tensor.index, own)
                ties = differs_in_ties(view, result.accumulator, own, found)
                values[tensor.index] = found if ties else own
        return tuple(values[index] for index in graph.outputs)


def _why_unreadable(run: DelegateRun | DelegateError, index: int) -> str:
    if isinstance(run, DelegateError):
        return str(run)
    if run.capture_changed:
        return "keeping every tensor changed the runtime's own outputs"
    if index not in run.trace.tensors:
        return run.unreadable.get(index, "the runtime does not show this tensor")
    return ""
