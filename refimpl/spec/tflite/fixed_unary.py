"""ABS, RSQRT, SQRT and NEG of int8.

Source: LiteRT 2.3 ``kernels/elementwise.cc`` and ``kernels/neg.cc``; found by experiment where it is
not that of TensorFlow Lite 2.14.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import multiply_gemmlowp, quantize_multiplier, to_int32
from karat24.refimpl.spec.shared.requirements import operand, require
from karat24.refimpl.spec.tflite.float_table import check_table
from karat24.refimpl.spec.tflite.l2_normalization import inverse_square_root

MORE_BITS = 20
"""Fractional bits of a reciprocal root."""


def check_fixed_unary(view: LayerView) -> None:
    """One int8 input; the output has its shape, and any parameters whose ratio does not overflow int32."""
    check_table(view, ("int8",))
    shift = {"ABS": _abs_multiplier, "RSQRT": _rsqrt_multiplier}.get(view.op, lambda _: (0, 0))(view)[1]
    if shift > 22:
        raise UnsupportedOp(f"{view}: the scales' ratio needs a left shift of {shift} bits, which overflows")
    if view.op == "RSQRT" and shift < MORE_BITS - 31:
        raise UnsupportedOp(
            f"{view}: 1 / (sqrt(s_in) * s_out) needs a right shift of {MORE_BITS - shift} bits, and C "
            "defines 31 at most; check the scales"
        )


def fixed_unary(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """The function the op names, of ``x = q - zero_point``.

    ABS ``gemmlowp``: the ratio of scales as a fixed-point multiplier, left out where the scales are equal.
    RSQRT ``gemmlowp``: the reciprocal root by Newton's method, with 20 fractional bits; 0 gives 127.
    SQRT ``truncates``: ``trunc(sqrt(x * s_in) / s_out)`` in float32, so that errors of -0.9 LSB are usual.
    NEG ``ignores_parameters``: ``-q`` modulo 256, whatever the scales and zero points.
    Raises ModelError for a root of a negative value, at which the runtimes stop.
    """
    data, output = operand(values, 0).astype(np.int64), view.output()
    if view.op == "NEG":
        if rule.method != "ignores_parameters":
            raise ModelError(f"{view}: NEG by {rule.method!r} is not defined")
        return SpecResult(((-data).astype(np.int8),))
    x = data - view.input(0).zero_point
    if view.op != "ABS":
        require(view, bool((x >= 0).all()), "a root of a negative value; the runtimes stop at it")
    result = {"ABS": _abs, "RSQRT": _rsqrt, "SQRT": _sqrt}[view.op](view, x)
    return SpecResult((np.clip(result, -128, 127).astype(np.int8).reshape(output.shape),))


def _abs_multiplier(view: LayerView) -> tuple[int, int]:
    with np.errstate(over="ignore"):
        ratio = np.float32(view.input(0).scale) / np.float32(view.output().scale)
    return quantize_multiplier(float(ratio))


def _abs(view: LayerView, x: Array) -> Array:
    if view.input(0).scale == view.output().scale:
        return np.abs(x) + view.output().zero_point
    return multiply_gemmlowp(np.abs(x), *_abs_multiplier(view)) + view.output().zero_point


def _rsqrt_multiplier(view: LayerView) -> tuple[int, int]:
    """The multiplier and shift of ``1 / (sqrt(s_in) * s_out)``, the product in float32."""
    with np.errstate(over="ignore", under="ignore"):
        product = float(np.sqrt(np.float32(view.input(0).scale)) * np.float32(view.output().scale))
    return quantize_multiplier(1.0 / product if product else math.inf)


def _rsqrt(view: LayerView, x: Array) -> Array:
    multiplier, shift = _rsqrt_multiplier(view)
    zero_point = view.output().zero_point
    table = np.full(256, 127, np.int64)
    for value in range(1, 256):
        root, halvings = inverse_square_root(value)
        reciprocal = multiply_gemmlowp(1, root, halvings + MORE_BITS)
        table[value] = int(multiply_gemmlowp(reciprocal, multiplier, shift - MORE_BITS)) + zero_point
    return np.asarray(table[x])


def _sqrt(view: LayerView, x: Array) -> Array:
    with np.errstate(over="ignore"):
        root = np.sqrt(x.astype(np.float32) * np.float32(view.input(0).scale))
        return (
            np.asarray(to_int32(np.trunc(root / np.float32(view.output().scale)))) + view.output().zero_point
        )
