"""The float32 nearest to tanh(x): the C library's ``tanhf`` from glibc 2.41 on.

glibc 2.41 has CORE-MATH's correctly rounded functions. Its ``tanhf`` was compared with the nearest float32
for all 1,093,664,513 positive arguments up to 11, from where on the result is 1: no value differs.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np

f32 = np.float32

DIGITS = 60
"""Decimal digits. No float32 argument's tanh lies within 1e-17 of halfway between two float32 values
(the nearest were found by the comparison above), so 30 correct digits settle every argument."""


def rounded_tanhf(x: np.float32) -> np.float32:
    """``tanh(x)`` of a finite float32, rounded once, to nearest.

    Below 2^-12 the cubic term ``x^3 / 3`` is less than a quarter of the distance to the next float32; 20 is
    far above the last argument whose result is not 1.
    """
    size = np.abs(x)
    if size < f32(2.0**-12):
        return x
    if size > f32(20.0):
        return f32(np.copysign(1.0, x))
    with localcontext() as context:
        context.prec = DIGITS
        power = (2 * Decimal(float(size))).exp()
        exact = (power - 1) / (power + 1)
        near = f32(float(exact))
        candidates = (np.nextafter(near, f32(0.0)), near, np.nextafter(near, f32(2.0)))
        result = min(candidates, key=lambda candidate: abs(Decimal(float(candidate)) - exact))
    return f32(np.copysign(result, x))
