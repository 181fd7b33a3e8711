"""The engine: a graph and a profile in, a runnable program out.

>>> program = compile_graph(graph, "litert-2.3-ref")          # doctest: +SKIP
>>> result = program.run({"image": array}, trace=True)        # doctest: +SKIP
>>> result.outputs[0], result.trace.tensors[7]                # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numba
import numpy as np

from karat24.refimpl import __version__
from karat24.refimpl.cheapest import layers_by_spec
from karat24.refimpl.contract import Target, Values
from karat24.refimpl.cost import count
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.feeds import Feeds as Feeds
from karat24.refimpl.feeds import resolve_feeds as resolve_feeds
from karat24.refimpl.feeds import resolve_given
from karat24.refimpl.fusion import fuse
from karat24.refimpl.graph import Array, Graph, LayerView
from karat24.refimpl.kernels.jit.isa import chosen_isa
from karat24.refimpl.kernels.threads.thread_count import threads_in_force
from karat24.refimpl.layout import lay_out
from karat24.refimpl.ops import unsupported_ops, why_unsupported
from karat24.refimpl.planning import MemoryPlan, plan_memory
from karat24.refimpl.profiles import Profile, Rule, profile_for
from karat24.refimpl.run_plan import RunPlan
from karat24.refimpl.step import (
    Implementation,
    LayerResult,
    Step,
    check_layer,
    missing_step,
    prepare_checked,
    step_by_spec,
)
from karat24.refimpl.trace import Trace
from karat24.refimpl.workspace import Workspace

Missing = Literal["refuse", "given"]
Progress = Callable[[Sequence[Step]], Iterator[Step]]

SERIAL_WORK, VALUE_WORK = 3 << 20, 32
"""A network of less work than SERIAL_WORK (its products, and VALUE_WORK for each value it computes) runs on
one thread, in 40 µs or less: waking a second thread takes a good part of that."""


@dataclass(frozen=True)
class RunResult:
    """Outputs in graph order, and the trace if one was asked for; ``states`` are the values that variables
    are left with, by tensor index, where the run was given some."""

    outputs: tuple[Array, ...]
    trace: Trace | None = None
    states: Mapping[int, Array] = field(default_factory=dict)


def compile_graph(
    graph: Graph,
    profile: str | Profile | None = None,
    threads: int | None = None,
    implementation: Implementation = "kernels",
    share_small: bool = False,
    missing: Missing = "refuse",
    runs: int = 1,
) -> Program:
    """Checks every layer, settles how each one rounds, and prepares its kernel.

    ``profile`` defaults to the canonical one of the graph's format. ``threads``
    defaults to all Numba has; a small network takes one, unless ``share_small``, and so does every network
    that its first runs show to be faster so (:attr:`Program.threads_in_use`). Any number gives the same
    bits, and so does every instruction set (see ``karat24.refimpl.kernels.jit.isa``).
    ``implementation="spec"`` runs the slow definition of every op instead of its kernel; ``"cheapest"``
    those of the layers for which that takes less time, in ``runs`` runs of the program, than compiling
    kernels that are not compiled yet (``karat24.refimpl.cheapest``). With ``missing="given"`` a layer the
    oracle lacks (its op, a variant, an element type, a rule of the profile) is not an error:
    :attr:`Program.missing` says why it is lacking, and :meth:`Program.run` wants its outputs. Raises
    UnsupportedOp for everything that cannot run, ModelError for a
    malformed layer and UsageError for a profile of another format, before anything runs.
    """
    profile = profile_for(graph, profile)
    threads = _thread_count(threads)
    if missing == "refuse":
        _refuse_unsupported(graph)
    checked = [_checked(view, profile, missing) for view in graph.views()]
    if missing == "refuse" and not share_small and _is_small(graph):
        threads = 1
    target = Target(chosen_isa(), threads)
    steps = []
    for view, rule, last_uses in zip(graph.views(), checked, _last_uses(graph), strict=True):
        if isinstance(rule, str):
            steps.append(missing_step(view, rule, last_uses))
            continue
        try:
            steps.append(prepare_checked(view, rule, target, implementation, last_uses))
        except UnsupportedOp as error:
            if missing == "refuse":
                raise
            steps.append(missing_step(view, str(error), last_uses))
    if implementation == "cheapest":
        cheaper = layers_by_spec([(step.view, step.kernel) for step in steps if not step.missing], runs)
        steps = [step_by_spec(step) if step.view.layer.index in cheaper else step for step in steps]
        return Program(graph, profile, target, tuple(steps), planned=not cheaper)
    return Program(graph, profile, target, tuple(steps), implementation == "kernels")


def _checked(view: LayerView, profile: Profile, missing: Missing) -> Rule | str:
    """The layer's rule or, with ``missing="given"``, why the oracle lacks the layer."""
    try:
        return check_layer(view, profile)
    except UnsupportedOp as error:
        if missing == "refuse":
            raise
        return str(error)


def _refuse_unsupported(graph: Graph) -> None:
    """Raises UnsupportedOp, naming every op that has no implementation."""
    unsupported = unsupported_ops(graph)
    if unsupported:
        listed = "; ".join(
            f"{op} (layer {', '.join(map(str, layers))}): {why_unsupported(op)}"
            for op, layers in unsupported.items()
        )
        raise UnsupportedOp(
            f"no implementation for {listed}. What lies in front of such a layer can be judged alone: "
            "karat24 export MODEL --until TENSOR"
        )


def _thread_count(threads: int | None) -> int:
    available = int(getattr(numba.config, "NUMBA_NUM_THREADS"))  # noqa: B009 - untyped in numba
    if threads is None:
        return available
    if not 1 <= threads <= available:
        raise UsageError(
            f"{threads} threads asked for, 1 to {available} can be had here "
            "(NUMBA_NUM_THREADS sets the upper bound)"
        )
    return threads


def _is_small(graph: Graph) -> bool:
    """Whether the network takes less than SERIAL_WORK; ``threads.thread_count`` decides on single layers."""
    values = sum(math.prod(graph.tensors[index].shape) for layer in graph.layers for index in layer.outputs)
    return count(graph).macs + VALUE_WORK * values < SERIAL_WORK


def _last_uses(graph: Graph) -> list[tuple[int, ...]]:
    """Per layer, the tensors that no later layer reads and that are not graph outputs."""
    last: dict[int, int] = {}
    for layer in graph.layers:
        for index in (*layer.inputs, *layer.outputs):
            if index != -1:
                last[index] = layer.index
    kept = set(graph.outputs)
    freed: list[list[int]] = [[] for _ in graph.layers]
    for index, layer_index in last.items():
        if index not in kept and not graph.tensors[index].is_constant:
            freed[layer_index].append(index)
    return [tuple(indices) for indices in freed]


@dataclass(frozen=True)
class Program:
    """A compiled graph. Safe to share between Python threads; runs without a trace take turns.

    A ``planned`` program runs in memory of its own, laid out once (``memory_plan``); some layers run along
    with the one before (``karat24.refimpl.fusion``), and ONNX images lie in NHWC memory
    (``karat24.refimpl.layout``). With a trace, with ``missing`` layers, and where specs run in place of
    kernels, every layer runs by itself on new arrays. The bits are the same.
    """

    graph: Graph
    profile: Profile
    target: Target
    steps: tuple[Step, ...]
    planned: bool = True

    @cached_property
    def missing(self) -> Mapping[int, str]:
        """The layers the oracle lacks, each with the reason."""
        return {step.view.layer.index: step.missing for step in self.steps if step.missing}

    @cached_property
    def implementation(self) -> str:
        """How many layers run by their kernels and how many by their specs, in words."""
        specs = sum(step.by_spec for step in self.steps)
        return f"{len(self.steps) - specs - len(self.missing)} layers by kernels, {specs} by specs"

    def run(
        self,
        feeds: Feeds,
        trace: bool = False,
        accumulators: bool = False,
        progress: Progress | None = None,
        given: Mapping[int, Array] | None = None,
        states: Mapping[int, Array] | None = None,
    ) -> RunResult:
        """Runs the whole graph.

        ``feeds`` maps input names or tensor indices to arrays, or lists arrays in
        input order. With ``trace`` every layer output is kept; ``accumulators``
        adds the accumulators (and implies ``trace``). ``progress`` wraps the
        iteration over steps, to show a bar. ``given`` maps indices of tensors that layers write to
        the values to go on with; a layer all of whose outputs are given does not run, and a missing layer
        needs them all. ``states`` are values of variables, of some or of none, to start from: a trace shows
        them, and :attr:`RunResult.states` is what the run leaves. Without them each run starts from the first
        ones. Raises FeedError for a feed or a given value that does not fit, or is not there.
        """
        fed = resolve_feeds(self.graph, feeds)
        taken = resolve_given(self.graph, given or {}, self.missing) if given or self.missing else {}
        keep = trace or accumulators
        if self.planned and states is None and not (keep or taken or self.missing):
            return RunResult(self._run_planned(fed, progress))
        values = {t.index: t.data for t in self.graph.tensors if t.data is not None}
        values |= {**fed, **(states or {})}
        recorded: dict[int, Array] = {**fed, **(states or {})}
        left: dict[int, Array] = dict(states or {})
        recorded_accumulators: dict[int, Array] = {}
        with threads_in_force(self.target.threads):
            for step in progress(self.steps) if progress else self.steps:
                if all(tensor.index in taken for tensor in step.view.outputs):
                    result = LayerResult(tuple(taken[tensor.index] for tensor in step.view.outputs))
                else:
                    inputs = [None if t is None else values[t.index] for t in step.view.inputs]
                    result = step.run(inputs, accumulators)
                    if states is not None:
                        left |= step.left(inputs)
                        values |= left
                for tensor, value in zip(step.view.outputs, result.outputs, strict=True):
                    value = taken.get(tensor.index, value)
                    values[tensor.index] = value
                    if keep:
                        recorded[tensor.index] = value
                if result.accumulator is not None:
                    recorded_accumulators[step.view.layer.index] = result.accumulator
                for index in step.last_uses:
                    values.pop(index, None)
        outputs = tuple(_present(values, self.graph, index) for index in self.graph.outputs)
        shown = self._trace(recorded, recorded_accumulators) if keep else None
        return RunResult(outputs, shown, left)

    def _run_planned(self, fed: dict[int, Array], progress: Progress | None) -> tuple[Array, ...]:
        workspace = self._workspace
        with workspace.lock:
            workspace.feed(fed)
            if progress is None and workspace.compiled:
                workspace.run()
                return workspace.results()
            with threads_in_force(self.target.threads):
                for call in workspace.runs if progress is None else self._calls(progress):
                    call()
            return workspace.results()

    def _calls(self, progress: Progress) -> Iterator[Callable[[], None]]:
        for step in progress(self.steps):
            yield from self._workspace.calls[step.view.layer.index]

    @cached_property
    def _plan(self) -> RunPlan:
        """What a run without a trace does. Raises UsageError where layers are missing."""
        if self.missing:
            raise UsageError(f"{self.graph.name!r} has layers the oracle lacks, so no run of it is planned")
        return fuse(lay_out(RunPlan.of(self.graph, [step.kernel for step in self.steps])))

    @cached_property
    def memory_plan(self) -> MemoryPlan:
        """Where a run without a trace keeps every tensor."""
        return plan_memory(self._plan)

    @cached_property
    def _workspace(self) -> Workspace:
        """Made by the first run that needs it, kept for the next ones; runs take turns."""
        return Workspace(self._plan, self.memory_plan, self.target.threads)

    @property
    def threads_in_use(self) -> int | None:
        """Threads that runs without a trace take: one if the first runs were faster so; None before them."""
        if self.target.threads == 1:
            return 1
        decision = self._workspace.run.decision
        return None if decision is None else (1, self.target.threads)[decision]

    def describe(self) -> str:
        """The memory plan as a table: what each layer writes, where, how many bytes, and until when."""
        settled = {tensor.index for tensor in self._plan.tensors if tensor.is_constant}
        return self.memory_plan.describe(self.graph, settled, self._plan.nhwc_forms)

    def _trace(self, tensors: dict[int, Array], accumulators: dict[int, Array]) -> Trace:
        return Trace(
            producer="karat24",
            profile=self.profile.name,
            tensors=tensors,
            accumulators=accumulators,
            rules={step.view.layer.index: str(step.rule) for step in self.steps},
            versions={
                "karat24": __version__,
                "numpy": np.__version__,
                "numba": numba.__version__,
                "isa": self.target.isa,
                "implementation": self.implementation,
                "threads": str(self.target.threads),
            },
        )

    def run_layer(self, index: int, values: Values, accumulator: bool = False) -> LayerResult:
        """Runs one layer on given inputs (constants included)."""
        return self.run_step(self.steps[index], values, accumulator)

    def run_step(
        self, step: Step, values: Values, accumulator: bool = False, outputs: Sequence[Array] | None = None
    ) -> LayerResult:
        """Runs a step, of this program or of another profile, with this program's threads."""
        with threads_in_force(self.target.threads):
            return step.run(values, accumulator, outputs)


def _present(values: Mapping[int, Array | None], graph: Graph, index: int) -> Array:
    value = values[index]
    if value is None:
        raise ModelError(f"graph output {graph.label(index)} has no value")
    return value
