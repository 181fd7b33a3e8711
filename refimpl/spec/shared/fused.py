"""Fused multiply-add of float32, exactly."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array


def fused_multiply_add(a: Array | np.float32, b: Array | np.float32, c: Array | np.float32) -> Array:
    """``a * b + c`` of float32 arrays, rounded once to float32.

    The float64 product is exact (48 bits). Its float64 sum is not, and rounding it once more could go
    the wrong way; so the sum is rounded *to odd*: when something was lost (Knuth's two-sum says what),
    the neighbour with an odd last bit is taken, which no later rounding mistakes for a tie.
    """
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    addend = np.broadcast_to(np.asarray(c, np.float64), product.shape)
    total = np.atleast_1d(product + addend)
    back = total - product
    lost = (product - (total - back)) + (addend - back)
    bits = total.view(np.int64)
    even = (bits & 1) == 0
    toward = np.where((lost > 0) == (total > 0), bits + 1, bits - 1)
    odd = np.where(np.isfinite(total) & (lost != 0) & even, toward, bits)
    return np.asarray(odd.view(np.float64).astype(np.float32).reshape(product.shape))
