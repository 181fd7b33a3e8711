"""ADD as the Edge TPU's compiler prepares it: integer factors for both operands, a float32 one for their sum.

``A / B`` is the fraction nearest to ``s_left / s_right`` with both integers at most 32,767, and the
multiplier is ``f32(f32(s_left / A) * f32(1 / s_out))``. Both were found in compiled files (compilers of 2019
to 2021). It is assumed that the device rounds the product half to even.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView

MAX_FACTOR = 32767
"""The largest factor of an operand."""


def operand_factors(left: float, right: float) -> tuple[int, int]:
    """``(A, B)`` for two scales. One of them is 0 where the scales are more than 2^16 apart."""
    ratio = Fraction(left) / Fraction(right)
    if ratio > 1:
        return operand_factors(right, left)[::-1]
    best = ratio.limit_denominator(MAX_FACTOR)
    return best.numerator, best.denominator


def rational_sum(view: LayerView, left: Array, right: Array) -> Array:
    """``rint((A * left + B * right) * multiplier)``; operands int64 without their zero points, int64 out.

    The sum is below 2^24, so float32 holds it.
    """
    first, second = operand_factors(view.input(0).scale, view.input(1).scale)
    if not first * second:
        raise UnsupportedOp(
            f"{view}: input scales {view.input(0).scale:.6g} and {view.input(1).scale:.6g} are further apart "
            "than in any known compiled file; quantize the operands with scales that differ less"
        )
    reciprocal = np.float32(1) / np.float32(view.output().scale)
    multiplier = np.float32(view.input(0).scale) / np.float32(first) * reciprocal
    total = (first * left + second * right).astype(np.float32)
    return np.asarray(np.rint(total * multiplier), np.int64)
