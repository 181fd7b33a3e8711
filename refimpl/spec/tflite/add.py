"""ADD and SUB: both operands are brought to a common scale, 20 bits finer than the coarser one."""

from __future__ import annotations

import math
import operator

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.profiles.tflite.broadcast import inner_loop
from karat24.refimpl.profiles.tflite.powers_of_two import shifts_operands
from karat24.refimpl.spec.shared.primitives import (
    in_blocks,
    multiply_gemmlowp,
    quantize_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
    wrap16,
)
from karat24.refimpl.spec.tflite.binary import (
    bounds,
    check_binary,
    is_plain,
    plain,
    stored,
    zero_points_removed,
)
from karat24.refimpl.spec.tflite.int16.shifted_sum import check_shifts, shifted_sum
from karat24.refimpl.spec.tflite.rational_sum import rational_sum

LEFT_SHIFT, LEFT_SHIFT_16 = 20, 15
"""Bits that operands of 8 and of 16 bits gain before they are scaled; they then use 29 and 31 bits of 32."""


def check_add(view: LayerView) -> None:
    """See :func:`check_binary`. The output multiplier must be below 1, as every runtime demands."""
    check_binary(view)
    if is_plain(view):
        return
    if _is_shifted(view):
        check_shifts(view)
        return
    _, _, of_output = _real_multipliers(view)
    if of_output >= 1.0:
        raise UnsupportedOp(
            f"{view}: the output scale {view.output().scale:.6g} is too fine for input scales "
            f"{view.input(0).scale:.6g} and {view.input(1).scale:.6g}; the runtimes refuse it"
        )


def add(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``left + right``."""
    if is_plain(view):
        return plain(view, values, operator.add)
    return _add(view, values, rule, sign=1)


def sub(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``left - right``."""
    if is_plain(view):
        return plain(view, values, operator.sub)
    return _add(view, values, rule, sign=-1)


def _is_shifted(view: LayerView) -> bool:
    return view.output().dtype == "int16" and shifts_operands(view)


def _left_shift(view: LayerView) -> int:
    return LEFT_SHIFT_16 if view.output().dtype == "int16" else LEFT_SHIFT


def _real_multipliers(view: LayerView) -> tuple[float, float, float]:
    """The multipliers of left, right and output: ``s_left / t``, ``s_right / t``, ``t / (2^20 * s_out)``.

    For int16 it is 2^15 in place of 2^20; ``t = 2 * max(s_left, s_right)``, in float64.
    """
    left, right = view.input(0).scale, view.input(1).scale
    twice_max = 2.0 * max(left, right)
    with np.errstate(over="ignore"):
        scaled_output = float(np.float32(2 ** _left_shift(view)) * np.float32(view.output().scale))
    return left / twice_max, right / twice_max, twice_max / scaled_output


def _add(view: LayerView, values: Values, rule: Rule, sign: int) -> SpecResult:
    left, right = zero_points_removed(view, values)
    zero_point = view.output().zero_point

    def by(method: Method) -> Array:
        if _is_shifted(view):
            return shifted_sum(view, left, right, sign)
        if method == "gemmlowp":
            return _gemmlowp(view, left, right, sign) + zero_point
        if method == "sse":
            body = _sse(view, left, right, sign)
            return body if view.output().dtype == "int16" else wrap16(body + zero_point)
        if method == "xnnpack":
            return _xnnpack(view, left, right, sign) + zero_point
        if method == "rational" and sign == 1:
            return rational_sum(view, left, right) + zero_point
        raise UnsupportedOp(f"{view}: {method!r} is not defined for this op")

    low, high = bounds(view, rule)
    sums = in_blocks(rule, view.output().shape, by, run=inner_loop(view).run)
    return stored(view, np.clip(sums, low, high))


def _gemmlowp(view: LayerView, left: Array, right: Array, sign: int) -> Array:
    """TFLite reference: each operand is shifted left, then scaled with both of gemmlowp's roundings."""
    real_left, real_right, real_output = _real_multipliers(view)
    shift = _left_shift(view)
    scaled_left = multiply_gemmlowp(left << shift, *quantize_multiplier(real_left))
    scaled_right = multiply_gemmlowp(right << shift, *quantize_multiplier(real_right))
    return multiply_gemmlowp(scaled_left + sign * scaled_right, *quantize_multiplier(real_output))


def _sse(view: LayerView, left: Array, right: Array, sign: int) -> Array:
    """LiteRT's NEON body: the operands are only rounded once.

    The int8 and int16 loops over two tensors shift left by ``20 + shift`` (shift <= 0) before
    the high multiply. The others shift by 20, and floor the shift after it.
    """
    real_left, real_right, real_output = _real_multipliers(view)
    floors = view.output().dtype == "uint8" or inner_loop(view).kind == "scalar"

    def scaled(value: Array, real: float) -> Array:
        multiplier, shift = quantize_multiplier(real)
        if floors:
            high = saturating_rounding_doubling_high_mul(value << LEFT_SHIFT, multiplier)
            return np.asarray(high >> -shift, np.int64)
        kept = _left_shift(view) + shift
        shifted = value << kept if kept >= 0 else value >> -kept
        return saturating_rounding_doubling_high_mul(shifted, multiplier)

    total = scaled(left, real_left) + sign * scaled(right, real_right)
    multiplier, shift = quantize_multiplier(real_output)
    return rounding_divide_by_pot(saturating_rounding_doubling_high_mul(total, multiplier), -shift)


def _xnnpack(view: LayerView, left: Array, right: Array, sign: int) -> Array:
    """XNNPACK: 21-bit integer multipliers and one half-up shift.

    ``shift = 20 - exponent`` of the larger of the float32 ratios ``s_in / s_out``;
    ``(left * rint(ratio_left * 2^shift) ± right * rint(ratio_right * 2^shift)) / 2^shift``.
    """
    output_scale = np.float32(view.output().scale)
    ratio_left = np.float32(view.input(0).scale) / output_scale
    ratio_right = np.float32(view.input(1).scale) / output_scale
    larger = float(max(ratio_left, ratio_right))
    if not larger < 2.0**8:
        raise UnsupportedOp(f"{view}: input scales of {larger:.6g} output scales; XNNPACK adds below 256")
    shift = 20 - (math.frexp(larger)[1] - 1)
    left_multiplier = int(np.rint(math.ldexp(float(ratio_left), shift)))
    right_multiplier = sign * int(np.rint(math.ldexp(float(ratio_right), shift)))
    total = left * left_multiplier + right * right_multiplier
    return np.asarray((total + (1 << (shift - 1))) >> shift, np.int64)
