"""LEAKY_RELU: ``x`` above zero, ``alpha * x`` below."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import (
    effective_multiplier,
    multiply_gemmlowp,
    quantize_multiplier,
)
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    operand,
    require_arity,
    require_dtype,
    require_quantized,
    require_same_dtype,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.shared.scales import require_multiplier


def check_leaky_relu(view: LayerView) -> None:
    """One int8, uint8 or int16 input; an output of the same type and shape; a finite ``alpha``."""
    require_arity(view, 1)
    input_, output = view.input(0), view.output()
    require_dtype(view, input_, QUANTIZED)
    require_same_dtype(view, input_, output)
    require_shape(view, output, input_.shape)
    require_quantized(view, input_, output)
    require_symmetric(view, input_, output)
    require_multiplier(view, input_.scale / output.scale, "s_in / s_out")
    require_multiplier(view, input_.scale * view.real("alpha") / output.scale, "s_in * alpha / s_out")


def leaky_relu(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """LEAKY_RELU, with a multiplier for each sign."""
    input_, output = view.input(0), view.output()
    centred = operand(values, 0).astype(np.int64) - input_.zero_point
    alpha = np.float32(view.real("alpha"))
    low, high = QUANTIZED_RANGE[output.dtype]
    if rule.method == "xnnpack":
        result = np.clip(_xnnpack(view, centred, alpha) + output.zero_point, low, high)
    else:
        below = _scaled(view, rule, centred, alpha)
        result = np.clip(
            np.where(centred >= 0, _scaled(view, rule, centred, np.float32(1)), below) + output.zero_point,
            low,
            high,
        )
    return SpecResult((result.astype(DTYPES[output.dtype]),))


def _scaled(view: LayerView, rule: Rule, centred: Array, slope: np.float32) -> Array:
    """``centred * slope * s_in / s_out``; ``gemmlowp`` applies a negative slope's sign after rounding."""
    real = float(effective_multiplier(rule.multiplier, view.input(0).scale, slope, view.output().scale))
    if rule.method == "gemmlowp_signed":
        return multiply_gemmlowp(centred, *quantize_multiplier(real))
    if rule.method == "gemmlowp":
        scaled = multiply_gemmlowp(centred, *quantize_multiplier(abs(real)))
        return -scaled if real < 0 else scaled
    raise UnsupportedOp(f"{view}: {rule.method!r} is not defined for this op")


def _xnnpack(view: LayerView, centred: Array, alpha: np.float32) -> Array:
    """XNNPACK: multipliers have 8 fractional bits, and the product is rounded half up."""
    above = np.float32(view.input(0).scale) / np.float32(view.output().scale)
    below = above * alpha
    multiplier_above = int(np.rint(np.float32(256) * above))
    multiplier_below = int(np.rint(np.float32(256) * below))
    products = np.where(centred < 0, centred * multiplier_below, centred * multiplier_above)
    return np.asarray((products + 128) >> 8, np.int64)
