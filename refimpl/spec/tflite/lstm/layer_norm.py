"""The layer normalization inside an LSTM's gates, in integers.

Source: LiteRT 2.3.0 ``kernels/internal/reference/portable_tensor_utils.cc`` ``PortableApplyLayerNorm``.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import multiply_gemmlowp, quantize_multiplier, wrap32
from karat24.refimpl.spec.shared.requirements import operand
from karat24.refimpl.spec.tflite.l2_normalization import inverse_square_root
from karat24.refimpl.spec.tflite.lstm.layout import Gate

EXTRA = 2**10
"""Means and normalized values are kept times this."""


def normalized(view: LayerView, values: Values, rule: Rule, gate: Gate, sums: Array) -> Array:
    """``coefficient * (x - mean) / deviation + bias`` of each row ``[cell]``, as Q3.12."""
    scale = view.input(gate.norm).scale
    coefficients = operand(values, gate.norm).astype(np.int64)
    bias = operand(values, gate.bias).astype(np.int64)
    multiplier, shift = quantize_multiplier(scale)
    guard = max(1, int(np.float32(10000) * np.float32(scale)))
    rows = [_row(row, coefficients, bias, guard, rule.overflow == "widens") for row in sums]
    result = multiply_gemmlowp(np.stack(rows), multiplier, shift + 12)
    return np.clip(result, -(2**15), 2**15 - 1)


def _row(row: Array, coefficients: Array, bias: Array, guard: int, widens: bool) -> Array:
    """One row in steps of the coefficients' scale. ``guard`` is the variance of rows that have none.

    For a count that is not a power of two the variance is too small, and products can leave int32, which
    C leaves undefined: LiteRT 2.3 as compiled for x86-64 keeps 64 bits of them, tflite-runtime 2.14 keeps 32.
    """
    count = len(row)
    mean = _truncated(int(row.sum()) * EXTRA, count)
    variance = _truncated(int((row * row).sum()) * (EXTRA**2 // count) - mean * mean, EXTRA**2)
    multiplier, shift = inverse_square_root(variance if variance >= 1 else guard)
    deviations = multiply_gemmlowp(row * EXTRA - mean, multiplier, shift)
    exact = deviations * coefficients + bias
    weighted = exact if widens else wrap32(exact)
    nudged = weighted + np.where(weighted > 0, EXTRA // 2, -(EXTRA // 2))
    return wrap32(np.sign(nudged) * (np.abs(nudged) // EXTRA))


def _truncated(dividend: int, divisor: int) -> int:
    """Their quotient, rounded toward zero, as C divides."""
    quotient = abs(dividend) // divisor
    return quotient if dividend >= 0 else -quotient
