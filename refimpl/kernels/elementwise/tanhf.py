"""float32 ``tanh`` as glibc up to 2.40 computes it (fdlibm), over whole arrays at once."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array

_F = np.float32
_LN2_HIGH = np.array(0x3F317180, np.uint32).view(np.float32)[()]
_LN2_LOW = np.array(0x3717F7D1, np.uint32).view(np.float32)[()]
_INVERSE_LN2 = np.array(0x3FB8AA3B, np.uint32).view(np.float32)[()]
_Q = np.array([0xBD088889, 0x3AD00D01, 0xB8A670CD, 0x36867E54, 0xB457EDBB], np.uint32).view(np.float32)


def tanh_float32(values: Array) -> Array:
    """``tanh`` of each finite float32 value."""
    x = np.asarray(values, np.float32)
    size = np.minimum(np.abs(x), _F(21.9))
    large = size >= _F(1.0)
    grown = _expm1(np.where(large, _F(2.0) * size, _F(-2.0) * size))
    result = np.where(large, _F(1.0) - _F(2.0) / (grown + _F(2.0)), -grown / (grown + _F(2.0)))
    result = np.where(np.abs(x) >= _F(22.0), _F(1.0), result)
    return np.where(np.abs(x) < _F(2.0**-55), x, np.copysign(result, x)).astype(np.float32)


def _expm1(x: Array) -> Array:
    """fdlibm ``expm1f`` on (-2, 0] and [2, 44): all its branches there, each computed for every value."""
    bits = x.view(np.uint32) & np.uint32(0x7FFFFFFF)
    k = np.trunc(_INVERSE_LN2 * x + np.copysign(_F(0.5), x)).astype(np.int32)
    k = np.where(bits < 0x3F851592, -1, k)
    k = np.where(bits <= 0x3EB17218, 0, k).astype(np.int32)
    steps = k.astype(np.float32)
    high, low = x - steps * _LN2_HIGH, steps * _LN2_LOW
    r = high - low
    lost = (high - r) - low
    half = _F(0.5) * r
    square = r * half
    polynomial = np.full_like(r, _Q[4])
    for coefficient in _Q[3::-1]:
        polynomial = coefficient + square * polynomial
    polynomial = _F(1.0) + square * polynomial
    t = _F(3.0) - polynomial * half
    e = square * ((polynomial - t) / (_F(6.0) - r * t))
    unreduced = r - (r * e - square)
    e = (r * (e - lost) - lost) - square
    inverse = np.ldexp(_F(1.0), -k)
    growing = np.where(k < 23, (_F(1.0) - inverse) - (e - r), (r - (e + inverse)) + _F(1.0))
    scaled = np.ldexp(growing, k)
    reduced = np.ldexp(_F(1.0) - (e - r), k) - _F(1.0)
    halved = _F(0.5) * (r - e) - _F(0.5)
    result = np.where((k < 0) | (k > 56), reduced, scaled)
    result = np.where(k == -1, halved, np.where(k == 0, unreduced, result))
    return np.where(np.abs(x) < _F(2.0**-25), x, result).astype(np.float32)
