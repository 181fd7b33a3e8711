"""Strided images: their pixels are a part of the channels of a wider image's pixels.

A layer that writes straight into its part of a concatenation, or reads from one, is bound to a view
``wide[..., first : first + channels]``. Compiled loops take arrays without gaps, so they get the memory of
the whole pixels from the view's first value on, and use the first channels.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit.operands import buffer


def aligned_bytes(size: int, alignment: int) -> Array:
    """``size`` bytes, the first at a multiple of ``alignment``; their values are undefined."""
    memory = np.empty(size + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + size]


def is_strided(values: Array) -> bool:
    """True if ``values`` ``[..., channel]`` are the channels of pixels at equal distances."""
    rows = list(zip(values.shape[:-1], values.strides[:-1], strict=True))
    return (
        len(rows) > 0
        and values.strides[-1] == values.itemsize
        and rows[-1][1] % values.itemsize == 0
        and rows[-1][1] >= values.shape[-1] * values.itemsize
        and all(outer[1] == inner[0] * inner[1] for outer, inner in pairwise(rows))
    )


def whole_pixels(values: Array) -> Array:
    """``values`` ``[..., channel]`` as ``[..., pitch]`` without gaps; itself when it has none.

    Index [..., c] is one element in both for every channel c of ``values``. Other channels belong to other
    tensors, and those of the last pixel may lie behind the end of the memory.
    """
    if values.flags.c_contiguous:
        return values
    assert is_strided(values)
    shape = (*values.shape[:-1], values.strides[-2] // values.itemsize)
    return np.lib.stride_tricks.as_strided(values, shape, values.strides)


def whole_image(values: Values, position: int) -> Array:
    """The input at ``position`` in whole pixels and writable, as compiled loops need it; a copy where it is
    neither contiguous nor strided."""
    value = values[position]
    return buffer([whole_pixels(value) if value is not None and is_strided(value) else value], 0)
