"""The layer under suspicion, its values, and what a change of it would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.cost import count
from karat24.refimpl.engine import Program
from karat24.refimpl.errors import KaratError, ModelError
from karat24.refimpl.graph import Array, AttributeValue, Graph, LayerView, Tensor
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import Rule
from karat24.refimpl.step import LayerResult, prepare_step

SPEC_WORK = 1 << 20
"""Layers of no more products than this run by their slow definition, for which no kernel is compiled."""

MOST_SPEC_WORK = 1 << 26
"""A changed layer that only the slow definition takes runs up to this many products."""

SPEC_COST = 64
"""Products of a kernel that take as long as one of the slow definition."""

VALUE_WORK = 32
"""Products that take as long as one value of an output."""


@dataclass(frozen=True)
class Weighted:
    """The parts of an op with a filter: positions among the inputs, axes of the filter and of the output."""

    filter: int
    data: int
    bias: int | None
    out_axis: int
    """The filter's axis of output channels."""
    in_axis: int | None
    """The filter's axis of input channels; None where each output channel reads one input channel."""
    taps: tuple[int, ...]
    """The filter's axes y and x; () for a matrix."""
    channel_axis: int = -1
    """The output's axis of channels."""


WEIGHTED = {
    "CONV_2D": Weighted(1, 0, 2, 0, 3, (1, 2)),
    "DEPTHWISE_CONV_2D": Weighted(1, 0, 2, 3, None, (1, 2)),
    "FULLY_CONNECTED": Weighted(1, 0, 2, 0, 1, ()),
    "TRANSPOSE_CONV": Weighted(1, 2, 3, 0, 3, (1, 2)),
    "QLinearConv": Weighted(3, 0, 8, 0, 1, (2, 3), 1),
    "QLinearMatMul": Weighted(3, 0, None, 1, 0, ()),
    "com.microsoft:QGemm": Weighted(3, 0, 6, 1, 0, ()),
}


@dataclass(frozen=True)
class Suspect:
    """A layer of ``program`` that gave ``found`` for ``inputs`` (constants included)."""

    program: Program
    layer: int
    inputs: Values
    found: Sequence[Array]

    @property
    def view(self) -> LayerView:
        """The layer as the model has it."""
        return self.program.steps[self.layer].view

    @property
    def graph(self) -> Graph:
        """The model."""
        return self.program.graph

    @property
    def weighted(self) -> Weighted | None:
        """Where the parts of the layer are; None for an op without a filter, or of float32 data."""
        found = WEIGHTED.get(self.view.op)
        if found is None or len(self.view.inputs) <= found.filter or self.view.output().dtype == "float32":
            return None
        shape, data = self.view.input(found.filter).shape, self.view.input(found.filter).data
        if self.view.op == "com.microsoft:QGemm" and self.view.integer("transB", 0):
            return replace(found, out_axis=0, in_axis=1)
        if self.view.op == "QLinearConv" and len(shape) != 4:
            return replace(found, taps=())  # over one or three axes no tap is sought
        if self.view.op == "QLinearMatMul" and (data is None or data.ndim != 2):
            return None
        return found

    @property
    def rule(self) -> Rule:
        """How the layer rounds."""
        return self.program.steps[self.layer].rule

    @cached_property
    def own(self) -> LayerResult:
        """What the layer gives as it is, with its accumulators."""
        return self.program.run_layer(self.layer, self.inputs, accumulator=True)

    @cached_property
    def work(self) -> int:
        """Products of one run; a value counts as :data:`VALUE_WORK`."""
        values = sum(math.prod(tensor.shape) for tensor in self.view.outputs)
        return count(self.graph).layers[self.layer].macs + VALUE_WORK * values

    @property
    def cost(self) -> int:
        """What running a changed layer takes, in products of a kernel."""
        return self.work * (SPEC_COST if self.work <= SPEC_WORK else 1)

    @cached_property
    def differing(self) -> Array:
        """Which values of the first output differ."""
        return np.asarray(self.own.outputs[0] != self.found[0])

    @cached_property
    def differing_channels(self) -> tuple[int, ...]:
        """Channels of the first output in which a value differs; () for an op without a filter."""
        if self.weighted is None:
            return ()
        moved = np.moveaxis(self.differing, self.weighted.channel_axis, -1)
        return tuple(np.flatnonzero(moved.reshape(-1, moved.shape[-1]).any(axis=0)).tolist())

    def gives(self, outputs: Sequence[Array] | None) -> bool:
        """Whether ``outputs`` are the values found, every one."""
        return outputs is not None and all(
            a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
            for a, b in zip(outputs, self.found, strict=True)
        )

    def run(self, view: LayerView, data: Array | None = None) -> Sequence[Array] | None:
        """What a changed layer gives, with ``data`` for its filtered input if given; None where nothing does.

        Constants are those of ``view``.
        """
        values: list[Array | None] = [
            None if tensor is None else tensor.data if tensor.data is not None else value
            for tensor, value in zip(view.inputs, self.inputs, strict=True)
        ]
        if data is not None and self.weighted is not None:
            values[self.weighted.data] = data
        if self.work > SPEC_WORK:
            try:
                step = prepare_step(view, self.program.profile, self.program.target)
                return self.program.run_step(step, values).outputs
            except ModelError:
                if self.work > MOST_SPEC_WORK:
                    return None
        try:
            return OPS[view.op].spec(view, values, self.rule).outputs
        except (KaratError, ArithmeticError, ValueError, IndexError):  # a layer that no check has seen
            return None


def with_input(view: LayerView, position: int, tensor: Tensor) -> LayerView:
    """The layer with another tensor as input ``position``."""
    return replace(view, inputs=(*view.inputs[:position], tensor, *view.inputs[position + 1 :]))


def with_output(view: LayerView, tensor: Tensor) -> LayerView:
    """The layer with another first output."""
    return replace(view, outputs=(tensor, *view.outputs[1:]))


def with_attributes(view: LayerView, **attributes: AttributeValue) -> LayerView:
    """The layer with other attributes."""
    layer = replace(view.layer, attributes={**view.layer.attributes, **attributes})
    return replace(view, layer=layer)


def with_data(view: LayerView, position: int, data: Array) -> LayerView:
    """The layer with other values in the constant at ``position``, of the same size."""
    tensor = view.input(position)
    return with_input(view, position, replace(tensor, data=np.array(data, order="C"), shape=data.shape))
