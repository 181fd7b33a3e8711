"""Convolutions over one axis, ``[batch, channel, x]``, computed on images of one row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from karat24.refimpl.contract import Kernel, Prepare, Target, Values
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.profiles.rules import Rule


def prepare_one_row(
    prepare: Prepare, view: LayerView, rule: Rule, target: Target, filter_: int = 3
) -> Kernel | None:
    """The kernel that ``prepare`` gives for the layer on images of one row; None where it gives none.

    Input 0 is the data, ``filter_`` the position of the filter: 3 in QLinearConv.
    """
    wide = {
        name: (0, values[0], 0, values[1]) if name == "pads" else (1, *values)
        for name in ("kernel_shape", "strides", "dilations", "pads")
        if (values := view.integers(name, ()))
    }
    layer = dataclasses.replace(view.layer, attributes={**view.layer.attributes, **wide})
    tensors = tuple(
        _one_row(tensor) if tensor is not None and position in (0, filter_) else tensor
        for position, tensor in enumerate(view.inputs)
    )
    output = _one_row(view.output())
    kernel = prepare(LayerView(layer, tensors, (output,)), rule, target)
    return None if kernel is None else OneRowKernel(kernel, output.shape)


@dataclasses.dataclass(frozen=True)
class OneRowKernel:
    """A layer that ``kernel`` computes on images of one row; ``shape`` is its output's there."""

    kernel: Kernel
    shape: tuple[int, ...]

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        rows = [operand(inputs, 0)[:, :, None, :], *inputs[1:]]
        sums = None if accumulator is None else accumulator.reshape(self.shape)
        self.kernel(rows, [outputs[0].reshape(self.shape)], sums)


def _one_row(given: Tensor) -> Tensor:
    """``[batch, channel, x]`` as ``[batch, channel, 1, x]``."""
    data = None if given.data is None else given.data[:, :, None, :]
    shape = (*given.shape[:2], 1, given.shape[2])
    return dataclasses.replace(given, shape=shape, data=data, shape_signature=None)
