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
    loop, a and b change places. By ``float32_zero_point_first`` products are rounded before they are added.
    """
    require_method(view, rule, "float32_fused", "float32_zero_point_first")
    multiply_add = _multiply_and_add if rule.method == "float32_zero_point_first" else fused_multiply_add
    (a, b), (left, right, output) = (operand(values, 0), operand(values, 3)), _parameters(view)
    if left_is_scalar(a.shape, b.shape):
        a, b, left, right = b, a, right, left
    ratio_a, ratio_b = left.scale / output.scale, right.scale / output.scale
    zero_a, zero_b = left.zero_point.astype(np.float32), right.zero_point.astype(np.float32)
    shift = multiply_add(ratio_a, zero_a, ratio_b * zero_b)
    fixed = np.float32(zero_of(output)) - shift
    shape = view.output().shape
    inner = multiply_add(_real(b, shape), ratio_b, fixed)
    return _stored(view, multiply_add(_real(a, shape), ratio_a, inner), output)


def _multiply_and_add(a: Array, b: Array, c: Array) -> Array:
    return np.asarray(a * b + c, np.float32)


def qlinear_mul(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``rint(f32((a - zp_a) * (b - zp_b)) * f32(f32(s_a * s_b) / s_c) + zp_c)``, float32, not fused; by
    another method that product requantized so."""
    left, right, output = _parameters(view)
    product = (operand(values, 0).astype(np.int64) - left.zero_point) * (
        operand(values, 3).astype(np.int64) - right.zero_point
    )
    if rule.method == "unspecified":
        rule = Rule("float32_zero_point_first", "float32")
    product = np.broadcast_to(product, view.output().shape)
    result = requantize(view, rule, product, effective(rule, left, right, output), output)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),))


def _real(stored: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(stored.astype(np.float32), shape)


def _stored(view: LayerView, reals: Array, output: Affine) -> SpecResult:
    bounded = np.clip(np.rint(reals), np.float32(output.low), np.float32(output.high))
    return SpecResult((bounded.reshape(view.output().shape).astype(DTYPES[view.output().dtype]),))
