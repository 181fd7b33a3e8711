"""Values of four bits, two in a byte: how model files store int4 and uint4 constants."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array, Tensor

PACKED = ("int4", "uint4")
"""Element types whose constants are held as the file's bytes and computed once they are unpacked."""


def packed_size(tensor: Tensor) -> int:
    """Bytes that a tensor of a packed type takes; an odd last value has a byte of its own."""
    return (math.prod(tensor.shape) + 1) // 2


def unpacked(tensor: Tensor, value: Array) -> Array:
    """``value`` in the tensor's shape: int8 or uint8 of a packed type's bytes, all else as it is.

    The lower half of a byte comes first. The bytes are as many as :func:`packed_size` says.
    """
    if tensor.dtype not in PACKED:
        return value
    upper = np.stack([value << 4, value & 0xF0], axis=-1).reshape(-1)
    halves = (upper if tensor.dtype == "uint4" else upper.view(np.int8)) >> 4
    return np.asarray(halves[: math.prod(tensor.shape)].reshape(tensor.shape))
