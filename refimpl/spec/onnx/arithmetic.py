"""The arithmetic ONNX specs share: quantizing reals, requantizing sums.

Sources: ONNX Runtime 1.31.1 (MLAS), ``onnx.reference`` 1.23; verified bit for bit.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.onnx.parameters import Affine
from karat24.refimpl.spec.shared.primitives import effective_multiplier, multiply


def quantize(reals: Array, parameters: Affine, method: Method = "divide_float32") -> Array:
    """``rint(clip(x / scale, low - zp, high - zp)) + zp`` in float32, as int64; not-a-number gives low.

    ``divide_float64`` divides in float64, ``reciprocal_half_even`` multiplies by ``f32(1 / scale)``.
    """
    reals = np.asarray(reals, np.float32)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if method == "divide_float64":
            steps = reals.astype(np.float64) / parameters.scale.astype(np.float64)
        elif method == "reciprocal_half_even":
            steps = reals * (np.float32(1) / parameters.scale)
        else:
            steps = reals / parameters.scale
    low = (parameters.low - parameters.zero_point).astype(np.float32)
    high = (parameters.high - parameters.zero_point).astype(np.float32)
    steps = np.where(np.isnan(steps), low, np.clip(steps, low, high))
    return np.asarray(np.rint(steps).astype(np.int64) + parameters.zero_point)


def dequantize(stored: Array, parameters: Affine) -> Array:
    """``float32(q - zp) * scale``."""
    return np.asarray((stored.astype(np.int64) - parameters.zero_point).astype(np.float32) * parameters.scale)


def effective(rule: Rule, left: Affine, right: Affine, output: Affine) -> Array:
    """``s_left * s_right / s_out`` evaluated as the rule says, one or one per scale of ``right``."""
    scales = float(left.scale[0]), right.scale, float(output.scale[0])
    return effective_multiplier(rule.multiplier, *scales)


_ZERO_POINT_AFTER: tuple[Method, ...] = ("float32_half_even", "float64_half_away", "gemmlowp", "ruy")


def requantize(view: LayerView, rule: Rule, acc: Array, effective: Array, output: Affine) -> Array:
    """``acc * effective + zero_point`` within the output's bounds, as int64.

    ``float32_half_even`` (ONNX Runtime): float32 product, rounded half to even, zero point added after.
    ``float64_zero_point_first`` (onnx.reference): float64 product, zero point added *before* rounding.
    ``float32_zero_point_first`` is the same in float32. The others are those of the TFLite family, for
    runtimes that were not examined yet.
    """
    zero_point = int(output.zero_point.reshape(-1)[0])
    if rule.method == "unspecified":  # values to go on with, never compared
        return multiply("float32_half_even", acc, effective, zero_point, output.low, output.high)
    if rule.method in _ZERO_POINT_AFTER:
        return multiply(rule.method, acc, effective, zero_point, output.low, output.high)
    if rule.method == "float64_zero_point_first":
        product = acc.astype(np.float64) * effective.astype(np.float64)
        return np.asarray(np.rint(np.clip(product + zero_point, output.low, output.high)), np.int64)
    if rule.method == "float32_zero_point_first":
        shifted = acc.astype(np.float32) * effective.astype(np.float32) + np.float32(zero_point)
        return np.asarray(np.clip(np.rint(shifted), output.low, output.high), np.int64)
    raise not_defined(view, rule)


def not_defined(view: LayerView, rule: Rule) -> ModelError:
    """The error of a rule whose method says nothing about an op."""
    return ModelError(f"{view}: {rule.method!r} is not defined for this op")


def require_method(view: LayerView, rule: Rule, *methods: Method) -> None:
    """Raises ModelError unless the rule's method is one of ``methods``, or values are computed that are never
    compared."""
    if rule.method not in (*methods, "unspecified"):
        raise not_defined(view, rule)


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
