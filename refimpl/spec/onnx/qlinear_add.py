"""QLinearAdd and QLinearMul (com.microsoft): broadcasting sums and products of quantized tensors."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.onnx.broadcast import left_is_scalar
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import effective, requantize, require_method
from karat24.refimpl.spec.onnx.parameters import Affine, affine
from karat24.refimpl.spec.onnx.sums import zero_of
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    broadcast_shape,
    operand,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.shared.scales import require_multiplier


def check_qlinear_binary(view: LayerView) -> None:
    """Inputs: a, scale, zero point, b, scale, zero point, output scale, optional zero point."""
    require_arity(view, 7, optional=1)
    require_dtype(view, view.output(), QUANTIZED_8)
    require_same_dtype(view, view.output(), view.input(0), view.input(3))
    require_shape(view, view.output(), broadcast_shape(view, view.input(0), view.input(3)))
    left, right, output = (float(p.scale[0]) for p in _parameters(view))
    require_multiplier(view, max(left, right, left * right) / output, "a_scale * b_scale / y_scale")


def _parameters(view: LayerView) -> tuple[Affine, Affine, Affine]:
    dtype = view.output().dtype
    return affine(view, 1, 2, dtype), affine(view, 4, 5, dtype), affine(view, 6, 7, dtype)


def qlinear_add(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``rint(a * ra + (b * rb + fixed))`` with ``ra = f32(s_a / s_c)``, every product fused into its sum.

    ``fixed = f32(zp_c - fma(ra, zp_a, f32(rb * zp_b)))``. Where a is a single value in the innermost
    loop, a and b change places. By ``float32_zero_point_first`` products are rounded before they are added;
    ``int32_half_away`` is :func:`_sum_on_arm`.
    """
    require_method(view, rule, "float32_fused", "float32_zero_point_first", "int32_half_away")
    multiply_add = _multiply_and_add if rule.method == "float32_zero_point_first" else fused_multiply_add
    (a, b), (left, right, output) = (operand(values, 0), operand(values, 3)), _parameters(view)
    if left_is_scalar(a.shape, b.shape):
        a, b, left, right = b, a, right, left
    if rule.method == "int32_half_away":
        return _stored(view, _sum_on_arm(a, left, b, right, output), output)
    ratio_a, ratio_b = left.scale / output.scale, right.scale / output.scale
    zero_a, zero_b = left.zero_point.astype(np.float32), right.zero_point.astype(np.float32)
    shift = multiply_add(ratio_a, zero_a, ratio_b * zero_b)
    fixed = np.float32(zero_of(output)) - shift
    shape = view.output().shape
    inner = multiply_add(_real(b, shape), ratio_b, fixed)
    return _stored(view, multiply_add(_real(a, shape), ratio_a, inner), output)


LEAST_RATIO, BEYOND_RATIO = np.float32(2.0**-14), np.float32(256)
MULTIPLIER_BITS = 22
LARGEST_SHIFT = 31


def _integer_multipliers(ratio_a: np.float32, ratio_b: np.float32) -> tuple[int, int, int] | None:
    """Both ratios times ``2**shift`` as integers, of which the greater has 22 bits, and the shift.

    None where one ratio is too small or too large, the shift too long, or the greater one, rounded, has 23.
    """
    if not all(LEAST_RATIO <= ratio < BEYOND_RATIO for ratio in (ratio_a, ratio_b)):
        return None
    _, exponent = np.frexp(max(ratio_a, ratio_b))
    shift = MULTIPLIER_BITS - int(exponent)
    left, right = (int(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in (ratio_a, ratio_b))
    return (left, right, shift) if shift <= LARGEST_SHIFT and max(left, right) < 2**MULTIPLIER_BITS else None


def _sum_on_arm(a: Array, left: Affine, b: Array, right: Affine, output: Affine) -> Array:
    """``zp_c + (a' * ma + b' * mb) / 2**shift``, the quotient rounded half away from zero, before clamping.

    a' and b' are the values less their zero points. Where the ratios of the scales make no such integers:
    ``rint(f32(fma(s_a, a', f32(s_b * b')) / s_c) + zp_c)`` in float32, the quotient clamped.
    Source: ``MlasQLinearAddKernelHelper`` for NEON, ONNX Runtime 1.32.0, ``core/mlas/lib/qladd.cpp``; that
    the product is fused is its compiler's doing, seen by running it.
    """
    zero_point = zero_of(output)
    a, b = a.astype(np.int64) - zero_of(left), b.astype(np.int64) - zero_of(right)
    scale_a, scale_b, scale_c = left.scale[0], right.scale[0], output.scale[0]
    multipliers = _integer_multipliers(scale_a / scale_c, scale_b / scale_c)
    if multipliers is not None:
        total = a * multipliers[0] + b * multipliers[1]
        half = 1 << (multipliers[2] - 1)
        return np.asarray(np.sign(total) * ((np.abs(total) + half) >> multipliers[2]) + zero_point)
    addend = scale_b * b.astype(np.float32)
    a, addend = np.broadcast_arrays(a.astype(np.float32), addend)
    quotient = fused_multiply_add(a, scale_a, addend) / scale_c
    low, high = np.float32(output.low - zero_point), np.float32(output.high - zero_point)
    return np.asarray(np.clip(quotient, low, high) + np.float32(zero_point))


def _multiply_and_add(a: Array, b: Array, c: Array) -> Array:
    return np.asarray(a * b + c, np.float32)


def qlinear_mul(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``rint(f32((a - zp_a) * (b - zp_b)) * f32(f32(s_a * s_b) / s_c) + zp_c)``, float32, product and sum
    rounded once by ``float32_fused``, else each; by another method that product requantized so."""
    left, right, output = _parameters(view)
    product = (operand(values, 0).astype(np.int64) - left.zero_point) * (
        operand(values, 3).astype(np.int64) - right.zero_point
    )
    if rule.method == "unspecified":
        rule = Rule("float32_zero_point_first", "float32")
    product = np.broadcast_to(product, view.output().shape)
    if rule.method == "float32_fused":
        ratio = effective(rule, left, right, output)
        zero_point = np.float32(zero_of(output))
        return _stored(view, fused_multiply_add(product.astype(np.float32), ratio, zero_point), output)
    result = requantize(view, rule, product, effective(rule, left, right, output), output)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),))


def _real(stored: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(stored.astype(np.float32), shape)


def _stored(view: LayerView, reals: Array, output: Affine) -> SpecResult:
    bounded = np.clip(np.rint(reals), np.float32(output.low), np.float32(output.high))
    return SpecResult((bounded.reshape(view.output().shape).astype(DTYPES[view.output().dtype]),))
