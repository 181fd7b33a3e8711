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
from typing import Any, Literal

import numba
import numpy as np

from refimpl import __version__
from refimpl.contract import Kernel, Target, Values
from refimpl.cost import count
from refimpl.errors import FeedError, ModelError, UnsupportedOp, UsageError
from refimpl.fusion import fuse
from refimpl.graph import DTYPES, Array, Graph, LayerView, Tensor
from refimpl.kernels import KERNELS
from refimpl.kernels.jit.isa import chosen_isa
from refimpl.kernels.threads.thread_count import threads_in_force
from refimpl.layout import lay_out
from refimpl.ops import OPS, remedy, unsupported_ops
from refimpl.planning import MemoryPlan, plan_memory
from refimpl.profiles import Profile, Rule, profile_for
from refimpl.run_plan import RunPlan
from refimpl.trace import Trace
from refimpl.workspace import Workspace

Implementation = Literal["kernels", "spec"]
Feeds = Mapping[str, Array] | Mapping[int, Array] | Sequence[Array]
Progress = Callable[[Sequence["Step"]], Iterator["Step"]]

SERIAL_WORK, VALUE_WORK = 3 << 20, 32
"""A network of less work than SERIAL_WORK (its products, and VALUE_WORK for each value it computes) runs on
one thread, in 40 µs or less: waking a second thread takes a good part of that."""


@dataclass(frozen=True)
class LayerResult:
    """One layer's outputs and, where asked for and defined, its int32 accumulators."""

    outputs: tuple[Array, ...]
    accumulator: Array | None = None


@dataclass(frozen=True)
class RunResult:
    """Outputs in graph order, and the trace if one was asked for."""

    outputs: tuple[Array, ...]
    trace: Trace | None = None


@dataclass(frozen=True)
class Step:
    """One layer made ready: its rule, its kernel, and the tensors that no later layer reads."""

    view: LayerView
    rule: Rule
    kernel: Kernel
    accumulates: bool
    last_uses: tuple[int, ...] = field(default=())

    def run(self, values: Values, accumulator: bool = False) -> LayerResult:
        """Runs the layer on ``values``, one array per input."""
        outputs = tuple(np.empty(t.shape, DTYPES[t.dtype]) for t in self.view.outputs)
        acc = None
        if accumulator and self.accumulates:
            acc = np.empty(self.view.outputs[0].shape, np.int32)
        self.kernel(values, outputs, acc)
        return LayerResult(outputs, acc)


def compile_graph(
    graph: Graph,
    profile: str | Profile | None = None,
    threads: int | None = None,
    implementation: Implementation = "kernels",
    share_small: bool = False,
) -> Program:
    """Checks every layer, settles how each one rounds, and prepares its kernel.

    ``profile`` defaults to the canonical one of the graph's format. ``threads``
    defaults to all Numba has; a small network takes one, unless ``share_small``. Any number gives the same
    bits, and so does every instruction set (see ``refimpl.kernels.jit.isa``).
    ``implementation="spec"`` runs the slow definition of every op instead of its
    kernel. Raises UnsupportedOp for everything that cannot run, ModelError for a
    malformed layer and UsageError for a profile of another format, before anything runs.
    """
    profile = profile_for(graph, profile)
    missing = unsupported_ops(graph)
    if missing:
        listed = "; ".join(
            f"{op} (layer {', '.join(map(str, layers))}): {remedy(op, graph.format)}"
            for op, layers in missing.items()
        )
        raise UnsupportedOp(f"no implementation for {listed}")
    threads = _thread_count(threads)
    for view in graph.views():
        OPS[view.op].check(view)
    if not share_small and _is_small(graph):
        threads = 1
    target = Target(chosen_isa(), threads)
    last_use = _last_uses(graph)
    steps = [
        _prepared(view, profile, target, implementation, last_use[view.layer.index]) for view in graph.views()
    ]
    return Program(graph, profile, target, tuple(steps), implementation == "kernels")


def prepare_step(
    view: LayerView,
    profile: Profile,
    target: Target,
    implementation: Implementation = "kernels",
) -> Step:
    """Checks one layer, settles how ``profile`` rounds it and prepares its kernel."""
    OPS[view.op].check(view)
    return _prepared(view, profile, target, implementation, ())


def _prepared(
    view: LayerView,
    profile: Profile,
    target: Target,
    implementation: Implementation,
    last_uses: tuple[int, ...],
) -> Step:
    """A checked layer, made ready."""
    op, rule = OPS[view.op], profile.rule(view)
    prepare = KERNELS.get(view.op)
    kernel = None if implementation == "spec" or prepare is None else prepare(view, rule, target)
    if kernel is None:
        kernel = _spec_as_kernel(view, rule)
    return Step(view, rule, kernel, op.accumulates, last_uses)


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
    """Per layer, the tensors no later layer reads and that are no graph output."""
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


def _spec_as_kernel(view: LayerView, rule: Rule) -> Kernel:
    """The slow definition behind the kernel's interface."""
    spec = OPS[view.op].spec

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        result = spec(view, inputs, rule)
        for given, computed in zip(outputs, result.outputs, strict=True):
            if computed.shape != given.shape:
                raise ModelError(
                    f"{view}: the file says shape {given.shape}, it computes to {computed.shape}"
                )
            given[...] = computed
        if accumulator is not None:
            if result.accumulator is None:
                raise ModelError(f"{view}: its spec gives no accumulators")
            accumulator[...] = result.accumulator

    return run


@dataclass(frozen=True)
class Program:
    """A compiled graph. Safe to share between Python threads; runs without a trace take turns.

    A ``planned`` program runs in memory of its own, laid out once (``memory_plan``); some layers run along
    with the one before (``refimpl.fusion``), and ONNX images lie in NHWC memory (``refimpl.layout``). With a
    trace, and where specs run, every layer runs by itself on new arrays. The bits are the same.
    """

    graph: Graph
    profile: Profile
    target: Target
    steps: tuple[Step, ...]
    planned: bool = True

    def run(
        self,
        feeds: Feeds,
        trace: bool = False,
        accumulators: bool = False,
        progress: Progress | None = None,
    ) -> RunResult:
        """Runs the whole graph.

        ``feeds`` maps input names or tensor indices to arrays, or lists arrays in
        input order. With ``trace`` every layer output is kept; ``accumulators``
        adds the int32 accumulators (and implies ``trace``). ``progress`` wraps the
        iteration over steps, to show a bar. Raises FeedError for a feed that does not fit.
        """
        fed = resolve_feeds(self.graph, feeds)
        keep = trace or accumulators
        if self.planned and not keep:
            return RunResult(self._run_planned(fed, progress))
        values = {t.index: t.data for t in self.graph.tensors if t.data is not None}
        values.update(fed)
        recorded: dict[int, Array] = dict(fed)
        recorded_accumulators: dict[int, Array] = {}
        with threads_in_force(self.target.threads):
            for step in progress(self.steps) if progress else self.steps:
                inputs = [None if t is None else values[t.index] for t in step.view.inputs]
                result = step.run(inputs, accumulators)
                for tensor, value in zip(step.view.outputs, result.outputs, strict=True):
                    values[tensor.index] = value
                    if keep:
                        recorded[tensor.index] = value
                if result.accumulator is not None:
                    recorded_accumulators[step.view.layer.index] = result.accumulator
                for index in step.last_uses:
                    values.pop(index, None)
        outputs = tuple(_present(values, self.graph, index) for index in self.graph.outputs)
        if not keep:
            return RunResult(outputs)
        return RunResult(outputs, self._trace(recorded, recorded_accumulators))

    def _run_planned(self, fed: dict[int, Array], progress: Progress | None) -> tuple[Array, ...]:
        workspace = self._workspace
        with workspace.lock:
            workspace.feed(fed)
            if progress is None and workspace.compiled:
                for run in workspace.runs:
                    run()
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
        """What a run without a trace does."""
        return fuse(lay_out(RunPlan.of(self.graph, [step.kernel for step in self.steps])))

    @cached_property
    def memory_plan(self) -> MemoryPlan:
        """Where a run without a trace keeps every tensor."""
        return plan_memory(self._plan)

    @cached_property
    def _workspace(self) -> Workspace:
        """Made by the first run that needs it, kept for the next ones; runs take turns."""
        return Workspace(self._plan, self.memory_plan, self.target.threads)

    def describe(self) -> str:
        """The memory plan as a table: what each layer writes, where, how many bytes, and until when."""
        settled = {tensor.index for tensor in self._plan.tensors if tensor.is_constant}
        return self.memory_plan.describe(self.graph, settled, self._plan.nhwc_forms)

    def _trace(self, tensors: dict[int, Array], accumulators: dict[int, Array]) -> Trace:
        return Trace(
            producer="karat",
            profile=self.profile.name,
            tensors=tensors,
            accumulators=accumulators,
            rules={step.view.layer.index: str(step.rule) for step in self.steps},
            versions={
                "karat": __version__,
                "numpy": np.__version__,
                "numba": numba.__version__,
                "isa": self.target.isa,
            },
        )

    def run_layer(self, index: int, values: Values, accumulator: bool = False) -> LayerResult:
        """Runs one layer on given inputs (constants included)."""
        return self.run_step(self.steps[index], values, accumulator)

    def run_step(self, step: Step, values: Values, accumulator: bool = False) -> LayerResult:
        """Runs a step, of this program or of another profile, with this program's threads."""
        with threads_in_force(self.target.threads):
            return step.run(values, accumulator)


def _present(values: Mapping[int, Array | None], graph: Graph, index: int) -> Array:
    value = values[index]
    if value is None:
        raise ModelError(f"graph output {graph.label(index)} has no value")
    return value


def resolve_feeds(graph: Graph, feeds: Feeds) -> dict[int, Array]:
    """Feeds by tensor index, checked against the graph's inputs.

    Raises FeedError naming the input that is missing, unknown, or of another
    shape or dtype than the graph says.
    """
    fed: dict[int, Array] = {}
    # Lists and tuples are asked for first, because a class is compared faster than a protocol.
    if isinstance(feeds, (list, tuple)) or not isinstance(feeds, Mapping):
        if len(feeds) != len(graph.inputs):
            raise FeedError(f"{len(feeds)} arrays given, the model has {len(graph.inputs)} inputs")
        for place, index in enumerate(graph.inputs):
            fed[index] = _fitting(graph.tensors[index], feeds[place])
        return fed
    given = _by_index(graph, feeds)
    for index in graph.inputs:
        fed[index] = _fitting(graph.tensors[index], given.get(index))
    return fed


def _fitting(tensor: Tensor, value: Any) -> Array:
    """The value as an array the kernels can read, if it is what the tensor needs."""
    array: Array | None = value if value is None or type(value) is np.ndarray else np.asarray(value)
    if array is None or array.dtype != DTYPES[tensor.dtype] or array.shape != tensor.shape:
        raise FeedError(f"input {tensor.name!r} (tensor {tensor.index}): {_misfit(tensor, array)}")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _misfit(tensor: Tensor, value: Array | None) -> str:
    """What is wrong with a value that is not what the tensor needs."""
    if value is None:
        return f"no value given; the model needs {tensor.dtype} {tensor.shape}"
    if value.dtype != DTYPES[tensor.dtype]:
        return f"got {value.dtype}, the model needs {tensor.dtype}"
    dynamic = tensor.shape_signature is not None and -1 in tensor.shape_signature
    hint = "; feed one batch of the exported size at a time" if dynamic else ""
    return f"got shape {value.shape}, the model needs {tensor.shape}{hint}"


def _by_index(graph: Graph, feeds: Mapping[str, Array] | Mapping[int, Array]) -> dict[int, Array]:
    names = {graph.tensors[index].name: index for index in graph.inputs}
    by_index: dict[int, Array] = {}
    for key, value in feeds.items():
        index = key if isinstance(key, int) else names.get(key)
        if index not in graph.inputs:
            raise FeedError(f"the model has no input {key!r}; it has {', '.join(map(repr, names))}")
        by_index[index] = value
    return by_index
