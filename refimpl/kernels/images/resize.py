"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR over ``[batch, y, x, channel]``.

Which pixels an output lies between, and how far, is settled per row and per
column when the layer is prepared; the loops only weigh four pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.images.resize_float import resize_float
from karat24.refimpl.kernels.images.resize_short import Between, in_short, resize_short
from karat24.refimpl.kernels.images.strided_images import whole_pixels
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.jit.operands import buffer, operand
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Rule

_TEN_BITS, _ELEVEN_BITS = 20, 22
"""Bits of the product of two weights."""


class Modes(NamedTuple):
    """One dimension's sizes and how its coordinates map."""

    size: int
    outputs: int
    align_corners: bool
    half_pixel_centers: bool

    @classmethod
    def of(cls, view: LayerView, axis: int) -> Modes:
        """The modes of dimension ``axis`` (1: y, 2: x)."""
        return cls(
            view.input(0).shape[axis],
            view.output().shape[axis],
            view.flag("align_corners"),
            view.flag("half_pixel_centers"),
        )

    def step32(self) -> np.float32:
        """Input pixels per output pixel, float32."""
        corner = 1 if self.align_corners and self.outputs > 1 else 0
        return np.float32(self.size - corner) / np.float32(self.outputs - corner)


def prepare_resize_bilinear(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """RESIZE_BILINEAR: 10-bit integer (int8), float32 (uint8) or XNNPACK's 11-bit weights."""
    interpolate: Any
    bits = 0
    if rule.method == "xnnpack":
        place, interpolate, bits = _eleven_bit_places, _integer, _ELEVEN_BITS
    elif rule.method not in ("reference", "optimized"):
        raise UnsupportedOp(f"{view}: no kernel resizes by {rule}")
    elif view.output().dtype == "int8":
        place, interpolate, bits = _ten_bit_places, _integer, _TEN_BITS
    else:
        place = _float_places
        interpolate = _float_weight_by_weight if rule.method == "reference" else resize_float
    vertical, horizontal = place(Modes.of(view, 1)), place(Modes.of(view, 2))
    constants: tuple[Any, ...] = vertical, horizontal, np.float32(0.5)
    work = 4 * math.prod(view.output().shape)
    if bits:
        away = bits == _TEN_BITS
        division = Division(np.int32(1 << (bits - 1)), np.int32(-away), np.int32(bits))
        constants = vertical, horizontal, division
        short = in_short(vertical, horizontal, view.input(0).dtype, bits, away)
        if short is not None:
            interpolate, constants, work = resize_short, short, work // 8

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        return buffer(inputs, 0), *constants, whole_pixels(outputs[0])

    tasks = math.prod(view.output().shape[:2])
    return LoopKernel(work, tasks, interpolate, arguments, strided_outputs=True)


def _ten_bit_places(modes: Modes) -> Between:
    """Coordinates in 1/1024 pixel. Source: TFLite ``ComputeInterpolationValuesInteger``."""
    corner = 1 if modes.align_corners and modes.outputs > 1 else 0
    intervals = modes.outputs - corner
    step = (1024 * (modes.size - corner) + intervals // 2) // intervals
    first = step // 2 - 512 if modes.half_pixel_centers else 0
    position = first + step * np.arange(modes.outputs, dtype=np.int64)
    # Only a position above -1 pixel can be negative, so truncating it gives 0.
    lower = np.maximum(position >> 10, 0)
    upper = np.minimum(np.maximum((position + 1023) >> 10, 0), modes.size - 1)
    fraction = (position - 1024 * lower).astype(np.int32)
    return Between(lower, upper, np.int32(1024) - fraction, fraction)


def _float_places(modes: Modes) -> Between:
    """Coordinates in float32 pixels. Source: TFLite ``ComputeInterpolationValues``."""
    offset = np.float32(0.5 if modes.half_pixel_centers else 0.0)
    position = (np.arange(modes.outputs).astype(np.float32) + offset) * modes.step32() - offset
    lower = np.clip(np.floor(position).astype(np.int64), 0, modes.size - 1)
    upper = np.minimum(np.ceil(position).astype(np.int64), modes.size - 1)
    fraction = position - lower.astype(np.float32)
    return Between(lower, upper, np.float32(1) - fraction, fraction)


def _eleven_bit_places(modes: Modes) -> Between:
    """Weights in 1/2048. Source: XNNPACK ``xnn_indirection_init_resize_bilinear2d_hwc_q11``."""
    step = modes.step32()
    offset = np.float32(0.5) * step - np.float32(0.5) if modes.half_pixel_centers else np.float32(0)
    position = np.arange(modes.outputs).astype(np.float32) * step + offset
    position = np.minimum(np.maximum(position, np.float32(0)), np.float32(modes.size - 1))
    lower = position.astype(np.int64)
    upper = np.minimum(lower + 1, modes.size - 1)
    fraction = np.rint((position - lower.astype(np.float32)) * np.float32(2048)).astype(np.int32)
    return Between(lower, upper, np.int32(2048) - fraction, fraction)


class Division(NamedTuple):
    """A division by ``2**places`` that rounds half up, or half away from zero; int32."""

    half: np.int32
    """``2**(places - 1)``."""
    away: np.int32
    """-1 to round half away from zero, else 0. Added to what is negative: half away is half up except for a
    negative tie, and subtracting 1 changes only the tie's result.
    """
    places: np.int32
    """Bits of the product of two weights."""


@task_loop
def _integer(
    image: Any, vertical: Any, horizontal: Any, division: Any, out: Any, begin: int, end: int
) -> None:
    """Sums of ``2**places`` weights, divided.

    They fit an int32: 10-bit weights are 1536 / 1024 at most, and 255 * 2**22 < 2**31.
    """
    _, out_height, out_width, _ = out.shape
    channels = image.shape[3]
    half, away, places, sign = division.half, division.away, division.places, np.int32(31)
    for row in range(begin, end):
        batch, y = row // out_height, row % out_height
        above, below = image[batch, vertical.lower[y]], image[batch, vertical.upper[y]]
        above_weight, below_weight = vertical.lower_weight[y], vertical.upper_weight[y]
        for x in range(out_width):
            left, right = horizontal.lower[x], horizontal.upper[x]
            a, b, c, d = above[left], above[right], below[left], below[right]
            a_weight = np.int32(above_weight * horizontal.lower_weight[x])
            b_weight = np.int32(above_weight * horizontal.upper_weight[x])
            c_weight = np.int32(below_weight * horizontal.lower_weight[x])
            d_weight = np.int32(below_weight * horizontal.upper_weight[x])
            cell = out[batch, y, x]
            for k in range(channels):
                total = np.int32(
                    np.int32(a[k]) * a_weight
                    + np.int32(b[k]) * b_weight
                    + np.int32(c[k]) * c_weight
                    + np.int32(d[k]) * d_weight
                )
                rounded = np.int32(total + half + (np.int32(total >> sign) & away))
                cell[k] = np.int32(rounded >> places)


@task_loop
def _float_weight_by_weight(
    image: Any, vertical: Any, horizontal: Any, half: Any, out: Any, begin: int, end: int
) -> None:
    """Each pixel times its row's weight, then times its column's; TFLite's reference order."""
    _, out_height, out_width, _ = out.shape
    channels = image.shape[3]
    for row in range(begin, end):
        batch, y = row // out_height, row % out_height
        above, below = image[batch, vertical.lower[y]], image[batch, vertical.upper[y]]
        above_weight, below_weight = vertical.lower_weight[y], vertical.upper_weight[y]
        for x in range(out_width):
            left, right = horizontal.lower[x], horizontal.upper[x]
            left_weight, right_weight = horizontal.lower_weight[x], horizontal.upper_weight[x]
            a, b, c, d = above[left], above[right], below[left], below[right]
            cell = out[batch, y, x]
            for k in range(channels):
                total = np.float32(a[k]) * above_weight * left_weight
                total = total + np.float32(c[k]) * below_weight * left_weight
                total = total + np.float32(b[k]) * above_weight * right_weight
                total = total + np.float32(d[k]) * below_weight * right_weight
                cell[k] = np.uint8(np.int32(total + half))


def prepare_resize_nearest(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """RESIZE_NEAREST_NEIGHBOR: a copy of the nearest pixel, of any element type."""
    rows, columns = (_nearest(Modes.of(view, axis), rule) for axis in (1, 2))

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        for image, out in zip(operand(inputs, 0), outputs[0], strict=True):
            for y, source in enumerate(rows):
                np.take(image[source], columns, axis=0, out=out[y], mode="clip")

    return run


def _nearest(modes: Modes, rule: Rule) -> NDArray[np.int64]:
    """The input index behind each output index. Source: TFLite ``GetNearestNeighbor``; in the plain
    mode ``optimized`` takes steps of 1/65536 pixel, rounded up to the next."""
    if rule.method == "optimized" and not (modes.align_corners or modes.half_pixel_centers):
        steps = np.arange(modes.outputs, dtype=np.int64) * (modes.size * 65536 // modes.outputs + 1)
        return np.minimum(steps // 65536, modes.size - 1)
    offset = np.float32(0.5 if modes.half_pixel_centers else 0.0)
    position = (np.arange(modes.outputs).astype(np.float32) + offset) * modes.step32()
    # Exact in float64; positions are not negative, so half away is half up.
    nearest = np.floor(position.astype(np.float64) + (0.5 if modes.align_corners else 0.0))
    return np.clip(nearest.astype(np.int64), 0, modes.size - 1)
