"""Where the tensors of a run lie: one block of memory for all, planned from their lifetimes.

A tensor lives from the layer that writes it to the last one that reads it; two that never live
at once may share memory. A concatenation that only copies needs no work of its own: the layers
before it write straight into their part of its output, if they can, and the copy is left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from karat24.refimpl.contract import JoinsInputs, Kernel, Strided
from karat24.refimpl.graph import DTYPES, Graph, Tensor
from karat24.refimpl.run_plan import PlannedLayer, RunPlan

ALIGNMENT = 64
"""Buffers start at multiples of this many bytes, a cache line."""


class Span(NamedTuple):
    """Bytes needed from layer ``first`` to layer ``last``, both included."""

    size: int
    first: int
    last: int

    def meets(self, other: Span) -> bool:
        """True if both are needed at the same time."""
        return self.first <= other.last and other.first <= self.last


class Part(NamedTuple):
    """A tensor written into another one: ``whole``, along ``axis``, from index ``start`` on."""

    whole: int
    axis: int
    start: int


@dataclass(frozen=True)
class MemoryPlan:
    """``offsets``: where each buffer starts, by tensor; ``parts``: the tensors that lie in another's
    buffer; ``spans``: size and lifetime of the buffers; ``size``: bytes of all together."""

    offsets: Mapping[int, int]
    parts: Mapping[int, Part]
    spans: Mapping[int, Span]
    size: int

    def describe(
        self, graph: Graph, settled: Collection[int] = (), nhwc_forms: Mapping[int, int] | None = None
    ) -> str:
        """The plan as a table, one line per tensor of the graph, in the order they are written.

        ``settled`` tensors are computed when a program is made ready to run. Tensors in ``nhwc_forms`` are
        stored as the tensor of that index; those stored in both layouts are listed as the graph's.
        """
        forms = nhwc_forms or {}
        header = f"{'layer':>5} {'op':24} {'tensor':>6} {'offset':>11} {'bytes':>11} {'until':>5}  where"
        lines = [f"{len(self.offsets)} buffers in {self.size} bytes", header]
        for layer, op, index in _written(graph):
            once = "", "", "a constant, computed once"
            offset, until, where = once if index in settled else self._place(graph, index, forms)
            size = nbytes(graph.tensors[index])
            lines.append(f"{layer:5} {op:24} {index:6} {offset:>11} {size:11} {until:>5}  {where}")
        return "\n".join(lines)

    def _place(self, graph: Graph, index: int, forms: Mapping[int, int]) -> tuple[str, str, str]:
        """A tensor's offset, the last layer that reads it, and its place in words."""
        names = {form: tensor for tensor, form in forms.items()}
        own = index in self.offsets or index in self.parts
        root, path = index if own else forms.get(index, index), []
        layout = "" if own or index not in forms else ", NHWC"
        while root in self.parts:
            part = self.parts[root]
            path.append(f"in tensor {names.get(part.whole, part.whole)}, axis {part.axis} from {part.start}")
            root = part.whole
        if root in self.spans:
            return (
                str(self.offsets[root]),
                str(self.spans[root].last),
                ("; ".join(path) or "its own") + layout,
            )
        reader = next(layer.index for layer in graph.layers if index in layer.inputs)
        padded = any(index in layer.outputs for layer in graph.layers if layer.op in ("PAD", "PADV2"))
        does = "makes the border itself" if padded else "is applied as it is computed"
        return "", "", f"nowhere: layer {reader} {does}"


def _written(graph: Graph) -> Iterator[tuple[int, str, int]]:
    for index in graph.inputs:
        yield -1, "(input)", index
    for layer in graph.layers:
        for index in layer.outputs:
            yield layer.index, layer.op, index


def plan_memory(plan: RunPlan) -> MemoryPlan:
    """The memory of a run by this plan."""
    parts = _parts(plan)
    lifetimes = _lifetimes(plan)
    spans: dict[int, Span] = {}
    for index, (first, last) in lifetimes.items():
        root = index
        while root in parts:
            root = parts[root].whole
        size = nbytes(plan.tensors[root])
        known = spans.get(root, Span(size, first, last))
        spans[root] = Span(size, min(known.first, first), max(known.last, last))
    offsets, size = allocate(list(spans.values()))
    return MemoryPlan(
        MappingProxyType(dict(zip(spans, offsets, strict=True))),
        MappingProxyType(parts),
        MappingProxyType(spans),
        size,
    )


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's values."""
    return math.prod(tensor.shape) * np.dtype(DTYPES[tensor.dtype]).itemsize


def allocate(spans: Sequence[Span]) -> tuple[list[int], int]:
    """An offset for each span, and the total size; spans that meet do not overlap.

    The largest span is placed first, each in the lowest gap that holds it. Offsets are multiples of
    ALIGNMENT.
    """
    offsets = [0] * len(spans)
    placed: list[int] = []
    for index in sorted(range(len(spans)), key=lambda i: (-spans[i].size, spans[i].first)):
        size, start = spans[index].size, 0
        for other in placed:  # in order of their offsets
            if spans[other].meets(spans[index]):
                if start + size <= offsets[other]:
                    break
                end = offsets[other] + spans[other].size
                start = max(start, -(-end // ALIGNMENT) * ALIGNMENT)
        offsets[index] = start
        placed.append(index)
        placed.sort(key=lambda i: offsets[i])
    size = max((offset + span.size for offset, span in zip(offsets, spans, strict=True)), default=0)
    return offsets, size


def _lifetimes(plan: RunPlan) -> dict[int, tuple[int, int]]:
    """First and last layer of the graph at which a tensor that is written lives; inputs come before the
    first layer, outputs stay till behind the last."""
    first = dict.fromkeys(plan.inputs, -1)
    first |= {index: layer.origin for layer in plan.layers for index in layer.outputs}
    last = dict(first)
    for layer in plan.layers:
        for index in layer.inputs:
            if index in last:
                last[index] = max(last[index], layer.origin)
    for index in plan.outputs:
        if index in last:
            last[index] = plan.layer_count
    return {index: (first[index], last[index]) for index in first}


def strides_of(plan: RunPlan, parts: Mapping[int, Part], index: int) -> tuple[int, ...]:
    """Elements between neighbours along each axis of a tensor where it lies."""
    shape = plan.tensors[parts[index].whole if index in parts else index].shape
    if index in parts and parts[index].whole in parts:
        return strides_of(plan, parts, parts[index].whole)
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _is_strided(shape: Sequence[int], strides: Sequence[int]) -> bool:
    return any(
        size > 1 and stride != math.prod(shape[axis + 1 :])
        for axis, (size, stride) in enumerate(zip(shape, strides, strict=True))
    )


def _parts(plan: RunPlan) -> dict[int, Part]:
    """Inputs of concatenations that can be written in place.

    The last concatenation comes first: where its output lies is known when its inputs are looked at.
    """
    writers = {index: layer for layer in plan.layers for index in layer.outputs}
    readers: dict[int, list[PlannedLayer]] = {}
    for layer in plan.layers:
        for index in layer.inputs:
            readers.setdefault(index, []).append(layer)
    parts: dict[int, Part] = {}
    for layer in reversed(plan.layers):
        kernel = layer.kernel
        if not isinstance(kernel, JoinsInputs):
            continue
        start = 0
        for position, index in enumerate(layer.inputs):
            part = Part(layer.outputs[0], kernel.axis, start)
            shape = plan.tensors[index].shape
            start += shape[kernel.axis]
            if not kernel.copied[position] or index in parts or index not in writers:
                continue
            if index in plan.outputs or layer.inputs.count(index) > 1:
                continue
            strides = strides_of(plan, {**parts, index: part}, index)
            if _is_strided(shape, strides):
                others = [reader for reader in readers[index] if reader is not layer]
                able = part.axis == len(shape) - 1 and _writes_strided(writers[index].kernel)
                if not able or not all(_reads_strided(other.kernel) for other in others):
                    continue
            parts[index] = part
    return parts


def _writes_strided(kernel: Kernel) -> bool:
    return isinstance(kernel, Strided) and kernel.strided_outputs


def _reads_strided(kernel: Kernel) -> bool:
    return isinstance(kernel, Strided) and kernel.strided_inputs
