"""A program's memory, and its layers bound to it: what a run without a trace goes through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from refimpl.contract import Kernel
from refimpl.graph import DTYPES, Array, Graph
from refimpl.kernels.images.strided_images import aligned_bytes, is_strided
from refimpl.kernels.moves.concatenation import Concatenation
from refimpl.kernels.threads.layer_sequence import BoundLayer, LayerSequence
from refimpl.planning import ALIGNMENT, MemoryPlan

Call = Callable[[], None]


class Workspace:
    """Arrays for all tensors of a graph, placed as ``plan`` says, and its layers as calls.

    ``calls`` follow the order of the layers; one whose work its neighbours do is None. ``runs`` are the same
    calls, as few as can be: neighbouring layers of compiled tasks are one. ``compiled``: all of them are, and
    know how many threads they take. Only one run at a time may use it: the one that holds ``lock``.
    """

    def __init__(self, graph: Graph, kernels: Sequence[Kernel], plan: MemoryPlan, threads: int) -> None:
        self.memory = aligned_bytes(plan.size + ALIGNMENT, ALIGNMENT)
        self.lock = threading.Lock()
        self._graph, self._plan = graph, plan
        self._arrays: dict[int, Array] = {t.index: t.data for t in graph.tensors if t.data is not None}
        for index in (*plan.offsets, *plan.parts):
            self._place(index)
        self._outputs = [self._arrays[index] for index in graph.outputs]
        bound = [self._bind(kernels[index], index) for index in range(len(graph.layers))]
        self.calls = tuple(
            LayerSequence([call], threads) if isinstance(call, BoundLayer) else call for call in bound
        )
        self.runs = tuple(_together(bound, threads))
        self.compiled = all(isinstance(run, LayerSequence) for run in self.runs)

    def feed(self, values: Mapping[int, Array]) -> None:
        """Copies the graph's inputs to their places."""
        for index, value in values.items():
            self._arrays[index][...] = value

    def results(self) -> tuple[Array, ...]:
        """Copies of the graph's outputs."""
        return tuple([output.copy() for output in self._outputs])

    def _place(self, index: int) -> Array:
        if index not in self._arrays:
            tensor, part = self._graph.tensors[index], self._plan.parts.get(index)
            if part is None:
                dtype, offset = np.dtype(DTYPES[tensor.dtype]), self._plan.offsets[index]
                self._arrays[index] = np.ndarray(tensor.shape, dtype, self.memory, offset)
            else:
                inside = slice(part.start, part.start + tensor.shape[part.axis])
                self._arrays[index] = self._place(part.whole)[(slice(None),) * part.axis + (inside,)]
        return self._arrays[index]

    def _bind(self, kernel: Kernel, index: int) -> Call | None:
        layer = self._graph.layers[index]
        if not layer.outputs:
            return None
        if isinstance(kernel, Concatenation):
            places = [self._plan.parts.get(tensor) for tensor in layer.inputs]
            written = [n for n, part in enumerate(places) if part and part.whole == layer.outputs[0]]
            if len(written) == len(layer.inputs):
                return None
            kernel = kernel.without(written)
        inputs = [None if tensor == -1 else self._arrays[tensor] for tensor in layer.inputs]
        outputs = [self._arrays[tensor] for tensor in layer.outputs]
        # A bound call must see what is written later: nothing it reads may be copied on the way.
        assert all(x is None or x.flags.c_contiguous or is_strided(x) for x in inputs)
        bind = getattr(kernel, "bind", None)
        if bind is None:
            return partial(kernel, inputs, outputs, None)
        call: Call = bind(inputs, outputs)
        return call


def _together(calls: Sequence[Call | None], threads: int) -> Iterator[Call]:
    """The same calls, neighbouring stages made one."""
    stages: list[BoundLayer] = []
    for call in calls:
        if isinstance(call, BoundLayer):
            stages.append(call)
        elif call is not None:
            if stages:
                yield LayerSequence(stages, threads)
                stages = []
            yield call
    if stages:
        yield LayerSequence(stages, threads)
