"""MEAN of int8, uint8 and int16 over any axes: a sum, rescaled by ``1 / n`` and the ratio of scales."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.primitives import (
    in_blocks,
    multiply_gemmlowp,
    multiply_ruy,
    quantize_multiplier,
)
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    constant_integers,
    operand,
    require,
    require_arity,
    require_dtype,
    require_quantized,
    require_same_dtype,
    require_shape,
    require_symmetric,
    resolve_axis,
)
from karat24.refimpl.spec.tflite.mean_by_multiplier import mean_by_multiplier

MAX_COUNT = 2**23
"""An int32 sum of fewer 8-bit values cannot overflow."""


def check_mean(view: LayerView) -> None:
    """Inputs: data, axes (int32 constant; negative ones count from the back, repeats count once).

    Attribute ``keep_dims`` keeps reduced dimensions as 1.
    """
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_dtype(view, output, QUANTIZED)
    require_same_dtype(view, data, output)
    require_quantized(view, data, output)
    require_symmetric(view, data, output)
    axes = reduced_axes(view)
    require_shape(view, output, reduced_shape(view, axes))
    count = math.prod(data.shape[axis] for axis in axes)
    require(view, 1 <= count < MAX_COUNT, f"mean of {count} values; 1 to {MAX_COUNT - 1} are handled")
    ratio = data.scale / output.scale
    if not (math.isfinite(ratio) and quantize_multiplier(ratio)[1] <= 30):
        raise UnsupportedOp(f"{view}: the scales' ratio {ratio} needs a left shift of more than 30 bits")


def reduced_axes(view: LayerView) -> tuple[int, ...]:
    """The axes of the sum, counted from the front, each once, in order."""
    given = constant_integers(view, 1, "the list of axes")
    return tuple(sorted({resolve_axis(view, axis, len(view.input(0).shape)) for axis in given}))


def reduced_shape(view: LayerView, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The input's shape with ``axes`` gone, or 1 under ``keep_dims``."""
    shape = view.input(0).shape
    if view.flag("keep_dims"):
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def mean(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """MEAN by the rule's method."""
    data, output = view.input(0), view.output()
    axes = reduced_axes(view)
    count = math.prod(data.shape[axis] for axis in axes)
    total = operand(values, 0).astype(np.int64).sum(axis=axes).reshape(output.shape)

    def compute(method: Method) -> Array:
        if method in ("xnnpack", "xnnpack_fused"):
            return _xnnpack(view, total, count, method == "xnnpack_fused")
        if method == "reference":
            return _reference(view, total, count)
        if method == "float32_half_even":
            return mean_by_multiplier(view, total, count, rule)
        if method in ("spatial", "spatial_ruy"):
            return _spatial(view, total, count, method)
        raise ModelError(f"{view}: MEAN by {method!r} is not defined")

    low, high = QUANTIZED_RANGE[output.dtype]
    result = np.clip(in_blocks(rule, output.shape, compute), low, high)
    return SpecResult((result.astype(operand(values, 0).dtype),))


def _reference(view: LayerView, total: Array, count: int) -> Array:
    """The division by ``count`` is put into the multiplier, with as many more bits as fit.

    Source: TFLite ``reference_ops::QuantizedMeanOrSum``.
    """
    data, output = view.input(0), view.output()
    multiplier, shift = quantize_multiplier(data.scale / output.scale)
    more = min(count.bit_length() - 1, 32, 31 + shift)
    multiplier, shift = (multiplier << more) // count, shift - more
    return multiply_gemmlowp(total - count * data.zero_point, multiplier, shift) + output.zero_point


def _spatial(view: LayerView, total: Array, count: int, method: Method) -> Array:
    """The zero points become one bias, rounded on its own. Source: TFLite ``optimized_integer_ops::Mean``."""
    data, output = view.input(0), view.output()
    scale, out_scale = np.float32(data.scale), np.float32(output.scale)
    offset = np.float32(data.zero_point) * scale / out_scale
    offset = offset + np.float32(0.5) if offset > 0 else offset - np.float32(0.5)
    bias = output.zero_point - int(np.trunc(offset))
    multiplier, shift = quantize_multiplier(float(scale / (np.float32(count) * out_scale)))
    rescale = multiply_gemmlowp if method == "spatial" else multiply_ruy
    return rescale(total, multiplier, shift) + bias


def _xnnpack(view: LayerView, total: Array, count: int, fused: bool) -> Array:
    """In float32, zero points folded into one addend, rounded half to even; on Arm both sums are fused."""
    data, output = view.input(0), view.output()
    ratio = np.float32(data.scale) / np.float32(output.scale)
    scale = ratio * (np.float32(1.0) / np.float32(count))
    zeros = np.float32(data.zero_point) * np.float32(count)
    if fused:
        fixed = fused_multiply_add(-zeros, scale, np.float32(output.zero_point))
        return np.asarray(np.rint(fused_multiply_add(total.astype(np.float32), scale, fixed)), np.int64)
    addend = np.float32(output.zero_point) - zeros * scale
    return np.asarray(np.rint(total.astype(np.float32) * scale + addend), np.int64)
