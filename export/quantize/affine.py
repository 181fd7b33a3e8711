"""Affine parameters from a range, and constants quantized with them.

``real = scale * (q - zero_point)``; scales are float32, everything else is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, Quantization

MIN_SCALE = 2.0**-40
"""No scale is smaller: a product of three of them, of which multipliers and biases are made, is still a
normal float32 number."""


BIAS_RANGE: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"int32": QUANTIZED_RANGE["int32"], "int64": (-(2**47), 2**47 - 1)}
)
"""Values of a bias; TFLite multiplies 64-bit sums of less than 2^47."""


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
        raise ModelError(f"range {values.low!r} … {values.high!r} must be finite in float32")
    if low == high:
        high = 1.0
    if symmetric:
        return Quantization.per_tensor(max(max(-low, high) / qmax, least_scale), 0)
    scale = float(np.float32(max((high - low) / (qmax - qmin), least_scale)))
    zero_point = round(qmin - low / scale)
    return Quantization.per_tensor(scale, min(max(zero_point, qmin), qmax))


def range_of_parameters(parameters: Quantization, dtype: str) -> Range:
    """The range a tensor with per-tensor parameters covers; :func:`parameters_of_range` gives them back,
    unless they are symmetric."""
    (scale,), (zero_point,) = parameters.scale, parameters.zero_point
    qmin, qmax = QUANTIZED_RANGE[dtype]
    return Range((qmin - zero_point) * scale, (qmax - zero_point) * scale)


def quantize_array(
    values: Array, scale: Array, zero_point: Array, limits: tuple[int, int], dtype: str
) -> Array:
    """``clip(rint(values / scale) + zero_point)``; ``scale`` and ``zero_point`` broadcast to ``values``."""
    quantized = np.rint(values.astype(np.float64) / scale.astype(np.float64)) + zero_point
    clipped: Array = np.clip(quantized, *limits).astype(dtype)
    return clipped


def quantize_bias(
    bias: Array, input_scale: float, filter_: Quantization, dtype: str = "int32"
) -> tuple[Array, Quantization]:
    """A float32 bias ``[out_channel]`` as int32 or int64 with scale ``float32(input_scale * filter scale)``,
    zero point 0."""
    scales = np.array(filter_.scale, np.float32) * np.float32(input_scale)
    quantization = Quantization(tuple(float(scale) for scale in scales), (0,) * len(scales), axis=0)
    return quantize_array(bias, scales, np.zeros(1), BIAS_RANGE[dtype], dtype), quantization
