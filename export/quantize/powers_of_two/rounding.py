"""The powers of two that stand for a filter's weights, and rounding to them.

The values of a filter are ``P = {0} ∪ {±2^p : n2 <= p <= n1}``. With ``s = max|W|`` and ``b`` bits,
``n1 = floor(log2(4 s / 3))`` and ``n2 = n1 + 1 - 2^(b - 2)``, so that ``P`` has ``2^(b-1) + 1`` values. A
weight goes to the nearer neighbour and a tie to the greater magnitude; what is greater than all goes to
``±2^n1``, as Sony's nnabla has it.

Source: Zhou et al., "Incremental Network Quantization" (2017), and the codes published with and after it.
The authors' Caffe code breaks ties downwards; Mxbonn/INQ-pytorch turns weights above ``1.5 * 2^n1`` into 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Array

BITS = range(2, 10)
"""Widths of a code. From 6 bits on the least power is so small that hardly a weight reaches it."""

LARGEST_EXPONENT = 127
"""2^128 overflows float32."""


@dataclass(frozen=True)
class PowersOfTwo:
    """The values 0 and ±2^p for every p in ``least`` … ``greatest``. Raises UsageError for an empty range."""

    least: int
    greatest: int

    def __post_init__(self) -> None:
        if self.least > self.greatest:
            raise UsageError(f"no power of two from 2^{self.least} to 2^{self.greatest}")

    @property
    def span(self) -> int:
        """Greatest exponent less the least one."""
        return self.greatest - self.least

    @property
    def values(self) -> tuple[float, ...]:
        """Every value, ascending; ``2 * (span + 1) + 1`` of them."""
        positive = tuple(math.ldexp(1.0, p) for p in range(self.least, self.greatest + 1))
        return (*(-value for value in reversed(positive)), 0.0, *positive)

    @property
    def code_bits(self) -> int:
        """Bits of a code of fixed length."""
        return (2 * (self.span + 1)).bit_length()

    @property
    def exponent_bits(self) -> int:
        """Bits that tell the exponents apart."""
        return self.span.bit_length()


@dataclass(frozen=True, eq=False)
class PowerFilter:
    """A filter of powers of two: ``sign * 2^exponent``.

    ``signs`` is int8, of -1, 0 and 1, ``exponents`` int16 and 0 where the sign is; both have the filter's
    shape. ``powers`` is the set the exponents are taken from.
    """

    signs: Array
    exponents: Array
    powers: PowersOfTwo

    @property
    def real(self) -> Array:
        """The weights as float32, which holds every one of them exactly."""
        weights: Array = np.ldexp(self.signs.astype(np.float32), self.exponents.astype(np.int32))
        return weights

    @property
    def zero_share(self) -> float:
        """Share of the weights that are 0."""
        return 1.0 - np.count_nonzero(self.signs) / self.signs.size if self.signs.size else 0.0


def leading_exponent(magnitude: float) -> int:
    """``floor(log2(4 m / 3))`` of a finite ``m > 0``, exactly: the exponent ``m`` rounds to."""
    mantissa, exponent = math.frexp(magnitude)
    return exponent - 1 + (mantissa >= 0.75)


def powers_for(
    values: Array, bits: int, max_span: int | None = None, greatest: int | None = None
) -> PowersOfTwo:
    """The set for a filter of any shape, from its greatest magnitude.

    ``max_span`` keeps the exponents within that span of the greatest one: 6 is what int8 holds exactly.
    ``greatest`` is the exponent n1 to use instead of the weights' own.

    Raises UsageError for other than 2 to 9 bits or a negative span, ModelError for weights that are not
    finite or too large for float32 once rounded.
    """
    if bits not in BITS:
        raise UsageError(f"powers of two take 2 to 9 bits, not {bits!r}")
    if max_span is not None and max_span < 0:
        raise UsageError(f"max_span {max_span} is negative")
    largest = float(np.abs(values).max(initial=0.0))
    if not math.isfinite(largest):
        raise ModelError("the filter holds NaN or infinite weights")
    if greatest is None:
        greatest = leading_exponent(largest) if largest else 0
    if greatest > LARGEST_EXPONENT:
        raise ModelError(f"the filter's greatest weight rounds to 2^{greatest}, which float32 does not hold")
    span = 2 ** (bits - 2) - 1
    return PowersOfTwo(greatest - (span if max_span is None else min(span, max_span)), greatest)


def round_filter(values: Array, powers: PowersOfTwo) -> PowerFilter:
    """Finite weights, of any shape, rounded to the set; a filter of the set itself stays as it is."""
    mantissas, exponents = np.frexp(np.abs(values.astype(np.float64)))
    nearest = exponents - 1 + (mantissas >= 0.75)
    # Below half the least power, 0 is nearer: |w| < 2^(least - 1), read off the exponent of frexp.
    zero = (mantissas == 0) | (exponents - 1 < powers.least - 1)
    signs = np.where(zero, 0, np.sign(values)).astype(np.int8)
    kept = np.where(zero, 0, np.clip(nearest, powers.least, powers.greatest)).astype(np.int16)
    return PowerFilter(signs, kept, powers)
