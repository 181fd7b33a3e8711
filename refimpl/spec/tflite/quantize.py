"""QUANTIZE: from float32 to 8 or 16 bits, or from 8 or 16 bits to another scale, zero point or type."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.shared.primitives import (
    effective_multiplier,
    in_blocks,
    requantize,
    round_half_away,
    to_int32,
    to_nearest_int32,
    wrap32,
)
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    operand,
    require_arity,
    require_dtype,
    require_quantized,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.shared.scales import require_multiplier


def check_quantize(view: LayerView) -> None:
    """One float32, int8, uint8 or int16 input; an int8, uint8 or int16 output of the same shape."""
    require_arity(view, 1)
    input_, output = view.input(0), view.output()
    require_dtype(view, input_, (*QUANTIZED, "float32"))
    require_dtype(view, output, QUANTIZED)
    require_shape(view, output, input_.shape)
    require_quantized(view, output)
    if input_.dtype != "float32":
        require_quantized(view, input_)
        if input_.dtype == output.dtype:
            require_symmetric(view, input_, output)
        require_multiplier(view, input_.scale / output.scale, "s_in / s_out")


def quantize(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``x / scale + zero_point`` or ``(q - zero_point_in) * s_in / s_out + zero_point``, clamped."""
    input_, output = view.input(0), view.output()
    data = operand(values, 0)
    low, high = QUANTIZED_RANGE[output.dtype]
    if input_.dtype == "float32":

        def by(method: Method) -> Array:
            steps = _steps(view, method, data)
            if rule.overflow == "saturates":
                steps = np.where(steps < high - output.zero_point, steps, high - output.zero_point)
                steps = np.maximum(steps, low - output.zero_point)
            if rule.overflow == "arm_saturates":
                return np.asarray(np.clip(to_nearest_int32(steps) + output.zero_point, low, high))
            whole = to_nearest_int32(steps) if rule.overflow == "arm_wraps" else to_int32(steps)
            return np.clip(wrap32(whole + output.zero_point), low, high)

        result = in_blocks(rule, output.shape, by)
    else:
        centred = data.astype(np.int64) - input_.zero_point
        if rule.method == "xnnpack":
            result = np.clip(_xnnpack(view, centred) + output.zero_point, low, high)
        else:
            effective = effective_multiplier(rule.multiplier, input_.scale, 1.0, output.scale)
            result = requantize(centred, effective, rule, output.zero_point, low, high)
    return SpecResult((result.astype(DTYPES[output.dtype]),))


def _steps(view: LayerView, method: Method, data: Array) -> Array:
    """Quantization steps from real zero, rounded to whole numbers, as floating-point values."""
    scale = np.float32(view.output().scale)
    with np.errstate(over="ignore"):
        if method == "divide_float32":
            return round_half_away(data / scale)
        if method == "divide_float64":
            return round_half_away(data.astype(np.float64) / np.float64(scale))
        if method == "reciprocal_half_even":
            return np.asarray(np.rint(data * (np.float32(1) / scale)))
    raise UnsupportedOp(f"{view}: {method!r} is not defined for this op")


def _xnnpack(view: LayerView, centred: Array) -> Array:
    """XNNPACK: the multiplier has 8 fractional bits, and the product is rounded half up."""
    ratio = np.float32(view.input(0).scale) / np.float32(view.output().scale)
    multiplier = int(np.rint(np.float32(256) * ratio))
    return (centred * multiplier + 128) >> 8
