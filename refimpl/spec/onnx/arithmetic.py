"""The arithmetic ONNX specs share: quantizing reals, requantizing sums.

Sources: ONNX Runtime 1.31.1 (MLAS), ``onnx.reference`` 1.23; verified bit for bit.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.parameters import Affine
from karat24.refimpl.spec.shared.primitives import multiply


def quantize(reals: Array, parameters: Affine) -> Array:
    """``rint(clip(x / scale, low - zp, high - zp)) + zp`` in float32, as int64; not-a-number gives low."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.asarray(reals, np.float32) / parameters.scale
    low = (parameters.low - parameters.zero_point).astype(np.float32)
    high = (parameters.high - parameters.zero_point).astype(np.float32)
    steps = np.where(np.isnan(steps), low, np.clip(steps, low, high))
    return np.asarray(np.rint(steps).astype(np.int64) + parameters.zero_point)


def dequantize(stored: Array, parameters: Affine) -> Array:
    """``float32(q - zp) * scale``."""
    return np.asarray((stored.astype(np.int64) - parameters.zero_point).astype(np.float32) * parameters.scale)


def requantize(view: LayerView, rule: Rule, acc: Array, effective: Array, output: Affine) -> Array:
    """``acc * effective + zero_point`` within the output's bounds, as int64.

    ``float32_half_even`` (ONNX Runtime): float32 product, rounded half to even, zero point added after.
    ``float64_zero_point_first`` (onnx.reference): float64 product, zero point added *before* rounding.
    """
    zero_point = int(output.zero_point.reshape(-1)[0])
    if rule.method == "float32_half_even":
        return multiply("float32_half_even", acc, effective, zero_point, output.low, output.high)
    if rule.method == "float64_zero_point_first":
        product = acc.astype(np.float64) * effective.astype(np.float64)
        return np.asarray(np.rint(np.clip(product + zero_point, output.low, output.high)), np.int64)
    raise ModelError(f"{view}: requantization by {rule.method!r} is not defined")


def sum_saturating_pairs(left: Array, right: Array) -> Array:
    """``sum_k left[..., k] * right[..., k]``, neighbouring products added in 16 bits that saturate.

    ``left`` holds raw uint8 values, ``right`` raw int8 values, both int64 and broadcastable. This is
    what ``vpmaddubsw`` computes; an odd last value has no neighbour.
    """
    products = left * right
    if products.shape[-1] % 2:
        products = np.concatenate([products, np.zeros_like(products[..., :1])], axis=-1)
    pairs = products[..., 0::2] + products[..., 1::2]
    return np.asarray(np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=-1))
