"""Sums of products so large that a runtime's last step leaves int32, which C does not define.

XNNPACK's float32 product of -2^31 or less becomes -2^31. Its AVX512 kernels add a negative zero point in
int32, which wraps to the largest result; its kernels for AVX2 and Arm add it in 16 bits, which saturate. And
a product by a Q0.31 multiplier just below a power of two may lie so near the end of int32 that the zero point
carries it across. Only multipliers of nearly 1 or more get there: no other layer's weights are looked at.
Established with single layers on LiteRT 2.3.0, tflite-runtime 2.14.0 and TensorFlow Lite Micro.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView, Tensor

_END = 2.0**31
_NEAR = 512
"""More than a zero point of 8 bits and what two roundings add."""

_LEAST = 1 - _NEAR / _END
"""Multipliers below it keep every int32 away from the end."""


class _Operands(NamedTuple):
    """Input positions, and the filter's axis of output channels (None: not told apart)."""

    data: int
    filter: int
    bias: int | None
    axis: int | None


_WEIGHTED: Mapping[str, _Operands] = MappingProxyType(
    {
        "BATCH_MATMUL": _Operands(0, 1, None, None),
        "CONV_2D": _Operands(0, 1, 2, 0),
        "DEPTHWISE_CONV_2D": _Operands(0, 1, 2, 3),
        "FULLY_CONNECTED": _Operands(0, 1, 2, 0),
        "TRANSPOSE_CONV": _Operands(2, 1, 3, 0),
    }
)

WEIGHTED = frozenset(_WEIGHTED)
"""The ops whose sums are looked at."""


def wraps_below(view: LayerView) -> bool:
    """A sum that the layer's weights and bias allow, times its float32 multiplier, can be -2^31 or less, and
    the output's zero point is negative. For layers XNNPACK takes."""
    if not _comes_near(view) or view.output().zero_point >= 0:
        return False
    data, filter_ = (view.input(position) for position in _WEIGHTED[view.op][:2])
    multipliers = (
        np.float32(data.scale) * _scales(filter_).astype(np.float32) / np.float32(view.output().scale)
    )
    lowest, _ = _sums(view)
    with np.errstate(over="ignore"):
        return bool((lowest.astype(np.float32) * multipliers <= -_END).any())


def carried_across(view: LayerView) -> bool:
    """A sum that the layer's weights and bias allow, times its Q0.31 multiplier, can come so near the end of
    int32 that the output's zero point carries it across."""
    if not _comes_near(view):
        return False
    fractions, shifts = np.frexp(_multipliers(view))
    lowest, highest = _sums(view)
    largest = np.maximum(-lowest, highest) * np.exp2(shifts.astype(np.float64))
    # Where the product of two scales is rounded to float32, a multiplier just above may fall below.
    near = (fractions >= _LEAST) | ((fractions > 0.5) & (fractions <= 0.5 + _NEAR / _END))
    return bool((near & (largest >= _END - 2 * _NEAR)).any())


def _comes_near(view: LayerView) -> bool:
    """The layer is of 8-bit values, and a multiplier of its is nearly 1 or more."""
    data, filter_ = (view.input(position) for position in _WEIGHTED[view.op][:2])
    if data.dtype not in ("int8", "uint8") or filter_.quantization is None:
        return False
    return bool((_multipliers(view) >= _LEAST).any())


def _multipliers(view: LayerView) -> Array:
    """float64, one or one per output channel."""
    data, filter_ = (view.input(position) for position in _WEIGHTED[view.op][:2])
    return np.asarray(data.scale * _scales(filter_) / view.output().scale)


def _scales(filter_: Tensor) -> Array:
    return np.array([] if filter_.quantization is None else filter_.quantization.scale, np.float64)


def _sums(view: LayerView) -> tuple[Array, Array]:
    """The least and the greatest accumulator, float64, one or one per output channel."""
    operands = _WEIGHTED[view.op]
    lowest, highest = _products(view.input(operands.data), view.input(operands.filter), operands.axis)
    bias = None if operands.bias is None else view.optional_input(operands.bias)
    if bias is not None and bias.data is not None:
        lowest, highest = lowest + bias.data, highest + bias.data
    wraps = (lowest < -_END) | (highest >= _END)
    return np.where(wraps, -_END, lowest), np.where(wraps, _END, highest)


def _products(data: Tensor, filter_: Tensor, axis: int | None) -> tuple[Array, Array]:
    """Least and greatest sums of products, float64 ``[channel]``, or ``[1]`` where weights are not known.

    Each tap may read any value, or padding, which counts as the zero point.
    """
    zero_point = data.zero_point
    low, high = (bound - zero_point for bound in QUANTIZED_RANGE[data.dtype])
    if filter_.data is None or axis is None or filter_.dtype not in ("int8", "uint8"):
        taps = max(math.prod(filter_.shape), 1)
        largest = float(taps * max(-low, high) * 255)
        return np.array([-largest]), np.array([largest])
    zero_points = filter_.quantization.zero_point if filter_.quantization is not None else (0,)
    weights = np.moveaxis(filter_.data.astype(np.int64) - zero_points[0], axis, 0)
    weights = weights.reshape(len(weights), -1)
    above, below = (np.maximum(sign * weights, 0).sum(axis=1).astype(np.float64) for sign in (1, -1))
    return above * low - below * high, above * high - below * low
