"""Filters of powers of two as integers: ``sign * 2^p = q * 2^e`` with ``q = sign * 2^(p - e)``.

``e`` is the least exponent that is present, in the filter or in an output channel, so that ``q`` is as small
as it can be. Nothing is rounded: sums of ``q * (x - zero point)`` times ``2^e`` are the sums of the float
weights. What does not fit an integer type is refused, never clipped.
"""

from __future__ import annotations

import numpy as np

from karat24.export.quantize.powers_of_two.rounding import PowerFilter
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, Quantization

INT8_SPAN = 6
"""int8 filters are symmetric, -127 … 127, and so hold ±2^0 … ±2^6."""

INT16_SPAN = 14
"""The widest span of a filter kept as int16, which ONNX computes as two int8 convolutions."""

INTEGER_LIMITS = {"int2": (-2, 1), "int4": (-8, 7), "int8": (-127, 127)}
"""Values of the integer types that filters of model files may have."""


def types_that_hold(span: int) -> tuple[str, ...]:
    """Names of the filter types that hold every value of a set whose exponents span so much."""
    greatest = 1 << span
    return tuple(
        name for name, (low, high) in INTEGER_LIMITS.items() if low <= -greatest and greatest <= high
    )


def least_exponents(filter_: PowerFilter, channel_axis: int | None) -> Array:
    """The least exponent present, int64: of each output channel, or of the whole filter (axis None) as one
    value. A channel of zeros has the set's least."""
    rows = _rows(filter_, channel_axis)
    least = np.where(rows.signs != 0, rows.exponents, filter_.powers.greatest).min(axis=1)
    chosen: Array = np.where((rows.signs != 0).any(axis=1), least, filter_.powers.least)
    return chosen


def spans(filter_: PowerFilter, channel_axis: int | None) -> Array:
    """Greatest less least exponent present, int64, channels as for :func:`least_exponents`."""
    rows = _rows(filter_, channel_axis)
    greatest = np.where(rows.signs != 0, rows.exponents, filter_.powers.least).max(axis=1)
    spanned: Array = greatest - least_exponents(filter_, channel_axis)
    return spanned


def as_integers(
    filter_: PowerFilter,
    where: str,
    channel_axis: int | None,
    factors: Array | None = None,
    wide: bool = False,
) -> tuple[Array, Quantization]:
    """``q`` as int8 of the filter's shape, and its parameters: scale ``2^e`` and zero point 0.

    One scale per output channel along ``channel_axis``, or one in all (None). ``factors``, float64
    ``[out_channel]`` and positive, go into the scales, per channel only: that is where batch normalization
    is put. ``wide``: a filter that int8 does not hold becomes int16, if its spans allow.

    Raises UnsupportedOp naming ``where`` (a layer) when the exponents span too much, ModelError for a scale
    that float32 does not hold.
    """
    present = int(spans(filter_, channel_axis).max(initial=0))
    dtype = "int8"
    if present > INT8_SPAN:
        if not wide or present > INT16_SPAN:
            raise UnsupportedOp(f"{where}: {_too_wide(present, channel_axis, wide)}")
        dtype = "int16"
    least = least_exponents(filter_, channel_axis)
    shape = [1] * filter_.signs.ndim
    shape[channel_axis or 0] = -1
    shifts = np.where(filter_.signs != 0, filter_.exponents - least.reshape(shape), 0)
    integers = (filter_.signs.astype(np.int64) << shifts).astype(dtype)
    scales = np.ldexp(np.ones(least.size) if factors is None else factors, least).astype(np.float32)
    parameters = Quantization(
        tuple(float(scale) for scale in scales),
        (0,) * scales.size,
        0 if channel_axis is None else channel_axis,
    )
    return integers, parameters


def _rows(filter_: PowerFilter, channel_axis: int | None) -> PowerFilter:
    """The filter with one row for each scale."""

    def rows(values: Array, dtype: type) -> Array:
        if channel_axis is None:
            return values.reshape(1, -1).astype(dtype)
        return np.moveaxis(values, channel_axis, 0).reshape(values.shape[channel_axis], -1).astype(dtype)

    return PowerFilter(rows(filter_.signs, np.int8), rows(filter_.exponents, np.int64), filter_.powers)


def _too_wide(present: int, channel_axis: int | None, wide: bool) -> str:
    where = "filter" if channel_axis is None else "channel"
    if wide:
        return (
            f"the exponents of a {where} span {present}; two int8 convolutions hold {INT16_SPAN}. "
            "Use fewer bits, or max_span"
        )
    return (
        f"the exponents of a {where} span {present}, and int8 holds {INT8_SPAN}. "
        f"Quantize with max_span={INT8_SPAN}, or with wide=True for an ONNX file of two convolutions"
    )
