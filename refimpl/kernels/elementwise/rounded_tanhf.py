"""float32 ``tanh`` rounded correctly, in whole numbers: no library function whose error would matter.

e = exp(-2|x|) is a sum of fixed-point terms after 2|x| was halved until it is below 1/16; squaring e as
often undoes the halving. tanh|x| = (1 - e) / (1 + e) is then rounded from a quotient of integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FRACTION = 160
"""Bits behind the point. A squaring doubles the error of e, and ten of them leave more than 140 good bits;
1 - e, at least 2^-12 here, has 128 of them. The hardest float32 argument needs fewer than 64."""

_ONE = 1 << _FRACTION


def tanh_correctly_rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``tanh`` of each finite float32 value, to nearest."""
    x = np.asarray(values, np.float32)
    size = np.abs(x)
    results = np.array([_tanh(float(number)) for number in size.reshape(-1)], np.float32).reshape(x.shape)
    # Below 2^-12, x^3 / 3 is less than a quarter of a step; from 10 on the nearest float32 is 1.
    results = np.where(size < np.float32(2.0**-12), size, results)
    return np.copysign(results, x)


def _tanh(size: float) -> float:
    """The float32 nearest to tanh of ``size``, for 2^-12 <= size < 10; something for every other."""
    if not 2.0**-12 <= size < 10.0:
        return 1.0
    numerator, denominator = size.as_integer_ratio()
    doubled = (2 * numerator << _FRACTION) // denominator
    halvings = max(doubled.bit_length() - (_FRACTION - 4), 0)
    exponential = _exp_of_minus(doubled >> halvings)
    for _ in range(halvings):
        exponential = exponential * exponential >> _FRACTION
    return _nearest(_ONE - exponential, _ONE + exponential)


def _exp_of_minus(t: int) -> int:
    """exp(-t) for fixed-point 0 <= t < 1/16, by its series."""
    total = term = _ONE
    count = 0
    while term:
        count += 1
        term = (term * t >> _FRACTION) // count
        total += -term if count % 2 else term
    return total


def _nearest(numerator: int, denominator: int) -> float:
    """numerator / denominator, below 1 and above 2^-13, rounded to 24 significant bits."""
    shift = 24 + denominator.bit_length() - numerator.bit_length()
    if (numerator << shift) // denominator >= 1 << 24:
        shift -= 1
    steps = ((numerator << (shift + 1)) // denominator + 1) >> 1
    return float(steps) / float(1 << shift)
