"""The C library's float32 ``tanh``, with which TANH tables are made; it is not correctly rounded.

LiteRT calls the ``tanhf`` of the machine it runs on. glibc up to 2.40 has fdlibm's (``s_tanhf.c``,
``s_expm1f.c``), which is here; it equals glibc 2.36 bit for bit. glibc's from 2.41 on is in
``rounded_tanhf.py``. Another function can change a table entry within 1e-5 of a tie by one.
"""

from __future__ import annotations

import numpy as np

f32 = np.float32

LN2_HIGH, LN2_LOW, INVERSE_LN2 = f32(6.9313812256e-01), f32(9.0580006145e-06), f32(1.4426950216e00)

COEFFICIENTS = (
    f32(-3.3333335072e-02), f32(1.5873016091e-03), f32(-7.9365076090e-05), f32(4.0082177293e-06),
    f32(-2.0109921195e-07),
)  # fmt: skip


def tanhf(x: np.float32) -> np.float32:
    """``tanh(x)`` of a finite float32."""
    size = np.abs(x)
    if size < f32(2.0**-55):
        return x
    if size >= f32(22.0):
        result = f32(1.0)
    elif size >= f32(1.0):
        result = f32(1.0) - f32(2.0) / (expm1f(f32(2.0) * size) + f32(2.0))
    else:
        below = expm1f(f32(-2.0) * size)
        result = -below / (below + f32(2.0))
    return -result if x < 0 else result


def expm1f(x: np.float32) -> np.float32:
    """``exp(x) - 1`` for x < 0 and for 2 <= x < 44, the ranges that tanh needs.

    ``x = k ln2 + r`` with ``r`` in float32 and ``c`` its rounding error. A rational function
    of r gives ``expm1(r)``; ``2^k (expm1(r) + 1) - 1`` is then computed in the order with the
    smallest error.
    """
    if np.abs(x) < f32(2.0**-25):
        return x
    if x < f32(-18.714973):
        return f32(-1.0)
    k, r, c = _reduce(x)
    half = f32(0.5) * r
    square = r * half
    q1, q2, q3, q4, q5 = COEFFICIENTS
    r1 = f32(1.0) + square * (q1 + square * (q2 + square * (q3 + square * (q4 + square * q5))))
    t = f32(3.0) - r1 * half
    e = square * ((r1 - t) / (f32(6.0) - r * t))
    if k == 0:
        return r - (r * e - square)
    e = r * (e - c) - c
    e = e - square
    if k == -1:
        return f32(0.5) * (r - e) - f32(0.5)
    if k < 0 or k > 56:
        return _times_power_of_two(f32(1.0) - (e - r), k) - f32(1.0)
    tiny = f32(2.0**-k)
    if k < 23:
        return _times_power_of_two((f32(1.0) - tiny) - (e - r), k)
    return _times_power_of_two((r - (e + tiny)) + f32(1.0), k)


def _reduce(x: np.float32) -> tuple[int, np.float32, np.float32]:
    """``(k, r, c)``: no reduction up to ln2 / 2, k = -1 up to 3 ln2 / 2, the nearest k beyond."""
    size = np.abs(x)
    if size <= f32(0.34657359):
        return 0, x, f32(0.0)
    if size < f32(1.0397208):
        k, high, low = -1, x + LN2_HIGH, -LN2_LOW
    else:
        k = int(INVERSE_LN2 * x + (f32(0.5) if x > 0 else f32(-0.5)))
        high, low = x - f32(k) * LN2_HIGH, f32(k) * LN2_LOW
    r = high - low
    return k, r, (high - r) - low


def _times_power_of_two(x: np.float32, k: int) -> np.float32:
    return np.float32(np.ldexp(x, k))
