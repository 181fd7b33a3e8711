"""Quantization of filters: the scale of each, and clipping for a finer scale."""

from __future__ import annotations

import numpy as np

from karat24.export.quantize.affine import MIN_SCALE, Range, parameters_of_range, quantize_array
from karat24.export.quantize.histogram import Histogram
from karat24.export.quantize.ranges import SHRINKS, least_error_range
from karat24.refimpl.graph import Array, Quantization

LEAST_CHANNEL = 2.0**-20
"""A channel's filter scale is at least this share of the greatest in its filter. Anything finer is lost
in an output that has one scale, and XNNPACK refuses multipliers below 2**-32."""

FILTER_TYPE = {"int8": "int8", "uint8": "uint8", "int16": "int8"}
"""Element type of filters, by that of activations."""

FILTER_RANGE = {"int8": (-127, 127), "uint8": (1, 255)}
"""Quantized values a filter uses: the narrow range, so that int8 is symmetric."""

MAX_BIAS = {"int32": 2**30, "int64": 2**46}
"""Greatest magnitude a quantized bias may have, half of what sums may reach: products must fit on top."""


def quantize_filter(
    values: Array,
    bias: Array | None,
    input_scale: float,
    dtype: str,
    per_channel: bool,
    axis: int = 0,
    least_error: bool = False,
    bias_dtype: str = "int32",
) -> tuple[Array, Quantization]:
    """A float32 filter quantized, and its parameters, along ``axis`` (output channels) when per channel.

    int8 is symmetric, uint8 asymmetric and per tensor. The range is that of the weights, or with
    ``least_error`` the one inside it whose quantization has the least squared error. A channel whose
    filter is so small that its bias would not fit ``bias_dtype`` at ``input_scale * scale`` gets the scale
    at which it fits.
    """
    limits = FILTER_RANGE[dtype]
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)
    least = _least_scales(bias, input_scale, len(rows), MAX_BIAS[bias_dtype])
    if dtype == "uint8":
        extent = Range(float(values.min()), float(values.max()))
        if least_error:
            seen = Histogram()
            seen.add(values)
            extent = least_error_range(seen, dtype=dtype, limits=limits)
        whole = parameters_of_range(extent, dtype, limits=limits, least_scale=float(least.max()))
        return quantize_array(values, np.array(whole.scale), np.array(whole.zero_point), limits, dtype), whole

    if not per_channel:
        rows, least = rows.reshape(1, -1), least.max(keepdims=True)
    magnitudes = _clipped_magnitudes(rows, limits) if least_error else np.abs(rows).max(axis=1)
    greatest = float(magnitudes.max()) or 1.0
    scales = np.maximum(np.maximum(magnitudes, greatest * LEAST_CHANNEL) / limits[1], least)
    scales = scales.astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    parameters = Quantization(tuple(float(s) for s in scales), (0,) * len(scales), axis if per_channel else 0)
    return quantize_array(values, scales.reshape(shape), np.zeros(1), limits, dtype), parameters


def _clipped_magnitudes(rows: Array, limits: tuple[int, int]) -> Array:
    """Per row, the magnitude to clip at that gives the least squared error; ties go to the greatest."""
    whole = np.abs(rows).max(axis=1, keepdims=True)
    chosen, least = whole.copy(), np.full_like(whole, np.inf)
    for fraction in SHRINKS:
        scale = np.where(whole > 0, whole * fraction / limits[1], 1.0)
        errors = np.clip(np.rint(rows / scale), *limits) * scale - rows
        error = np.square(errors).sum(axis=1, keepdims=True)
        chosen = np.where(error < least, whole * fraction, chosen)
        least = np.minimum(error, least)
    magnitudes: Array = chosen[:, 0]
    return magnitudes


def _least_scales(bias: Array | None, input_scale: float, channels: int, most: int) -> Array:
    """Per channel, the least filter scale: that at which the bias is ``most``, or ``MIN_SCALE``."""
    if bias is None:
        return np.full(channels, MIN_SCALE)
    return np.maximum(np.abs(bias.astype(np.float64)) / (float(input_scale) * most), MIN_SCALE)
