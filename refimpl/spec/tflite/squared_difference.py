"""SQUARED_DIFFERENCE of int8: operands are brought to one scale, subtracted, squared and rescaled."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import multiply_gemmlowp, quantize_multiplier
from karat24.refimpl.spec.shared.requirements import (
    broadcast_shape,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.tflite.binary import BROADCAST_RANK, stored, zero_points_removed

LEFT_SHIFT = 7
"""Fractional bits of a scaled operand."""


def check_squared_difference(view: LayerView) -> None:
    """Two int8 inputs, an output of the broadcast shape, all with any parameters."""
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
    require_dtype(view, left, ("int8",))
    require_same_dtype(view, left, right, output)
    require_quantized(view, left, right, output)
    require_elements(view, output)
    require_shape(view, output, broadcast_shape(view, left, right))
    if left.shape != right.shape and len(output.shape) > BROADCAST_RANK:
        raise UnsupportedOp(
            f"{view}: shapes {left.shape} and {right.shape} are broadcast over {len(output.shape)} "
            f"dimensions; at most {BROADCAST_RANK} are implemented"
        )
    shift = quantize_multiplier(_output_ratio(view))[1]
    if shift > 0:
        raise UnsupportedOp(
            f"{view}: a square of the inputs' scale over the output's needs a left shift of {shift} bits, "
            "which can overflow int32"
        )


def _double_scale(view: LayerView) -> float:
    return 2.0 * max(view.input(0).scale, view.input(1).scale)


def _output_ratio(view: LayerView) -> float:
    scale = _double_scale(view)
    return scale * scale / (2.0 ** (2 * LEFT_SHIFT) * view.output().scale)


def squared_difference(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - one form
    """``rescale((rescale(a * 2^7) - rescale(b * 2^7))^2) + z_out``, with gemmlowp's rescaling.

    The multiplier of an operand is half its scale over the larger one. Source: TFLite
    ``kernels/squared_difference.cc``.
    """
    scaled = [
        multiply_gemmlowp(operand << LEFT_SHIFT, *quantize_multiplier(tensor.scale / _double_scale(view)))
        for operand, tensor in zip(
            zero_points_removed(view, values), (view.input(0), view.input(1)), strict=True
        )
    ]
    difference = scaled[0] - scaled[1]
    multiplier, shift = quantize_multiplier(_output_ratio(view))
    result = multiply_gemmlowp(difference * difference, multiplier, shift) + view.output().zero_point
    return stored(view, np.clip(result, -128, 127))
