"""PACK and UNPACK: inputs stacked along a new axis, and the reverse."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_same_dtype,
    require_same_quantization,
    require_shape,
    resolve_axis,
)


def check_pack(view: LayerView) -> None:
    """Attributes: ``values_count`` inputs of one shape, stacked along the output's ``axis``."""
    count = view.integer("values_count")
    require(view, count >= 1, f"values_count is {count}")
    require_arity(view, count)
    first, output = view.input(0), view.output()
    axis = resolve_axis(view, view.integer("axis", 0), len(first.shape) + 1)
    for position in range(count):
        tensor = view.input(position)
        require_same_dtype(view, tensor, output)
        require_shape(view, tensor, first.shape)
        if output.dtype in QUANTIZED_8:
            require_same_quantization(view, tensor, output)
    require_shape(view, output, (*first.shape[:axis], count, *first.shape[axis:]))


def pack(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """PACK."""
    axis = view.integer("axis", 0) % len(view.output().shape)
    return SpecResult((np.stack([operand(values, i) for i in range(len(view.inputs))], axis=axis),))


def check_unpack(view: LayerView) -> None:
    """Attributes: the input's ``axis``, of size ``num``, is taken apart into ``num`` outputs."""
    count = view.integer("num")
    require(view, count >= 1, f"num is {count}")
    require_arity(view, 1, outputs=count)
    data = view.input(0)
    axis = resolve_axis(view, view.integer("axis", 0), len(data.shape))
    require(
        view, data.shape[axis] == count, f"num is {count}, not the size of dimension {axis} of {data.shape}"
    )
    for output in view.outputs:
        require_same_dtype(view, data, output)
        require_shape(view, output, (*data.shape[:axis], *data.shape[axis + 1 :]))
        if output.dtype in QUANTIZED_8:
            require_same_quantization(view, data, output)


def unpack(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """UNPACK."""
    data = operand(values, 0)
    axis = view.integer("axis", 0) % data.ndim
    return SpecResult(tuple(np.array(np.take(data, i, axis=axis)) for i in range(len(view.outputs))))
