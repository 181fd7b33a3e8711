"""SOFTMAX of int16, with tables of 513 entries for the exponential and the reciprocal.

Source: TFLite ``reference_ops::SoftmaxInt16``, LiteRT 2.3.0.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.refimpl.spec.shared.primitives import multiply_gemmlowp, quantize_multiplier
from karat24.refimpl.spec.tflite.int16.lookup import function_table, look_up

RANGE = 10.0
"""Differences from the maximum are clamped at -10, which is 65535 steps."""


def softmax_rows(rows: Array, scale: float, beta: float) -> Array:
    """Rows ``[row, class]`` of an int16 tensor of ``scale``, held in int64; results in steps of 2^-15."""
    exponentials = function_table(math.exp, -RANGE, 0.0)
    reciprocals = function_table(lambda x: 1.0 / (1.0 + x), 0.0, 1.0)
    return np.array([_row(row, scale, beta, exponentials, reciprocals) for row in rows])


def _row(row: Array, scale: float, beta: float, exponential_table: Array, reciprocal_table: Array) -> Array:
    multiplier, shift = quantize_multiplier(scale * beta / (RANGE / 65535.0))
    difference = multiply_gemmlowp(row - row.max(), multiplier, shift)
    exponentials = look_up(exponential_table, np.clip(difference + 32767, -32768, 32767))
    total = int(exponentials.sum())
    bits = total.bit_length()
    mantissa = ((total << (31 - bits)) + (1 << 13)) >> 14  # 17 bits, of which the first is 1
    reciprocal = look_up(reciprocal_table, np.clip(np.array(mantissa - 2**15 - 2**16), -32768, 32767))
    right_shift = bits - 1
    half = (1 << right_shift) >> 1
    return np.asarray(np.clip((exponentials * reciprocal + half) >> right_shift, 0, 32767))
