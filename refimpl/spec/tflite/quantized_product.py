"""REDUCE_PROD of int8 and int16 over any axes."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import multiply_q15, quantize_multiplier
from karat24.refimpl.spec.shared.requirements import operand, require_quantized, require_symmetric
from karat24.refimpl.spec.tflite.mean import reduced_axes

MAX_SHIFT = 14
"""The 64-bit product of a Q0.15 multiplier is shifted right by 15 less the multiplier's left shift."""


def require_quantized_product(view: LayerView, axes: tuple[int, ...]) -> None:
    """Requires parameters of both tensors, and a multiplier that can be applied."""
    data, output = view.input(0), view.output()
    require_quantized(view, data, output)
    require_symmetric(view, data, output)
    if quantize_multiplier(_multiplier(view, axes))[1] > MAX_SHIFT:
        raise UnsupportedOp(f"{view}: s_in / s_out^(1/n) needs a left shift of more than {MAX_SHIFT} bits")


def quantized_product(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """The product of n values, multiplied by ``s_in / s_out^(1/n)`` after each factor.

    The zero point is added after the last multiplication. ``q15``: TFLite
    ``reference_ops::QuantizedReduceProd``, which multiplies in int64. ``ignores_parameters``: LiteRT's
    optimised kernels copy where n is 1.
    """
    if rule.method == "ignores_parameters":
        return SpecResult((operand(values, 0).reshape(view.output().shape),))
    if rule.method != "q15":
        raise ModelError(f"{view}: REDUCE_PROD by {rule.method!r} is not defined")
    data, output = view.input(0), view.output()
    axes = reduced_axes(view)
    kept = [axis for axis in range(len(data.shape)) if axis not in axes]
    centred = operand(values, 0).astype(np.int64) - data.zero_point
    factors = centred.transpose(*kept, *axes).reshape(-1, math.prod(data.shape[axis] for axis in axes))
    multiplier, shift = quantize_multiplier(_multiplier(view, axes))
    product = factors[:, 0]
    for column in factors.T[1:]:
        product = multiply_q15(product * column, multiplier, shift)
    result = multiply_q15(product, multiplier, shift) + output.zero_point
    clipped = np.clip(result, *QUANTIZED_RANGE[output.dtype])
    return SpecResult((clipped.astype(operand(values, 0).dtype).reshape(output.shape),))


def _multiplier(view: LayerView, axes: tuple[int, ...]) -> float:
    data, output = view.input(0), view.output()
    return data.scale / math.pow(output.scale, 1.0 / math.prod(data.shape[axis] for axis in axes))
