"""The memory of filters of powers of two, and their code of variable length.

A code of fixed length has as many bits as it takes to tell the values apart. In the code of variable length
0 is the bit ``0``, and any other weight is ``1``, a sign bit (1: negative) and the exponent less the least
one, highest bit first. With ``b`` bits and a share ``z`` of zeros it takes ``b - (b - 1) z`` bits a weight.

Weights only are counted: biases, batch normalization and the exponents' least value are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.export.quantize.powers_of_two.rounding import PowerFilter, PowersOfTwo
from karat24.refimpl.errors import ModelError

FLOAT_BITS = 32


@dataclass(frozen=True)
class FilterMemory:
    """Bits that the weights of one filter, or of several, take: as codes of fixed and of variable length."""

    weights: int
    fixed: int
    variable: int

    def __add__(self, other: FilterMemory) -> FilterMemory:
        return FilterMemory(
            self.weights + other.weights, self.fixed + other.fixed, self.variable + other.variable
        )

    @property
    def fixed_factor(self) -> float:
        """How many times smaller than float32 the codes of fixed length are: ``32 / b``."""
        return FLOAT_BITS * self.weights / self.fixed

    @property
    def variable_factor(self) -> float:
        """How many times smaller than float32 the code of variable length is."""
        return FLOAT_BITS * self.weights / self.variable


def memory(filter_: PowerFilter) -> FilterMemory:
    """The bits of one filter."""
    used, size = int(np.count_nonzero(filter_.signs)), filter_.signs.size
    powers = filter_.powers
    return FilterMemory(size, size * powers.code_bits, size + used * (1 + powers.exponent_bits))


def encode(filter_: PowerFilter) -> bytes:
    """The code of variable length, the weights in C order, bits filled up with 0 to whole bytes."""
    signs, width = filter_.signs.reshape(-1), filter_.powers.exponent_bits
    steps = filter_.exponents.reshape(-1).astype(np.int64) - filter_.powers.least
    bits = np.zeros((signs.size, 2 + width), np.uint8)
    bits[:, 0], bits[:, 1] = signs != 0, signs < 0
    bits[:, 2:] = steps[:, None] >> np.arange(width)[::-1] & 1
    written = np.ones(bits.shape, bool)
    written[:, 1:] = bits[:, :1]
    return np.packbits(bits[written]).tobytes()


def decode(content: bytes, shape: tuple[int, ...], powers: PowersOfTwo) -> PowerFilter:
    """The filter that :func:`encode` wrote. Raises ModelError for a code that ends too early, goes on too
    long, or names an exponent outside ``powers``."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8)).tolist()
    signs, exponents = np.zeros(shape, np.int8), np.zeros(shape, np.int16)
    flat_signs, flat_exponents, at = signs.reshape(-1), exponents.reshape(-1), 0
    try:
        for number in range(signs.size):
            at += 1
            if not bits[at - 1]:
                continue
            flat_signs[number] = -1 if bits[at] else 1
            step = 0
            for _ in range(powers.exponent_bits):
                at += 1
                step = 2 * step + bits[at]
            at += 1
            if step > powers.span:
                raise ModelError(f"weight {number}: exponent {powers.least + step} is not in {powers}")
            flat_exponents[number] = powers.least + step
    except IndexError:
        raise ModelError(f"the code of {signs.size} weights ends after {len(bits)} bits") from None
    if len(bits) - at >= 8 or any(bits[at:]):
        raise ModelError(f"the code of {signs.size} weights goes on after bit {at}")
    return PowerFilter(signs, exponents, powers)
