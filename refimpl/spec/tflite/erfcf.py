"""The C library's float32 ``erfc``, with which GELU tables are made; it is not correctly rounded.

glibc up to 2.40 has fdlibm's ``s_erff.c``: five ranges with a quotient of two polynomials in each. glibc 2.41
and later have CORE-MATH's function, which rounds correctly: for every seventh float32 up to 10.2 it was
compared with float64's ``erfc``, rounded once, and no value differs; fdlibm's differs for 4 of 100.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.spec.tflite.expf import expf

f32 = np.float32

Polynomial = tuple[np.float32, ...]


def _polynomial(*coefficients: float) -> Polynomial:
    return tuple(f32(coefficient) for coefficient in coefficients)


PP = _polynomial(1.2837916613e-01, -3.2504209876e-01, -2.8481749818e-02, -5.7702702470e-03, -2.3763017452e-05)
QQ = _polynomial(
    1.0, 3.9791721106e-01, 6.5022252500e-02, 5.0813062117e-03, 1.3249473704e-04, -3.9602282413e-06
)
ERX = f32(8.4506291151e-01)
PA = _polynomial(
    -2.3621185683e-03, 4.1485610604e-01, -3.7220788002e-01, 3.1834661961e-01, -1.1089469492e-01,
    3.5478305072e-02, -2.1663755178e-03,
)  # fmt: skip
QA = _polynomial(
    1.0, 1.0642088205e-01, 5.4039794207e-01, 7.1828655899e-02, 1.2617121637e-01, 1.3637083583e-02,
    1.1984500103e-02,
)  # fmt: skip
RA = _polynomial(
    -9.8649440333e-03, -6.9385856390e-01, -1.0558626175e01, -6.2375331879e01, -1.6239666748e02,
    -1.8460508728e02, -8.1287437439e01, -9.8143291473e00,
)  # fmt: skip
SA = _polynomial(
    1.0, 1.9651271820e01, 1.3765776062e02, 4.3456588745e02, 6.4538726807e02, 4.2900814819e02,
    1.0863500214e02, 6.5702495575e00, -6.0424413532e-02,
)  # fmt: skip
RB = _polynomial(
    -9.8649431020e-03, -7.9928326607e-01, -1.7757955551e01, -1.6063638306e02, -6.3756646729e02,
    -1.0250950928e03, -4.8351919556e02,
)  # fmt: skip
SB = _polynomial(
    1.0, 3.0338060379e01, 3.2579251099e02, 1.5367296143e03, 3.1998581543e03, 2.5530502930e03,
    4.7452853394e02, -2.2440952301e01,
)  # fmt: skip


def erfcf(x: np.float32) -> np.float32:
    """``1 - erf(x)`` of a finite float32, as fdlibm computes it."""
    size = np.abs(x)
    if size < f32(0.84375):
        return _about_zero(x, size)
    if size < f32(1.25):
        s = size - f32(1.0)
        rest = _value(PA, s) / _value(QA, s)
        return f32(1.0) - ERX - rest if x > 0 else f32(1.0) + (ERX + rest)
    if size >= f32(28.0) or x <= f32(-6.0):
        return f32(0.0) if x > 0 else f32(2.0)
    tail = f32(_tail(size) / size)
    return tail if x > 0 else f32(f32(2.0) - tail)


def rounded_erfcf(x: np.float32) -> np.float32:
    """``1 - erf(x)`` of a finite float32, rounded correctly."""
    return f32(math.erfc(float(x)))


def _about_zero(x: np.float32, size: np.float32) -> np.float32:
    if size < f32(2.0**-56):
        return f32(1.0) - x
    square = x * x
    y = _value(PP, square) / _value(QQ, square)
    if x < f32(0.25):
        return f32(1.0) - (x + x * y)
    return f32(0.5) - (x * y + (x - f32(0.5)))


def _tail(size: np.float32) -> np.float32:
    """``x erfc(x)`` from 1.25 on; ``exp(-x^2)`` has two factors: of a truncated x, and of the rest."""
    s = f32(1.0) / (size * size)
    near = int(size.view(np.uint32)) < 0x4036DB6D  # 2.857142
    quotient = _value(RA, s) / _value(SA, s) if near else _value(RB, s) / _value(SB, s)
    short = (size.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    return expf(-short * short - f32(0.5625)) * expf((short - size) * (short + size) + quotient)


def _value(polynomial: Polynomial, x: np.float32) -> np.float32:
    result = polynomial[-1]
    for coefficient in polynomial[-2::-1]:
        result = coefficient + x * result
    return result
