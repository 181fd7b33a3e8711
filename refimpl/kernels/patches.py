"""Widening input bytes to int16 patches, borders included; shared by the compiled convolutions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from refimpl.graph import Array, Tensor


class Widening(NamedTuple):
    """How an input byte becomes its value: ``(byte ^ flip) - offset``; borders get ``border``.

    int8 flips the sign bit and takes 128 off, uint8 does nothing, so one
    compiled function serves both.
    """

    flip: int
    offset: int
    border: int


def widening_for(tensor: Tensor) -> Widening:
    """The widening of an int8 or uint8 tensor. Borders hold the zero point, which stands for 0."""
    flip = 128 if tensor.dtype == "int8" else 0
    return Widening(flip, flip, tensor.zero_point)


def as_bytes(values: Array) -> NDArray[np.uint8]:
    """A C-contiguous array's bytes, flat and read-only (so that every caller has one Numba type)."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    flat.flags.writeable = False
    return flat


def writable_bytes(values: Array) -> NDArray[np.uint8]:
    """An output's bytes, flat, sharing its memory; the output must be C-contiguous."""
    assert values.flags.c_contiguous
    return values.reshape(-1).view(np.uint8)


def flat_accumulator(accumulator: Array | None) -> NDArray[np.int32]:
    """The accumulators asked for, flat; an empty array when nobody did."""
    if accumulator is None:
        return np.empty(0, np.int32)
    assert accumulator.flags.c_contiguous
    return accumulator.reshape(-1)


@njit(cache=True, nogil=True)
def _widen(source: Array, flip: np.uint8, offset: np.int16, target: Array) -> None:
    for i in range(target.size):
        target[i] = np.int16(np.int16(source[i] ^ flip) - offset)


@njit(cache=True, nogil=True)
def widen_row(
    image: Array,
    widening: Widening,
    start: int,
    width: int,
    channels: int,
    first: int,
    columns: int,
    target: Array,
) -> None:
    """Fills ``target`` (int16 [columns * channels]) with a row's columns ``first`` … ``first + columns - 1``.

    The row's bytes begin at ``image[start]`` and hold ``width`` columns; with
    ``start < 0`` there is no such row. Columns outside the row get the border.
    """
    border = np.int16(widening.border)
    left, right = columns, columns
    if start >= 0:
        left = min(max(-first, 0), columns)
        right = max(min(width - first, columns), left)
    target[: left * channels] = border
    if right > left:
        begin = start + (first + left) * channels
        source = image[begin : begin + (right - left) * channels]
        inner = target[left * channels : right * channels]
        _widen(source, np.uint8(widening.flip), np.int16(widening.offset), inner)
    target[right * channels : columns * channels] = border
