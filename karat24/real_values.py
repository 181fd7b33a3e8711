"""Real values and wide integers converted to what a model's input takes, with a note, or refused.

A value that no integer of the input stands for is clipped. A few clipped values are outliers; where there
are more, or where all values fall on a few steps, the values are in another unit than the model's, and the
user must say what they mean.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Tensor

Span: TypeAlias = tuple[float, float]
"""The lowest and the highest of a range of real values."""

MOST_CLIPPED = 0.01
"""The largest share of values that may be clipped unless the user asks for clipping."""

FEWEST_STEPS, ENOUGH_VALUES = 4, 64
"""At least :data:`ENOUGH_VALUES` values within fewer quantization steps than :data:`FEWEST_STEPS` are in
another unit than the model's."""


class Fitted(NamedTuple):
    """An array as an input takes it, and what was done to it, '' for nothing."""

    values: Array
    note: str


def quantize_values(values: Array, tensor: Tensor) -> Array:
    """Real values as a tensor's integers, ``clip(rint(x / scale) + zero_point)``; floats pass through."""
    if tensor.dtype not in QUANTIZED_RANGE:
        return np.ascontiguousarray(values, DTYPES[tensor.dtype])
    qmin, qmax = QUANTIZED_RANGE[tensor.dtype]
    with np.errstate(over="ignore"):
        scaled = np.rint(values.astype(np.float32) / np.float32(tensor.scale)) + np.float32(tensor.zero_point)
    codes: Array = np.clip(scaled, qmin, qmax).astype(DTYPES[tensor.dtype])
    return codes


def represented(tensor: Tensor) -> Span:
    """The real values that the integers of a tensor with one scale and zero point stand for."""
    qmin, qmax = QUANTIZED_RANGE[tensor.dtype]
    return (qmin - tensor.zero_point) * tensor.scale, (qmax - tensor.zero_point) * tensor.scale


def require_meaningful(values: Array, tensor: Tensor, what: str, remedy: str) -> int:
    """How many of the real values are clipped when they are quantized as ``tensor`` says.

    Raises FeedError, ending in ``remedy``, for NaN and infinity, for more than :data:`MOST_CLIPPED` clipped
    values, and for many values within :data:`FEWEST_STEPS` steps. ``what`` names the values in messages.
    """
    if not values.size:
        return 0
    least, most = float(values.min()), float(values.max())
    if not np.isfinite(least) or not np.isfinite(most):
        require_finite(values, what)
    low, high = represented(tensor)
    half = tensor.scale / 2
    clipped = 0
    if least < low - half or most > high + half:
        clipped = int(np.count_nonzero((values < low - half) | (values > high + half)))
    about = (
        f"{what} lies between {least:.6g} and {most:.6g}; input {tensor.name!r} is {tensor.dtype} with scale "
        f"{tensor.scale:.6g} and zero point {tensor.zero_point}, which stands for {low:.6g} to {high:.6g}"
    )
    if clipped > MOST_CLIPPED * values.size:
        raise FeedError(f"{about}: {clipped} of {values.size} values would be clipped; {remedy}")
    if values.size >= ENOUGH_VALUES and 0 < most - least < FEWEST_STEPS * tensor.scale:
        steps = int(np.unique(quantize_values(values, tensor)).size)
        raise FeedError(f"{about}: all {values.size} values would fall on {steps} steps; {remedy}")
    return clipped


def require_finite(values: Array, what: str) -> None:
    """Raises FeedError for values that no integer stands for."""
    finite = np.isfinite(values)
    if not finite.all():
        count = int(values.size - np.count_nonzero(finite))
        raise FeedError(
            f"{what} holds {count} of {values.size} values that are NaN or infinite; replace them first"
        )


def quantized(tensor: Tensor, values: Array, what: str) -> Fitted:
    """Floating-point values taken as real values in the model's own unit. Raises as
    :func:`require_meaningful` does."""
    low, high = represented(tensor)
    clipped = require_meaningful(
        values,
        tensor,
        what,
        "say which of your values the whole range of the input stands for with --input-range LOW HIGH "
        f"(--input-range {low:.6g} {high:.6g} clips them)",
    )
    return Fitted(
        quantize_values(values, tensor),
        f"{what}, {values.dtype}, is taken as real values and quantized to {tensor.dtype} with the model's "
        f"scale {tensor.scale:.6g} and zero point {tensor.zero_point} (range {low:.6g} to {high:.6g}); "
        f"{clipped} of {values.size} values clipped",
    )


def spread(tensor: Tensor, values: Array, given: Span, real: Span, what: str) -> Fitted:
    """Values of which ``given`` is mapped to all that the input can hold.

    That is every step of a quantized input, and ``real`` for one in floating point. Values outside are
    clipped. Raises FeedError for NaN, infinity and an input that takes no measured values.
    """
    require_finite(values, what)
    measured = values.astype(np.float64)
    low, high = given
    fraction = np.clip((measured - low) / (high - low), 0, 1)
    clipped = int(np.count_nonzero((measured < low) | (measured > high)))
    if DTYPES[tensor.dtype].kind == "f":
        ends: tuple[float, float] = real
        mapped = real[0] + fraction * (real[1] - real[0])
    elif tensor.dtype in ("int8", "uint8") or (tensor.dtype in QUANTIZED_RANGE and tensor.quantization):
        ends = QUANTIZED_RANGE[tensor.dtype]
        mapped = np.rint(ends[0] + fraction * (ends[1] - ends[0]))
    else:
        raise FeedError(
            f"input {tensor.name!r} takes {tensor.dtype}, which is not quantized; give a .npy of it"
        )
    return Fitted(
        np.ascontiguousarray(mapped, DTYPES[tensor.dtype]),
        f"{what}, {values.dtype}, is mapped to {tensor.dtype}: {low:.6g} to {ends[0]:.6g} and {high:.6g} to "
        f"{ends[1]:.6g}; {clipped} of {values.size} values clipped",
    )


def as_input(tensor: Tensor, values: Array, what: str, given: Span | None, saturates: Span | None) -> Fitted:
    """An array of any numeric type as the input takes it.

    ``given`` is what ``--input-range`` says. ``saturates`` is the range that the layer which quantizes a
    floating-point input can represent. Raises FeedError for what has no clear meaning.
    """
    if values.dtype.kind not in "biuf":
        raise FeedError(f"{what} holds {values.dtype}; an input takes numbers")
    wanted = DTYPES.get(tensor.dtype)
    if wanted is None:
        raise FeedError(f"input {tensor.name!r} is {tensor.dtype}, which no file of values holds")
    if given is not None:
        return spread(tensor, values, given, saturates or (0.0, 1.0), what)
    if wanted.kind == "f" and values.dtype.kind == "f":
        note = "" if values.dtype == wanted else f"{what}, {values.dtype}, is rounded to {tensor.dtype}"
        with np.errstate(over="ignore"):
            rounded = values.astype(wanted, copy=False)
        return Fitted(rounded, "; ".join(filter(None, (note, _saturation(rounded, what, saturates)))))
    if values.dtype == wanted:
        return Fitted(values, "")
    quantization = tensor.quantization
    if values.dtype.kind == "f" and tensor.dtype in QUANTIZED_RANGE and quantization is not None:
        return quantized(tensor, values, what)
    span = f" from {values.min()} to {values.max()}" if values.size else ""
    raise FeedError(
        f"{what} holds {values.dtype}{span} and input {tensor.name!r} takes {tensor.dtype}: if the values "
        "are measured, say which of them the whole range of the input stands for with --input-range LOW "
        f"HIGH; if they are what the model takes already, save them as {tensor.dtype}"
    )


def _saturation(values: Array, what: str, saturates: Span | None) -> str:
    """A warning about values that the model's first layer can only clip."""
    if saturates is None:
        return ""
    low, high = saturates
    outside = int(np.count_nonzero((values < low) | (values > high) | np.isnan(values)))
    if outside <= MOST_CLIPPED * values.size:
        return ""
    return (
        f"warning: {outside} of {values.size} values of {what} lie outside {low:.6g} to {high:.6g}, which is "
        "all that the model's first layer can represent, and saturate there, as they do in every runtime"
    )
