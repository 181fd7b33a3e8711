"""The interval of a float32 sum of products, in any order, with or without fused multiply-add.

Let ``y = sum of a_i b_i + c`` exactly, of ``n`` products. However the terms are added (one after the other,
in blocks, in trees), each of them goes through at most ``k`` roundings, ``k = n`` or ``n + 1`` with ``c``;
to add to an accumulator of 0 is exact, and a fused multiply-add rounds once where product and addition
round twice. So

    |float32 result - y| <= gamma_k * (sum of |a_i b_i| + |c|)

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1, equation 3.5, and the
remark below it on the order of summation). Other algorithms are not covered; no runtime judged here uses
one in float32: Winograd's transforms, FFT, Strassen's product.

Below ``TINY`` the relative error says nothing. A runtime may round to subnormals, or flush them to 0, as
results (LiteRT does, by ``ruy::ScopedSuppressDenormals``; ONNX Runtime with
``session.set_denormal_as_zero``) and as operands. Each of the at most ``2 k`` operations then loses less
than TINY, and a subnormal operand loses itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from karat24.refimpl.bounds.interval import LARGEST, TINY, UNIT64, Interval, gamma
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array

Bilinear: TypeAlias = Callable[[Array, Array], Array]
"""A sum of products of float64 values of its two arguments, each product in it once."""

SLACK = 1 + 2.0**-20
"""What magnitudes and radii are enlarged by: the float64 operations that compute them round too."""


def sum_of_products(
    products: Bilinear,
    left: Array,
    right: Array,
    count: int,
    addends: Sequence[Array] = (),
    more_roundings: int = 0,
    scale: float = 1.0,
) -> Interval:
    """The interval of ``scale * products(left, right) + addends`` of float32 values.

    ``count`` is the number of products in one sum, ``addends`` broadcast to the result, ``more_roundings`` is
    what every term goes through besides. Raises CannotCompare where float32 may overflow.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities: the magnitude is NaN, and refused
        centre = scale * products(a, b)
        magnitude = abs(scale) * products(np.abs(a), np.abs(b))
    lost = np.zeros((), np.float64)
    subnormal_a, subnormal_b = subnormal(left), subnormal(right)
    if subnormal_a.any() or subnormal_b.any():
        lost = abs(scale) * (products(subnormal_a, np.abs(b)) + products(np.abs(a), subnormal_b))
    for addend in addends:
        centre = centre + addend.astype(np.float64)
        magnitude = magnitude + np.abs(addend.astype(np.float64))
        lost = lost + subnormal(addend)
    roundings = count + len(addends) + more_roundings
    lost = lost + 2 * roundings * max(1.0, abs(scale)) * TINY
    return rounded_sum(centre, magnitude, roundings, lost)


def mean_of(data: Array, axes: tuple[int, ...], divisor: int) -> Interval:
    """The interval of float32 sums along ``axes``, which are taken away, divided by ``divisor``.

    The division is one rounding, or two as a product with a rounded reciprocal, before the sum or behind it.
    """
    values = data.astype(np.float64)
    count = math.prod(data.shape[axis] for axis in axes)
    lost = subnormal(data).sum(axis=axes) + 2 * (count + 2) * TINY
    magnitude = np.abs(values).sum(axis=axes)
    return rounded_sum(values.sum(axis=axes), magnitude, count + 2 * (divisor > 1) - 1, lost, divisor)


def rounded_sum(
    centre: Array, magnitude: Array, roundings: int, lost: Array, divisor: Array | int = 1
) -> Interval:
    """The interval of a sum whose terms are rounded ``roundings`` times each, over a divisor of 1 or more.

    ``magnitude`` is the sum of the terms' magnitudes, ``lost`` what underflow takes away at most.
    Raises CannotCompare where a partial sum may overflow.
    """
    if not bool(np.all(magnitude * (SLACK + 2 * gamma(roundings)) < LARGEST)):  # false for NaN
        raise CannotCompare("values are so large, or so far from numbers, that float32 sums may overflow")
    relative = gamma(roundings) + gamma(roundings + 4, UNIT64)
    with np.errstate(divide="ignore", invalid="ignore"):  # a window outside the image: NaN, and refused
        radius = (relative * magnitude / divisor + lost * (1 + gamma(roundings))) * SLACK
        return Interval.around(centre / divisor, radius)


def subnormal(values: Array) -> Array:
    """Magnitudes of the subnormal values, 0 in place of all others; float64."""
    magnitudes = np.abs(values.astype(np.float64))
    return np.where(magnitudes < TINY, magnitudes, 0.0)
