"""DIV of int8, uint8 and int16, by a reciprocal in fixed point."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import (
    quantize_multiplier,
    saturating_rounding_doubling_high_mul,
    wrap32,
)
from karat24.refimpl.spec.shared.scales import require_multiplier
from karat24.refimpl.spec.tflite.binary import bounds, stored, zero_points_removed
from karat24.refimpl.spec.tflite.softmax import one_over_one_plus


def require_quotient(view: LayerView) -> None:
    """Requires a multiplier of the three scales that is finite, also in float32."""
    for multiplier in ("float32", "float64"):
        require_multiplier(view, _quotient_of_scales(view, multiplier), "s_left / (s_right * s_out)")


def quantized_div(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """The quotient of both operands without zero points, times ``s_left / (s_right * s_out)``.

    Source: TFLite ``DivElementwise``. Where a small numerator meets a large divisor, more often in int16, its
    last shift is larger than C allows: the runtimes then give wrong quotients, and this function gives them,
    too.
    Raises ModelError for a divisor that stands for 0, which the runtimes refuse.
    """
    if rule.method != "gemmlowp":
        raise ModelError(f"{view}: DIV by {rule.method!r} is not defined")
    left, right = zero_points_removed(view, values)
    if not right.all():
        raise ModelError(f"{view}: division by 0")
    quotient = _by_reciprocal(left, right, _quotient_of_scales(view, rule.multiplier))
    return stored(view, np.clip(wrap32(quotient + view.output().zero_point), *bounds(view, rule)))


def _quotient_of_scales(view: LayerView, multiplier: str) -> float:
    """The multiplier, in float64 or with each operation in float32."""
    left, right, output = (tensor.scale for tensor in (view.input(0), view.input(1), view.output()))
    if multiplier == "float64":
        return left / (right * output)
    with np.errstate(all="ignore"):
        return float(np.float32(left) / (np.float32(right) * np.float32(output)))


def _by_reciprocal(left: Array, right: Array, scale: float) -> Array:
    multiplier, shift = quantize_multiplier(scale)
    numerator, divisor = np.where(right < 0, -left, left), np.abs(right)
    width = _bits(divisor)
    reciprocal = one_over_one_plus((divisor << (32 - width)) - 2**31)
    magnitude = np.where(numerator < 0, ~numerator, numerator)
    headroom = 31 - _bits(magnitude)
    unscaled = saturating_rounding_doubling_high_mul(wrap32(numerator << headroom), reciprocal)
    places = headroom + width - 1 - shift
    return _divided_by_power(saturating_rounding_doubling_high_mul(unscaled, multiplier), places)


def _bits(values: Array) -> Array:
    """The bit length of each value from 0 to 2^16."""
    return np.asarray(np.frexp(values.astype(np.float64))[1], np.int64)


def _divided_by_power(x: Array, places: Array) -> Array:
    """``x / 2^places`` rounded half away from zero, for 0 to 31 places. C leaves larger shifts undefined;
    they give the results of gemmlowp's code on x86-64, which takes counts modulo 64 and 32."""
    mask = wrap32((np.int64(1) << (places & 63)) - 1)
    threshold = (mask >> 1) + (x < 0)
    return wrap32((x >> (places & 31)) + ((x & mask) > threshold))
