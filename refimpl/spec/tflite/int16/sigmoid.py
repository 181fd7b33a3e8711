"""LOGISTIC and TANH of int16, by a table of 256 entries or in gemmlowp's 16-bit fixed point."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.refimpl.profiles.tflite.powers_of_two import INPUT_EXPONENTS, nearest_power
from karat24.refimpl.spec.shared.primitives import wrap32

INPUT_INTEGER_BITS = 3
"""Inputs of scale 2^-12 span [-8, 8)."""


def input_shift(scale: float) -> int:
    """Left shift in bits that brings inputs whose scale is near a power of two to scale 2^-12."""
    return 15 - INPUT_INTEGER_BITS + nearest_power(scale)[0]


def input_multiplier(op: str, scale: float) -> tuple[int, int]:
    """The multiplier and right shift that bring inputs of ``scale`` to steps of 1 / (3 * 4096).

    Source: TFLite ``SigmoidPrepare`` and ``TanhPrepare``.
    """
    exponent, counts = nearest_power(scale)
    if counts and exponent in INPUT_EXPONENTS[op]:
        return 3 << input_shift(scale), 0
    multiplier, shift = scale * 4096.0 * 3.0, 0
    while multiplier <= 32767.0 / 2.0 and shift <= 30:
        multiplier, shift = multiplier * 2.0, shift + 1
    return int(multiplier), shift


def sigmoid_table() -> Array:
    """``2^16 / (1 + exp(-i / 24))`` for i = 0 .. 255, int64 [256].

    Each entry but the last is corrected by half of the error that linear interpolation to the next entry has
    in the middle; the last entry is 65535. Source: TFLite ``sigmoid_table_uint16``.
    """

    def sigmoid(x: float) -> float:
        return 2.0**16 / (1.0 + math.exp(-x))

    entries = []
    for index in range(255):
        here, after = sigmoid(index / 24), sigmoid((index + 1) / 24)
        error = sigmoid((index + 0.5) / 24) - (here + after) / 2
        entries.append(math.floor(here + error / 2 + 0.5))
    return np.array([*entries, 65535], np.int64)


def _scaled_input(op: str, data: Array, scale: float) -> Array:
    multiplier, shift = input_multiplier(op, scale)
    rounding = 1 << (shift - 1) if shift else 0
    return wrap32(wrap32(data * multiplier) + rounding) >> shift


def _interpolated(magnitude: Array, fraction_bits: int, saturated: int) -> Array:
    """``table << fraction_bits``, interpolated linearly; ``saturated`` from entry 255 on."""
    table = sigmoid_table()
    entry = magnitude >> fraction_bits
    inside = np.minimum(entry, 254)
    lower, upper = table[inside], table[inside + 1]
    fraction = magnitude & ((1 << fraction_bits) - 1)
    on_line = (lower << fraction_bits) + fraction * (upper - lower)
    return np.where(entry >= 255, saturated, on_line)


def logistic_by_table(data: Array, scale: float) -> Array:
    """LOGISTIC of int16 values held in int64, in steps of 2^-15. ``reference_integer_ops::Logistic``."""
    scaled = _scaled_input("LOGISTIC", data, scale)
    result = _interpolated(np.abs(scaled), 9, 0x7FFF << 10)
    half = 1 << 9
    return np.where(scaled >= 0, result + half, (1 << 25) - result + half - 1) >> 10


def tanh_by_table(data: Array, scale: float) -> Array:
    """TANH by ``2 * sigmoid(2 x) - 1``, in steps of 2^-15. ``reference_integer_ops::Tanh``."""
    scaled = _scaled_input("TANH", data, scale)
    result = _interpolated(np.abs(scaled), 8, 0xFFFF << 8)
    one, half = 1 << 23, 1 << 7
    return np.where(scaled >= 0, result - one + half, -result + one + half - 1) >> 8
