"""Values of four bits, two in a byte: how .tflite files store int4 filters."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array, Tensor

PACKED = ("int4",)
"""Element types whose constants are held as the file's bytes and computed once they are unpacked."""


def packed_size(tensor: Tensor) -> int:
    """Bytes that a tensor of a packed type takes; an odd last value has a byte of its own."""
    return (math.prod(tensor.shape) + 1) // 2


def unpacked(tensor: Tensor, value: Array) -> Array:
    """``value`` in the tensor's shape: int8 ``[shape]`` of a packed type's bytes, all else as it is.

    The lower half of a byte comes first. The bytes are as many as :func:`packed_size` says.
    """
    if tensor.dtype not in PACKED:
        return value
    halves = np.stack([value << 4, value & 0xF0], axis=-1).reshape(-1)
    return np.asarray((halves.view(np.int8) >> 4)[: math.prod(tensor.shape)].reshape(tensor.shape))
