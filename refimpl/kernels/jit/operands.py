"""A layer's arrays as compiled loops take them: contiguous, of one Numba type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array


def operand(values: Values, position: int) -> Array:
    """The value of an input the op's check has found to be present, contiguous."""
    value = values[position]
    if value is None:
        raise ModelError(f"no value for input {position}; was the layer checked?")
    return np.ascontiguousarray(value).reshape(value.shape)


def buffer(values: Values, position: int) -> Array:
    """An input as compiled loops take it: contiguous, and writable, because Numba would compile
    a second version of every loop for read-only arrays (which constants are)."""
    value = operand(values, position)
    return value if value.flags.writeable else value.copy()


def flat_bytes(values: Array) -> NDArray[np.uint8]:
    """A contiguous int8 or uint8 array as flat bytes, sharing its memory."""
    return values.reshape(-1).view(np.uint8)


def read_only_bytes(values: Array) -> NDArray[np.uint8]:
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


def byte_rows(values: Array) -> NDArray[np.uint8]:
    """Bytes as ``[row, innermost]``, sharing their memory."""
    return flat_bytes(values).reshape(-1, values.shape[-1])
