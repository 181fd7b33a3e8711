"""CONCATENATION: inputs side by side along one axis."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import DTYPES, Array, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import (
    effective_multiplier,
    requantize,
    round_half_away,
    to_int32,
    wrap32,
)
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require_activation,
    require_arity,
    require_dtype,
    require_quantized,
    require_rank,
    require_same_dtype,
    require_same_quantization,
    require_shape,
    require_symmetric,
    resolve_axis,
)


def check_concatenation(view: LayerView) -> None:
    """One or more inputs of one element type and rank, of equal sizes except along the axis.

    int8 inputs share the output's scale and zero point; uint8 inputs may have others and are then
    requantized. No fused activation.
    """
    require_arity(view, max(len(view.inputs), 1))
    output = view.output()
    require_dtype(view, output, (*QUANTIZED_8, "int16", "int32", "int64", "float32", "bool"))
    require_activation(view, ("NONE",))
    first = view.input(0)
    require_rank(view, first, 1, 8)
    axis = resolve_axis(view, view.integer("axis"), len(first.shape))
    total = 0
    for position in range(len(view.inputs)):
        tensor = view.input(position)
        require_same_dtype(view, output, tensor)
        require_rank(view, tensor, len(first.shape))
        require_shape(view, tensor, (*first.shape[:axis], tensor.shape[axis], *first.shape[axis + 1 :]))
        total += tensor.shape[axis]
        if output.dtype == "uint8":
            require_quantized(view, tensor, output)
        else:
            require_same_quantization(view, tensor, output)
            if output.quantization is not None:
                require_symmetric(view, output)
    require_shape(view, output, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def concatenation(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Copies inputs, and requantizes uint8 inputs with parameters of their own."""
    if rule.method not in ("reference", "exact", "float32_half_even"):
        raise ModelError(f"{view}: {rule.method!r} is not defined for this op")
    output = view.output()
    axis = view.integer("axis") % len(output.shape)
    parts = [_part(view.input(i), output, operand(values, i), rule) for i in range(len(view.inputs))]
    return SpecResult((np.concatenate(parts, axis=axis),))


def _part(tensor: Tensor, output: Tensor, data: Array, rule: Rule) -> Array:
    """TFLite's ``ConcatenationWithScaling``: float32, the zero point folded into a bias.

    By ``float32_half_even`` the value without its zero point is multiplied by ``s_in / s_out``.
    """
    if output.dtype != "uint8" or (tensor.scale, tensor.zero_point) == (output.scale, output.zero_point):
        return data
    if rule.method == "float32_half_even":
        centred = data.astype(np.int64) - tensor.zero_point
        effective = effective_multiplier(rule.multiplier, tensor.scale, 1.0, output.scale)
        return requantize(centred, effective, rule, output.zero_point, 0, 255).astype(DTYPES["uint8"])
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.float32(tensor.scale) * (np.float32(1) / np.float32(output.scale))
        bias = np.float32(-tensor.zero_point) * scale
        steps = round_half_away(data.astype(np.float32) * scale + bias)
    return np.clip(wrap32(to_int32(steps) + output.zero_point), 0, 255).astype(DTYPES["uint8"])
