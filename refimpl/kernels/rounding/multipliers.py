"""From scales to the integers a requantization multiplies and shifts by.

All of it runs once per layer, when its kernel is prepared. The multiplier is
taken from the bits of the float64, in integers, so no rounding is hidden in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, LayerView, Tensor
from karat24.refimpl.profiles.rules import Clamp, Multiplier

MAX_LEFT_SHIFT = 30
"""TFLite shifts an int32 left by this many places at most; beyond it its behaviour is undefined."""

_MANTISSA_BITS = 52
_EXPONENT_BIAS = 1023

_ACTIVATION_BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
}


def combined_scales(
    input_scale: float, filter_scales: Sequence[float], output_scale: float, precision: Multiplier
) -> NDArray[np.float64]:
    """``input_scale * filter_scale / output_scale`` per filter scale, evaluated as ``precision`` says.

    All scales are float32 values. The result is float64 in every case; with
    precision ``"float32"`` or ``"float32_reciprocal"`` each element is a float32 value.
    """
    filters = np.asarray(filter_scales, np.float32)
    if precision == "float64":
        return np.float64(input_scale) * filters.astype(np.float64) / np.float64(output_scale)
    with np.errstate(over="ignore", under="ignore"):
        product = np.float32(input_scale) * filters
        if precision == "float32_product":
            return product.astype(np.float64) / np.float64(output_scale)
        if precision == "float32":
            return (product / np.float32(output_scale)).astype(np.float64)
        if precision == "float32_reciprocal":
            return np.asarray(product * np.reciprocal(np.float32(output_scale)), np.float64)
    raise UnsupportedOp(f"a multiplier evaluated as {precision!r} has no meaning for three scales")


def rounded_products(values: NDArray[np.int64], factor: np.float32) -> NDArray[np.int64]:
    """``rint(f32(values) * factor)``, half to even, clamped far outside a byte."""
    with np.errstate(over="ignore"):
        steps = values.astype(np.float32) * factor
    return np.asarray(np.rint(np.clip(steps, np.float32(-65536), np.float32(65536))), np.int64)


def fixed_point_multipliers(
    scales: NDArray[np.float64], view: LayerView
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Each scale ``d >= 0`` as ``multiplier * 2**(shift - 31)``: Q0.31 multiplier, left shift positive.

    ``multiplier = round_half_away(f * 2**31)`` for ``d = f * 2**shift``, f in
    [0.5, 1); zero for d = 0 and for shifts below -31 (TFLite, QuantizeMultiplier).
    Raises UnsupportedOp for a scale that is not finite or that shifts an int32 out of itself.
    """
    doubles = np.ascontiguousarray(scales, np.float64)
    if not np.isfinite(doubles).all():
        raise UnsupportedOp(f"{view}: input scale * filter scale / output scale is not finite")
    bits = doubles.view(np.int64)
    exponent_field = bits >> _MANTISSA_BITS
    # d = mantissa * 2**(exponent_field - bias - 52), mantissa in [2**52, 2**53): f = mantissa / 2**53.
    mantissa = (bits & ((1 << _MANTISSA_BITS) - 1)) | (1 << _MANTISSA_BITS)
    shift = exponent_field - _EXPONENT_BIAS + 1
    dropped = _MANTISSA_BITS + 1 - 31
    multiplier = (mantissa + (1 << (dropped - 1))) >> dropped
    carried = multiplier == 1 << 31
    multiplier = np.where(carried, 1 << 30, multiplier)
    shift = shift + carried
    vanished = shift < -31  # also the subnormals, whose mantissa lacks the leading one
    multiplier, shift = np.where(vanished, 0, multiplier), np.where(vanished, 0, shift)
    if (shift > MAX_LEFT_SHIFT).any():
        raise UnsupportedOp(
            f"{view}: input scale * filter scale / output scale is {doubles.max():g}, above 2**"
            f"{MAX_LEFT_SHIFT}; the runtimes' integer arithmetic is undefined there, check the scales"
        )
    return multiplier.astype(np.int32), shift.astype(np.int32)


def output_bounds(output: Tensor, activation: str, clamp: Clamp, view: LayerView) -> tuple[int, int]:
    """``(qmin, qmax)`` of an int8/uint8 output behind a fused activation.

    ``half_away`` is TFLite's ``zp + round_half_away(f32(bound / scale))``,
    ``half_even`` XNNPACK's ``rint(f32(f32(bound / scale) + zp))``, ``reciprocal`` the Edge TPU's
    ``zp + rint(f32(bound * f32(1 / scale)))``.
    """
    if activation not in _ACTIVATION_BOUNDS:
        raise UnsupportedOp(
            f"{view}: fused activation {activation!r} has no integer kernel; "
            f"known: {', '.join(_ACTIVATION_BOUNDS)}"
        )
    qmin, qmax = QUANTIZED_RANGE[output.dtype]
    low, high = _ACTIVATION_BOUNDS[activation]
    if low is not None:
        qmin = max(qmin, _quantize_bound(low, output, clamp))
    if high is not None:
        qmax = min(qmax, _quantize_bound(high, output, clamp))
    return qmin, qmax


def _quantize_bound(bound: float, output: Tensor, clamp: Clamp) -> int:
    with np.errstate(over="ignore"):
        steps = np.float32(bound) / np.float32(output.scale)
        if clamp == "reciprocal":
            steps = np.float32(bound) * np.reciprocal(np.float32(output.scale))
    steps = np.clip(steps, np.float32(-65536), np.float32(65536))  # far outside int8 and uint8
    if clamp == "half_even":
        return int(np.rint(steps + np.float32(output.zero_point)))
    if clamp == "reciprocal":
        return output.zero_point + int(np.rint(steps))
    whole = math.floor(abs(float(steps)) + 0.5)  # exact: a float32 plus one half, in float64
    return output.zero_point + (whole if steps >= 0 else -whole)


def per_channel(values: NDArray[Any], channels: int) -> NDArray[Any]:
    """One value per output channel: ``values`` itself, or its only element repeated."""
    return np.broadcast_to(values, (channels,)) if values.size == 1 else values
