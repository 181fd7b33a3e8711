"""How recorded values may stand for a tensor's: as they are, or after a usual mishap, which is named.

A file that declares another element type or shape than the tensor forces an assumption: the reading with the
fewest differing values is taken and said. A file whose form fits is taken at its word. If its values differ
and another reading gives every one of them, that reading is an explanation, not a match.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Format, Tensor

NEAR_STEP = 1e-3
"""Real values within this part of a step of a tensor's real numbers are those numbers, printed or rounded."""


@dataclass(frozen=True)
class Reading:
    """Values as the tensor has them, and what was assumed for that, nothing where nothing was."""

    values: Array
    assumed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " and ".join(self.assumed)


@dataclass(frozen=True)
class Recorded:
    """An array of a dump. ``formed``: the file itself says its element type and shape."""

    values: Array
    formed: bool = True


def fits(recorded: Recorded, tensor: Tensor) -> bool:
    """Whether the file's own form is the tensor's."""
    values = recorded.values
    return recorded.formed and values.shape == tensor.shape and values.dtype == DTYPES[tensor.dtype]


def best_reading(recorded: Recorded, tensor: Tensor, format: Format, expected: Array | None) -> Reading:
    """The reading nearest to ``expected``; of several, and where nothing is expected, the plainest.

    A form that fits is read as it stands. Raises CannotCompare where the values cannot be the tensor's.
    """
    if fits(recorded, tensor):
        return Reading(recorded.values)
    found = sorted(readings(recorded.values, tensor, format), key=lambda reading: len(reading.assumed))
    if not found:
        values = recorded.values
        span = f", values {values.min()} to {values.max()}" if values.size else ""
        raise CannotCompare(
            f"the recording is {values.dtype} {values.shape}{span}; the model has {tensor.dtype} "
            f"{tensor.shape}{_quantized(tensor)}: neither its integers nor their real values"
        )
    if expected is None:
        return found[0]
    return min(found, key=lambda reading: _differing(reading.values, expected))


def explaining_reading(recorded: Recorded, tensor: Tensor, format: Format, expected: Array) -> Reading | None:
    """The mishap after which values whose form fits would look as they do, where it gives every value."""
    for reading in readings(recorded.values, tensor, format):
        if reading.assumed and _differing(reading.values, expected) == 0:
            return reading
    return None


def _quantized(tensor: Tensor) -> str:
    quantization = tensor.quantization
    if quantization is None or quantization.per_channel:
        return ""
    return f" (scale {quantization.scale[0]:.6g}, zero point {quantization.zero_point[0]})"


def _differing(found: Array, expected: Array) -> int:
    if expected.dtype.kind == "f":
        bits = np.dtype(f"u{expected.dtype.itemsize}")
        found, expected = np.ascontiguousarray(found).view(bits), np.ascontiguousarray(expected).view(bits)
    return int(np.count_nonzero(found != expected))


def readings(values: Array, tensor: Tensor, format: Format) -> Iterator[Reading]:
    """Every way to read ``values``, each of the tensor's element type and shape."""
    for shaped in _shapes(values, tensor.shape, format):
        for typed in _types(shaped.values, tensor):
            yield Reading(typed.values, (*shaped.assumed, *typed.assumed))


def _shapes(values: Array, shape: tuple[int, ...], format: Format) -> Iterator[Reading]:
    """The tensor's shape: as it is, without sizes of 1, from one flat row; each in either layout."""
    if values.size != math.prod(shape):
        return
    flat = values.ndim == 1 and len(shape) != 1
    if values.shape == shape:
        yield Reading(values)
    elif flat:
        yield Reading(values.reshape(shape), ("one row of values in the model's order",))
    elif _without_ones(values.shape) == _without_ones(shape):
        batchless = values.shape == shape[1:]
        said = "without the batch dimension" if batchless else f"of shape {values.shape} for {shape}"
        yield Reading(values.reshape(shape), (said,))
    if len(shape) != 4 or (shape[1] == 1 and shape[2] == 1):
        return
    other, order = ("NCHW", (0, 2, 3, 1)) if format == "tflite" else ("NHWC", (0, 3, 1, 2))
    batch, one, two, three = shape
    swapped = (batch, three, one, two) if format == "tflite" else (batch, two, three, one)
    if flat or values.shape == swapped or (batch == 1 and values.shape == swapped[1:]):
        words: tuple[str, ...] = (
            ("one row of values", f"in {other} layout") if flat else (f"in {other} layout",)
        )
        if values.ndim == 3:
            words = (*words, "without the batch dimension")
        yield Reading(np.ascontiguousarray(values.reshape(swapped).transpose(order)), words)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _types(values: Array, tensor: Tensor) -> Iterator[Reading]:
    """The tensor's element type: as it is, by its bits, by its numbers, from real values."""
    wanted = DTYPES[tensor.dtype]
    if values.dtype == wanted:
        yield Reading(values)
        yield from _other_bytes(values)
        return
    if wanted.kind == "f":
        if values.dtype.kind == "f":
            yield Reading(values.astype(wanted), (f"{values.dtype} for {wanted}",))
        return
    if wanted == np.bool_:
        if values.dtype.kind in "iu" and bool(np.isin(values, (0, 1)).all()):
            yield Reading(values.astype(np.bool_), (f"0 and 1 in {values.dtype}",))
        return
    if values.dtype.kind == "f":
        yield from _from_reals(values, tensor)
    elif values.dtype.kind in "iu":
        yield from _from_integers(values, tensor)


def _other_bytes(values: Array) -> Iterator[Reading]:
    if values.dtype.itemsize > 1:
        yield Reading(values.byteswap(), ("in the other byte order",))
    elif values.dtype.kind in "iu":
        yield Reading(_flip_sign_bits(values), ("off by 128 (the sign bit flipped)",))


def _flip_sign_bits(values: Array) -> Array:
    return (values.view(np.uint8) ^ np.uint8(128)).view(values.dtype)


def _from_integers(values: Array, tensor: Tensor) -> Iterator[Reading]:
    """Integers of another type, in either byte order: the same numbers, the same bits, or 128 apart."""
    wanted = DTYPES[tensor.dtype]
    orders: list[tuple[Array, tuple[str, ...]]] = [(values, ())]
    if values.dtype.itemsize > 1:
        orders.append((values.byteswap(), ("in the other byte order",)))
    for ordered, words in orders:
        if not ordered.size:
            return
        low, high = int(ordered.min()), int(ordered.max())
        limits = np.iinfo(wanted)
        if limits.min <= low and high <= limits.max:
            yield Reading(ordered.astype(wanted), (*words, f"{wanted} held in {values.dtype}"))
        if wanted.itemsize != 1:
            continue
        other = np.dtype("uint8" if wanted == np.int8 else "int8")
        if np.iinfo(other).min <= low and high <= np.iinfo(other).max:
            bits = ordered.astype(other).view(wanted)
            yield Reading(bits, (*words, f"{wanted} seen as {other}"))
            yield Reading(_flip_sign_bits(bits), (*words, f"{other}: {wanted} with 128 added or taken off"))


def _from_reals(values: Array, tensor: Tensor) -> Iterator[Reading]:
    """Floating-point values: the integers themselves, or the real numbers they stand for."""
    if not values.size or not np.isfinite(values).all():
        return
    wanted = DTYPES[tensor.dtype]
    low, high = QUANTIZED_RANGE.get(tensor.dtype, (np.iinfo(wanted).min, np.iinfo(wanted).max))
    reals = values.astype(np.float64)
    rounded = np.rint(reals)
    if bool((rounded == reals).all()) and low <= rounded.min() and rounded.max() <= high:
        yield Reading(rounded.astype(wanted), (f"{wanted} held in {values.dtype}",))
    quantization = tensor.quantization
    if quantization is None or quantization.per_channel:
        return
    scale, zero_point = quantization.scale[0], quantization.zero_point[0]
    with np.errstate(over="ignore"):
        steps = reals / scale
    stored = np.rint(steps) + zero_point
    if (
        bool((np.abs(steps - np.rint(steps)) <= NEAR_STEP).all())
        and low <= stored.min()
        and stored.max() <= high
    ):
        said = f"dequantized with scale {scale:.6g} and zero point {zero_point}"
        yield Reading(stored.astype(wanted), (said,))
