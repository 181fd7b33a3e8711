"""Layers that a run without a trace computes together with a neighbour, or once for all runs.

A ReLU, a logistic function, a rescaling of int8 to int8: each maps one byte to one byte. The convolution
before it, if no other layer reads its output, applies the table to each tile while the tile is in the cache,
and the tensor between the two is never stored. A convolution reads zero points outside its image, so the
border that a layer before it would add is not stored either. A convolution can write the largest of each 2x2
pixels beside its output, from the tile in the cache. A layer that depends on no fed value, such as a shape
and what is made of it, is computed once. Each step rounds as it does by itself; the bits are the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from karat24.refimpl.contract import (
    ByteTable,
    FollowedByTable,
    FromShapes,
    MakesBorder,
    ReadsInside,
    TakesMaxima,
    WritesMaxima,
)
from karat24.refimpl.graph import DTYPES
from karat24.refimpl.run_plan import PlannedLayer, RunPlan


def fuse(plan: RunPlan) -> RunPlan:
    """The plan without the layers that a neighbour computes too, and without those that are computed now."""
    fusion = _Fusion(plan)
    for number, layer in enumerate(plan.layers):
        if fusion.depends_on_no_feed(layer):
            fusion.settle(number)
        elif isinstance(layer.kernel, ByteTable):
            fusion.apply_as_computed(number, layer.kernel)
        elif isinstance(layer.kernel, MakesBorder):
            fusion.leave_border_to_reader(number, layer.kernel)
        elif isinstance(layer.kernel, TakesMaxima):
            fusion.pool_as_computed(number, layer.kernel)
    left = tuple(layer for layer in fusion.layers if layer is not None)
    return replace(plan, tensors=tuple(fusion.tensors), layers=left)


class _Fusion:
    """Tensors and layers, changed step by step, and the layers that write and read each tensor.

    Layers are called by their numbers in the plan; None is one that was absorbed.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.tensors = list(plan.tensors)
        self.layers: list[PlannedLayer | None] = list(plan.layers)
        self._kept = set(plan.outputs)
        self._writers = {index: number for number, layer in enumerate(plan.layers) for index in layer.outputs}
        self._readers = {index: number for number, layer in enumerate(plan.layers) for index in layer.inputs}
        self._reads = Counter(index for layer in plan.layers for index in layer.inputs)

    def depends_on_no_feed(self, layer: PlannedLayer) -> bool:
        """Whether a layer's results are the same in every run, and none of them is a graph output."""
        if self._kept.intersection(layer.outputs):
            return False
        return isinstance(layer.kernel, FromShapes) or all(
            index == -1 or self.tensors[index].is_constant for index in layer.inputs
        )

    def settle(self, number: int) -> None:
        """Computes a layer that depends on no fed value; its outputs are constants from here on."""
        layer = self._layer(number)
        inputs = [None if index == -1 else self.tensors[index].data for index in layer.inputs]
        outputs = [np.empty(t.shape, DTYPES[t.dtype]) for t in (self.tensors[i] for i in layer.outputs)]
        layer.kernel(inputs, outputs, None)
        for index, output in zip(layer.outputs, outputs, strict=True):
            output.flags.writeable = False  # a constant need not be copied
            self.tensors[index] = replace(self.tensors[index], data=output)
        self.layers[number] = None

    def apply_as_computed(self, number: int, lookup: ByteTable) -> None:
        """Has the layer before apply this layer's table."""
        layer, table = self._layer(number), lookup.byte_table
        between = layer.inputs[0]
        if table is None or between not in self._writers or not self._is_private(between):
            return
        writer = self._writers[between]
        before = self.layers[writer]
        if before is None or not isinstance(before.kernel, FollowedByTable):
            return
        self.layers[writer] = replace(before, kernel=before.kernel.followed_by(table), outputs=layer.outputs)
        self.layers[number] = None
        self._writers[layer.outputs[0]] = writer

    def pool_as_computed(self, number: int, pool: TakesMaxima) -> None:
        """Has the layer before write this layer's maxima beside its own output."""
        layer = self._layer(number)
        (between,) = layer.inputs
        if pool.maxima is None or between not in self._writers:
            return
        writer = self._writers[between]
        before = self.layers[writer]
        if before is None or not isinstance(before.kernel, WritesMaxima) or len(before.outputs) > 1:
            return
        self.layers[writer] = replace(
            before, kernel=before.kernel.with_maxima(pool.maxima), outputs=(between, *layer.outputs)
        )
        self.layers[number] = None

    def leave_border_to_reader(self, number: int, padding: MakesBorder) -> None:
        """Has the layer behind read the image without the border, and make up the border itself."""
        layer = self._layer(number)
        (between,) = layer.outputs
        if padding.border is None or not self._is_private(between) or between not in self._readers:
            return
        reader = self._readers[between]
        behind = self.layers[reader]
        if behind is None or not isinstance(behind.kernel, ReadsInside):
            return
        kernel = behind.kernel.reading_inside(padding.border)
        if kernel is None:
            return
        inputs = tuple(layer.inputs[0] if index == between else index for index in behind.inputs)
        self.layers[reader] = replace(behind, kernel=kernel, inputs=inputs)
        self.layers[number] = None

    def _layer(self, number: int) -> PlannedLayer:
        layer = self.layers[number]
        assert layer is not None
        return layer

    def _is_private(self, tensor: int) -> bool:
        """Whether the tensor has at most one reader, which reads it once."""
        return tensor not in self._kept and self._reads[tensor] <= 1
