"""A program's memory, and its layers bound to it: what a run without a trace goes through."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from karat24.refimpl.contract import Bindable, Call, JoinsInputs
from karat24.refimpl.graph import DTYPES, Array
from karat24.refimpl.kernels.images.strided_images import aligned_bytes, is_strided
from karat24.refimpl.kernels.threads.layer_sequence import BoundLayer, LayerSequence
from karat24.refimpl.kernels.threads.trial import LARGEST_WORK, ThreadTrial
from karat24.refimpl.planning import ALIGNMENT, MemoryPlan
from karat24.refimpl.run_plan import PlannedLayer, RunPlan


class Workspace:
    """Arrays for all tensors of a plan, placed as ``memory_plan`` says, and its layers as calls.

    ``calls`` holds the calls of each layer of the graph, none for a layer that a neighbour computes. ``runs``
    are all of these calls, as few as can be: compiled layers that follow one another are one call.
    ``compiled``: every run is such a call, and ``run`` runs them all, on one thread where that is faster
    (``threads.trial``). Only one run at a time may use a workspace: the holder of ``lock``.
    """

    def __init__(self, plan: RunPlan, memory_plan: MemoryPlan, threads: int) -> None:
        self.memory = aligned_bytes(memory_plan.size + ALIGNMENT, ALIGNMENT)
        self.lock = threading.Lock()
        self._plan, self._memory_plan = plan, memory_plan
        self._arrays: dict[int, Array] = {t.index: t.data for t in plan.tensors if t.data is not None}
        for index in (*memory_plan.offsets, *memory_plan.parts):
            self._place(index)
        self._outputs = [self._arrays[index] for index in plan.outputs]
        bound = [(layer.origin, call) for layer in plan.layers for call in self._bind(layer)]
        calls: list[list[Call]] = [[] for _ in range(plan.layer_count)]
        for origin, call in bound:
            calls[origin].append(LayerSequence([call], threads) if isinstance(call, BoundLayer) else call)
        self.calls = tuple(map(tuple, calls))
        in_order = [call for _, call in bound]
        self.runs = tuple(_together(in_order, threads))
        self.compiled = all(isinstance(run, LayerSequence) for run in self.runs)
        work = sum(call.work for call in in_order if isinstance(call, BoundLayer))
        self.run = ThreadTrial(
            partial(_run_all, tuple(_together(in_order, 1)) if threads > 1 else self.runs),
            partial(_run_all, self.runs),
            questions=threads > 1 and work < LARGEST_WORK,
        )

    def feed(self, values: Mapping[int, Array]) -> None:
        """Copies the graph's inputs to their places."""
        for index, value in values.items():
            self._arrays[index][...] = value

    def results(self) -> tuple[Array, ...]:
        """Copies of the graph's outputs."""
        return tuple([output.copy() for output in self._outputs])

    def _place(self, index: int) -> Array:
        if index not in self._arrays:
            tensor, part = self._plan.tensors[index], self._memory_plan.parts.get(index)
            if part is None:
                dtype, offset = np.dtype(DTYPES[tensor.dtype]), self._memory_plan.offsets[index]
                self._arrays[index] = np.ndarray(tensor.shape, dtype, self.memory, offset)
            else:
                inside = slice(part.start, part.start + tensor.shape[part.axis])
                self._arrays[index] = self._place(part.whole)[(slice(None),) * part.axis + (inside,)]
        return self._arrays[index]

    def _bind(self, layer: PlannedLayer) -> Sequence[Call]:
        kernel = layer.kernel
        inputs = [None if tensor == -1 else self._arrays[tensor] for tensor in layer.inputs]
        outputs = [self._arrays[tensor] for tensor in layer.outputs]
        # A bound call must see what is written later: nothing it reads may be copied on the way.
        assert all(x is None or x.flags.c_contiguous or is_strided(x) for x in inputs)
        if isinstance(kernel, JoinsInputs):
            return kernel.bind_parts(self._not_in_place(layer), inputs, outputs)
        if isinstance(kernel, Bindable):
            return [kernel.bind(inputs, outputs)]
        return [partial(kernel, inputs, outputs, None)]

    def _not_in_place(self, layer: PlannedLayer) -> list[int]:
        """Positions of the inputs that do not lie in the layer's output."""
        places = [self._memory_plan.parts.get(tensor) for tensor in layer.inputs]
        return [n for n, part in enumerate(places) if part is None or part.whole != layer.outputs[0]]


def _run_all(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


def _together(calls: Sequence[Call], threads: int) -> Iterator[Call]:
    """The calls in order, compiled layers that follow one another in one call."""
    layers: list[BoundLayer] = []
    for call in calls:
        if isinstance(call, BoundLayer):
            layers.append(call)
            continue
        if layers:
            yield LayerSequence(layers, threads)
            layers = []
        yield call
    if layers:
        yield LayerSequence(layers, threads)
