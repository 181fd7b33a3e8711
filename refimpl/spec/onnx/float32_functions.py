"""Functions as MLAS (ONNX Runtime 1.31.1, x86-64 with FMA) computes them in float32."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array
from karat24.refimpl.spec.shared.fused import fused_multiply_add

LIMIT = 18.0
NUMERATOR = (
    4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03,
    2.48287947061529e-01,
)  # fmt: skip
DENOMINATOR = (
    6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03,
    1.16817656904453e-01, 9.93151921023180e-01,
)  # fmt: skip
"""Coefficients in the square of x, the highest power first."""


def logistic(x: Array) -> Array:
    """``max(x * p(x²) / q(x²) + 0.5, 0)`` with x clamped to ±18, polynomials by fused multiply-add."""
    bounded = np.clip(x, np.float32(-LIMIT), np.float32(LIMIT))
    square = bounded * bounded
    quotient = _polynomial(NUMERATOR, square) * bounded / _polynomial(DENOMINATOR, square)
    return np.asarray(np.maximum(quotient + np.float32(0.5), np.float32(0.0)))


def nearest_logistic(x: Array) -> Array:
    """``1 / (1 + exp(-x))`` in float64, rounded to float32."""
    with np.errstate(over="ignore"):
        return np.asarray((1.0 / (1.0 + np.exp(-x.astype(np.float64)))).astype(np.float32))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value = np.full_like(x, np.float32(coefficients[0]))
    for coefficient in coefficients[1:]:
        value = fused_multiply_add(value, x, np.full_like(x, np.float32(coefficient)))
    return value
