"""float32 ``exp`` as glibc and musl compute it, over whole arrays at once.

Arm's optimized routine: x = (k + r) ln2 / 32, and 2^(k/32) times a cubic polynomial of r, all in float64.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_BITS = 128


def _roots() -> NDArray[np.float64]:
    """2^(i/32) for i = 0 .. 31 to nearest: the fifth square root of 2^i in fixed point."""
    powers = []
    for i in range(32):
        root = 1 << (i + 32 * _BITS)
        for _ in range(5):
            root = math.isqrt(root)
        powers.append(root / (1 << _BITS))
    return np.array(powers)


_ROOTS = _roots()
_LOG2E = np.array(0x3FF71547652B82FE, np.uint64).view(np.float64)[()]
_CUBIC = np.array([0x3FAC6AF84B912394, 0x3FCEBFCE50FAC4F3, 0x3FE62E42FF0C52D6], np.uint64).view(np.float64)


def exp_float32(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``exp`` of each float32 value that is a number; infinite beyond float32."""
    x = np.clip(np.asarray(values, np.float32).astype(np.float64), -200.0, 200.0)
    scaled = x * (_LOG2E * 32)
    whole = np.rint(scaled)
    r = scaled - whole
    k = whole.astype(np.int64)
    cubic, square, linear = _CUBIC / (32.0**3, 32.0**2, 32.0)
    polynomial = (cubic * r + square) * (r * r) + (linear * r + 1.0)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray((polynomial * np.ldexp(_ROOTS[k & 31], k >> 5)).astype(np.float32))
