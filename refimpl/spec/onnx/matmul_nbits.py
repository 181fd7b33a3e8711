"""MatMulNBits (com.microsoft): a float32 matrix times one of 4- or 8-bit weights with a scale per block.

ONNX Runtime makes it of a DequantizeLinear of constant weights before a MatMul, and weight-only quantization
tools write it. Source: ONNX Runtime 1.31.1, ``docs/ContribOperators.md`` and ``matmul_nbits.cc``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.unspecified import rounded
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_shape,
)

MAX_BLOCK = 256
"""Values of a block, or twice a column: what is filled up in the last one stays small."""


@dataclass(frozen=True)
class Blocks:
    """Weights ``scale * (raw - zero_point)`` of an ``[N, K]`` matrix, K in blocks, the last one filled up.

    ``raw`` is ``[N, block, value]``, 0 beyond K as ``raw - zero_point``; ``zero_point`` and ``scale`` are
    ``[N, block, 1]``. All float64.
    """

    raw: Array
    zero_point: Array
    scale: Array
    beyond: Array

    @property
    def centred(self) -> Array:
        """``raw - zero_point``."""
        return np.where(self.beyond, 0.0, self.raw - self.zero_point)


def sizes(view: LayerView) -> tuple[int, int, int, int, int]:
    """K, N, bits, values of a block, and blocks of a column."""
    deep, wide, bits = (view.integer(name) for name in ("K", "N", "bits"))
    block = view.integer("block_size")
    return deep, wide, bits, block, -(-deep // max(block, 1))


def check_matmul_nbits(view: LayerView) -> None:
    """Inputs: data ``[..., K]``, packed uint8 weights ``[N, block, bytes]``, scales, optional packed zero
    points and float32 bias ``[N]``; attributes K, N, bits, block_size."""
    require_arity(view, 3, optional=3)
    deep, wide, bits, block, blocks = sizes(view)
    if bits not in (4, 8):
        raise UnsupportedOp(f"{view} has weights of {bits} bits; 4 and 8 are implemented")
    if view.integer("weight_prepacked", 0):
        raise UnsupportedOp(f"{view} has weights in an order of their own")
    if view.optional_input(4) is not None:
        raise UnsupportedOp(f"{view} orders its rows by groups (g_idx)")
    fits = min(deep, wide) >= 1 and 8 <= block <= max(MAX_BLOCK, 2 * deep) and block % 8 == 0
    require(view, fits, f"{deep} by {wide} in blocks of {block}")
    for tensor in (view.input(0), view.input(2), view.output()):
        require_dtype(view, tensor, ("float32",))
    require_dtype(view, view.input(1), ("uint8",))
    require_elements(view, view.input(0))
    require(view, view.input(0).shape[-1:] == (deep,), f"data of shape {view.input(0).shape} for K = {deep}")
    require_shape(view, view.output(), (*view.input(0).shape[:-1], wide))
    rows = -(-blocks * bits // 8)
    for position, size in ((1, wide * blocks * (block * bits // 8)), (2, wide * blocks), (3, wide * rows)):
        packed = view.optional_input(position)
        if packed is not None:
            found = math.prod(packed.shape)
            require(view, found == size, f"{packed.name!r} has {found} values, not {size}")
    zero_points, bias = view.optional_input(3), view.optional_input(5)
    if zero_points is not None and zero_points.dtype != "uint8":
        raise UnsupportedOp(f"{view} has zero points of {zero_points.dtype}")
    if bias is not None:
        require_dtype(view, bias, ("float32",))
        require_shape(view, bias, (wide,))


def blocks_of(view: LayerView, values: Values) -> Blocks:
    """The weights."""
    deep, wide, bits, block, blocks = sizes(view)
    raw = _unpacked(operand(values, 1).reshape(wide, -1), bits).reshape(wide, blocks, block)
    given = values[3] if len(values) > 3 else None
    zeros = np.full((wide, blocks), 2 ** (bits - 1))
    if given is not None:
        zeros = _unpacked(given.reshape(wide, -1), bits)[:, :blocks]
    scale = operand(values, 2).reshape(wide, blocks, 1).astype(np.float64)
    beyond = (np.arange(blocks * block) >= deep).reshape(1, blocks, block)
    return Blocks(raw.astype(np.float64), zeros.reshape(wide, blocks, 1).astype(np.float64), scale, beyond)


def _unpacked(stored: Array, bits: int) -> Array:
    """Values of the bytes of each row; the lower half of a byte comes first."""
    if bits == 8:
        return stored
    return np.stack([stored & 15, stored >> 4], axis=-1).reshape(len(stored), -1)


def bias_of(values: Values) -> Array | None:
    """Input 5, where it is given."""
    return values[5] if len(values) > 5 else None


def matmul_nbits(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - never compared
    """``data @ weights + bias`` in float64, rounded once, whatever ``accuracy_level`` lets a runtime do."""
    weights = blocks_of(view, values)
    matrix = (weights.centred * weights.scale).reshape(len(weights.raw), -1)[:, : view.integer("K")]
    result = operand(values, 0).astype(np.float64) @ matrix.T
    bias = bias_of(values)
    return rounded(result if bias is None else result + bias)
