"""Affine parameters from a range, and constants quantized with them.

``real = scale * (q - zero_point)``; scales are float32, everything else is computed in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from refimpl.errors import ModelError
from refimpl.graph import QUANTIZED_RANGE, Array, Quantization

MIN_SCALE = 2.0**-40
"""No scale is smaller: a product of three of them, of which multipliers and biases are made, is still a
normal float32 number."""

LEAST_CHANNEL = 2.0**-20
"""A channel's filter scale is at least this share of the greatest in its filter. Anything finer is lost
in an output that has one scale, and XNNPACK refuses multipliers below 2**-32."""

FILTER_RANGE = {"int8": (-127, 127), "uint8": (1, 255)}
"""Quantized values a filter uses: the narrow range, so that int8 is symmetric."""

MAX_BIAS = 2**30
"""Greatest magnitude a quantized bias may have, half of int32: products must fit on top."""


class Range(NamedTuple):
    """Least and greatest real value a tensor is taken to have."""

    low: float
    high: float

    def hull(self, other: Range) -> Range:
        """The smallest range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


def parameters_of_range(
    values: Range,
    dtype: str,
    symmetric: bool = False,
    limits: tuple[int, int] | None = None,
    least_scale: float = MIN_SCALE,
) -> Quantization:
    """Per-tensor parameters that cover a range, 0 included, with 0 exactly representable.

    Asymmetric: ``scale = (high - low) / (qmax - qmin)``, zero point ``qmin - low / scale`` rounded half
    to even. Symmetric: ``scale = max(-low, high) / qmax``, zero point 0. ``limits`` are the (qmin, qmax)
    used, those of ``dtype`` unless given. A range of nothing but 0 (a dead layer) is taken as 0 … 1.
    Raises ModelError when the range is not finite.
    """
    qmin, qmax = limits or QUANTIZED_RANGE[dtype]
    low, high = min(float(values.low), 0.0), max(float(values.high), 0.0)
    if not (math.isfinite(low) and math.isfinite(high)) or high - low > float(np.finfo(np.float32).max):
        raise ModelError(f"range {values.low!r} … {values.high!r} is no finite float32 range")
    if low == high:
        high = 1.0
    if symmetric:
        return Quantization.per_tensor(max(max(-low, high) / qmax, least_scale), 0)
    scale = float(np.float32(max((high - low) / (qmax - qmin), least_scale)))
    zero_point = round(qmin - low / scale)
    return Quantization.per_tensor(scale, min(max(zero_point, qmin), qmax))


def quantize_array(
    values: Array, scale: Array, zero_point: Array, limits: tuple[int, int], dtype: str
) -> Array:
    """``clip(rint(values / scale) + zero_point)``; ``scale`` and ``zero_point`` broadcast to ``values``."""
    quantized = np.rint(values.astype(np.float64) / scale.astype(np.float64)) + zero_point
    clipped: Array = np.clip(quantized, *limits).astype(dtype)
    return clipped


def quantize_filter(
    values: Array, bias: Array | None, input_scale: float, dtype: str, per_channel: bool
) -> tuple[Array, Quantization]:
    """A float32 filter ``[out_channel, …]`` quantized, and its parameters (axis 0 when per channel).

    int8 is symmetric, uint8 asymmetric and per tensor. A channel whose filter is so small that its bias
    would not fit int32 at ``input_scale * scale`` gets the scale at which it fits.
    """
    limits = FILTER_RANGE[dtype]
    least = _least_scales(bias, input_scale, channels=values.shape[0])
    if dtype == "uint8":
        extent = Range(float(values.min()), float(values.max()))
        whole = parameters_of_range(extent, dtype, limits=limits, least_scale=float(least.max()))
        return quantize_array(values, np.array(whole.scale), np.array(whole.zero_point), limits, dtype), whole

    magnitudes = np.abs(values.reshape(values.shape[0], -1).astype(np.float64)).max(axis=1)
    greatest = float(magnitudes.max()) or 1.0
    if not per_channel:
        magnitudes, least = magnitudes.max(keepdims=True), least.max(keepdims=True)
    scales = np.maximum(np.maximum(magnitudes, greatest * LEAST_CHANNEL) / limits[1], least)
    scales = scales.astype(np.float32)
    broadcast = scales.reshape(-1, *[1] * (values.ndim - 1))
    quantization = Quantization(tuple(float(scale) for scale in scales), (0,) * len(scales), axis=0)
    return quantize_array(values, broadcast, np.zeros(1), limits, dtype), quantization


def quantize_bias(bias: Array, input_scale: float, filter_: Quantization) -> tuple[Array, Quantization]:
    """A float32 bias ``[out_channel]`` as int32 with scale ``float32(input_scale * filter scale)``,
    zero point 0."""
    scales = np.array(filter_.scale, np.float32) * np.float32(input_scale)
    quantization = Quantization(tuple(float(scale) for scale in scales), (0,) * len(scales), axis=0)
    limits = QUANTIZED_RANGE["int32"]
    return quantize_array(bias, scales, np.zeros(1), limits, "int32"), quantization


def _least_scales(bias: Array | None, input_scale: float, channels: int) -> Array:
    """Per channel, the least filter scale: that at which the bias is ``MAX_BIAS``, or ``MIN_SCALE``."""
    if bias is None:
        return np.full(channels, MIN_SCALE)
    return np.maximum(np.abs(bias.astype(np.float64)) / (float(input_scale) * MAX_BIAS), MIN_SCALE)
