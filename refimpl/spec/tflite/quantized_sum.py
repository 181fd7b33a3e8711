"""SUM of int8, uint8 and int16 over any axes."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.primitives import (
    multiply_gemmlowp,
    quantize_multiplier,
    round_half_away,
    wrap16,
)
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_quantized,
    require_symmetric,
)
from karat24.refimpl.spec.tflite.mean import MAX_COUNT, reduced_axes


def require_quantized_sum(view: LayerView, axes: tuple[int, ...]) -> None:
    """Requires parameters of both tensors, and a rescaled sum that cannot overflow int32."""
    data, output = view.input(0), view.output()
    require_quantized(view, data, output)
    require_symmetric(view, data, output)
    largest, most = (2**15, 2**15) if data.dtype == "int16" else (255, MAX_COUNT)
    count = math.prod(data.shape[axis] for axis in axes)
    require(view, count < most, f"a sum of {count} values; at most {most - 1} are handled")
    ratio = data.scale / output.scale
    if not (math.isfinite(ratio) and largest * count * 2.0 ** quantize_multiplier(ratio)[1] < 2**30):
        raise UnsupportedOp(f"{view}: the scales' ratio {ratio} makes the sum overflow int32")


def quantized_sum(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``(sum - n * z_in) * s_in / s_out + z_out`` by the rule's method.

    ``gemmlowp``: as MEAN's reference, without the division (TFLite ``reference_ops::QuantizedMeanOrSum``).
    ``reads_uint8``: LiteRT's reference kernel reads the bytes of int8 tensors as uint8 values, does the same
    arithmetic and stores uint8 values (google-ai-edge/LiteRT#4079). ``optimized``: float32, with the zero
    point in an addend of its own, rounded half away from zero. ``xnnpack``: as XNNPACK's MEAN. On Arm the
    products and sums of these two are fused. ``exact``: tflite-runtime 2.14 adds int16 values of one scale
    in 16 bits, which wrap.
    """
    data, output = operand(values, 0), view.output()
    axes = reduced_axes(view)
    count = math.prod(view.input(0).shape[axis] for axis in axes)
    low, high = QUANTIZED_RANGE[output.dtype]
    if rule.method == "reads_uint8":
        total = data.view(np.uint8).astype(np.int64).sum(axis=axes).reshape(output.shape)
        stored = np.clip(_by_multiplier(view, total, count), 0, 255).astype(np.uint8)
        return SpecResult((stored.view(np.int8),))
    total = data.astype(np.int64).sum(axis=axes).reshape(output.shape)
    if rule.method == "exact":
        result = wrap16(total)
    elif rule.method == "gemmlowp":
        result = _by_multiplier(view, total, count)
    elif rule.method in ("optimized_fused", "xnnpack_fused"):
        result = _fused(view, total, count, rule.method == "xnnpack_fused")
    elif rule.method in ("optimized", "xnnpack"):
        result = _in_float32(view, total, count, rule.method == "xnnpack")
    else:
        raise ModelError(f"{view}: SUM by {rule.method!r} is not defined")
    return SpecResult((np.clip(result, low, high).astype(data.dtype),))


def _by_multiplier(view: LayerView, total: Array, count: int) -> Array:
    data, output = view.input(0), view.output()
    multiplier, shift = quantize_multiplier(data.scale / output.scale)
    return multiply_gemmlowp(total - count * data.zero_point, multiplier, shift) + output.zero_point


def _in_float32(view: LayerView, total: Array, count: int, xnnpack: bool) -> Array:
    data, output = view.input(0), view.output()
    scale = np.float32(data.scale) / np.float32(output.scale)
    zero, length = np.float32(data.zero_point), np.float32(count)
    sums = total.astype(np.float32) * scale
    if xnnpack:
        return np.asarray(np.rint(sums + (np.float32(output.zero_point) - zero * length * scale)), np.int64)
    return np.asarray(round_half_away(sums + -zero * scale * length), np.int64) + output.zero_point


def _fused(view: LayerView, total: Array, count: int, xnnpack: bool) -> Array:
    data, output = view.input(0), view.output()
    scale = np.float32(data.scale) / np.float32(output.scale)
    zero, length = np.float32(data.zero_point), np.float32(count)
    sums = total.astype(np.float32)
    if xnnpack:
        addend = fused_multiply_add(-zero * length, scale, np.float32(output.zero_point))
        return np.asarray(np.rint(fused_multiply_add(sums, scale, addend)), np.int64)
    steps = fused_multiply_add(sums, scale, -zero * scale * length)
    return np.asarray(round_half_away(steps), np.int64) + output.zero_point
