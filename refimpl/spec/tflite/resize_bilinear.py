"""RESIZE_BILINEAR of int8, uint8 and int16 images: three runtimes, three number formats. NHWC.

Input and output share their quantization, so the stored values are interpolated.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    operand,
    require,
    require_arity,
    require_dtype,
    require_same_dtype,
)
from karat24.refimpl.spec.tflite.resize_nearest_neighbor import check_size


def check_resize_bilinear(view: LayerView) -> None:
    """Inputs: image ``[batch, y, x, channel]`` int8, uint8 or int16, size (int32 constant: height, width).

    Attributes ``align_corners`` and ``half_pixel_centers``: at most one is set. Sizes for which 10-bit
    coordinates run past the image are a variant of their own, for which no profile that uses such
    coordinates has a rule.
    """
    require_arity(view, 2)
    require_dtype(view, view.output(), QUANTIZED)
    require_same_dtype(view, view.input(0), view.output())
    check_size(view)
    align_corners, half_pixel_centers = view.flag("align_corners"), view.flag("half_pixel_centers")
    require(
        view,
        not (align_corners and half_pixel_centers),
        "align_corners and half_pixel_centers exclude one another",
    )


def ten_bit_position(
    index: int, size: int, outputs: int, align_corners: bool, half_pixel_centers: bool
) -> int:
    """The position of output ``index`` in the input, in 1/1024 pixel.

    Source: TFLite ``ComputeInterpolationValuesInteger``.
    """
    if align_corners and outputs > 1:
        scale = (1024 * (size - 1) + (outputs - 1) // 2) // (outputs - 1)
    else:
        scale = (1024 * size + outputs // 2) // outputs
    return index * scale + (scale // 2 - 512 if half_pixel_centers else 0)


def ten_bit_positions(
    size: int, outputs: int, align_corners: bool, half_pixel_centers: bool
) -> tuple[Array, Array, Array]:
    """Positions in 1/1024 pixel and the input indices around each, int64; divisions truncate."""
    position = np.array(
        [ten_bit_position(i, size, outputs, align_corners, half_pixel_centers) for i in range(outputs)],
        np.int64,
    )
    lower = np.maximum(_divide_1024(position), 0)
    upper = np.minimum(_divide_1024(position + 1023), size - 1)
    return position, lower, upper


def _divide_1024(x: Array) -> Array:
    """Division as in C, rounded toward zero."""
    return np.where(x >= 0, x // 1024, -(-x // 1024))


def float_positions(
    size: int, outputs: int, align_corners: bool, half_pixel_centers: bool, fused: bool = False
) -> tuple[Array, Array, Array]:
    """Positions in pixels, float32, and the input indices around each, int64.

    ``fused``: computed by a fused multiply-add. Source: TFLite ``ComputeInterpolationValues``.
    """
    if align_corners and outputs > 1:
        scale = np.float32(size - 1) / np.float32(outputs - 1)
    else:
        scale = np.float32(size) / np.float32(outputs)
    index = np.arange(outputs).astype(np.float32)
    offset = np.float32(0.5 if half_pixel_centers else 0.0)
    position = (
        fused_multiply_add(index + offset, scale, -offset) if fused else (index + offset) * scale - offset
    )
    lower = np.clip(np.floor(position).astype(np.int64), 0, size - 1)
    upper = np.minimum(np.ceil(position).astype(np.int64), size - 1)
    return position, lower, upper


def eleven_bit_weights(
    size: int, outputs: int, align_corners: bool, half_pixel_centers: bool
) -> tuple[Array, Array, Array]:
    """Weight of the upper index in 1/2048, and the input indices around each position, int64.

    Source: XNNPACK ``xnn_indirection_init_resize_bilinear2d_hwc_q11``.
    """
    corner = np.float32(1.0 if align_corners and outputs != 1 else 0.0)
    scale = (np.float32(size) - corner) / (np.float32(outputs) - corner)
    last = np.float32(size - 1)
    position = np.arange(outputs).astype(np.float32) * scale
    if half_pixel_centers:
        position = position + (np.float32(0.5) * scale - np.float32(0.5))
    position = np.clip(position, np.float32(0.0), last)
    lower = position.astype(np.int64)
    upper = np.minimum(lower + 1, size - 1)
    weight = np.rint((position - lower.astype(np.float32)) * np.float32(2048.0)).astype(np.int64)
    return weight, lower, upper


def resize_bilinear(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """RESIZE_BILINEAR by the rule's method; ``reference`` differs by element type."""
    image = operand(values, 0)
    _, out_height, out_width, _ = view.output().shape
    modes = view.flag("align_corners"), view.flag("half_pixel_centers")
    vertical = image.shape[1], out_height, *modes
    horizontal = image.shape[2], out_width, *modes
    if rule.method == "xnnpack":
        result = _eleven_bit(image, eleven_bit_weights(*vertical), eleven_bit_weights(*horizontal))
    elif rule.method not in ("reference", "optimized", "reference_fused", "optimized_fused"):
        raise ModelError(f"{view}: RESIZE_BILINEAR by {rule.method!r} is not defined")
    elif image.dtype in (np.int8, np.int16):
        result = _ten_bit(image, ten_bit_positions(*vertical), ten_bit_positions(*horizontal))
    else:
        fused = rule.method.endswith("_fused")
        positions = [float_positions(*axis, fused) for axis in (vertical, horizontal)]
        compute = _float_fused if fused else _float
        result = compute(image, positions[0], positions[1], rule.method)
    return SpecResult((result.astype(image.dtype),))


def _corners(image: Array, y0: Array, y1: Array, x0: Array, x1: Array) -> tuple[Array, Array, Array, Array]:
    """Pixels at (y0, x0), (y0, x1), (y1, x0), (y1, x1): each ``[batch, out_y, out_x, channel]``."""
    top, bottom = image[:, y0], image[:, y1]
    return top[:, :, x0], top[:, :, x1], bottom[:, :, x0], bottom[:, :, x1]


def _ten_bit(
    image: Array, vertical: tuple[Array, Array, Array], horizontal: tuple[Array, Array, Array]
) -> Array:
    """Sums of pixels times products of two 10-bit weights, in 1/2^20, rounded half away from zero."""
    (y, y0, y1), (x, x0, x1) = vertical, horizontal
    dy = (y - 1024 * y0)[None, :, None, None]
    dx = (x - 1024 * x0)[None, None, :, None]
    top_left, top_right, bottom_left, bottom_right = _corners(image.astype(np.int64), y0, y1, x0, x1)
    total = (
        top_left * (1024 - dy) * (1024 - dx)
        + bottom_left * dy * (1024 - dx)
        + top_right * (1024 - dy) * dx
        + bottom_right * dy * dx
    )
    magnitude: Array = (np.abs(total) + 2**19) >> 20
    return np.where(total > 0, magnitude, -magnitude)


def _float(
    image: Array,
    vertical: tuple[Array, Array, Array],
    horizontal: tuple[Array, Array, Array],
    method: Method,
) -> Array:
    """In float32, ``+ 0.5`` and truncated; the optimised kernels first multiply the two weights."""
    (y, y0, y1), (x, x0, x1) = vertical, horizontal
    one, half = np.float32(1.0), np.float32(0.5)
    dy = (y - y0.astype(np.float32))[None, :, None, None]
    dx = (x - x0.astype(np.float32))[None, None, :, None]
    top_left, top_right, bottom_left, bottom_right = _corners(image.astype(np.float32), y0, y1, x0, x1)
    if method == "optimized":
        total = (
            top_left * ((one - dy) * (one - dx))
            + top_right * ((one - dy) * dx)
            + bottom_left * (dy * (one - dx))
            + bottom_right * (dy * dx)
        )
    else:
        total = (
            top_left * (one - dy) * (one - dx)
            + bottom_left * dy * (one - dx)
            + top_right * (one - dy) * dx
            + bottom_right * dy * dx
        )
    return np.asarray(np.trunc(total + half), np.int64)


def _float_fused(
    image: Array,
    vertical: tuple[Array, Array, Array],
    horizontal: tuple[Array, Array, Array],
    method: Method,
) -> Array:
    """The sum as the compiler fuses it on Arm: the second product is rounded, the other ones are fused."""
    (y, y0, y1), (x, x0, x1) = vertical, horizontal
    one = np.float32(1.0)
    dy = (y - y0.astype(np.float32))[None, :, None, None]
    dx = (x - x0.astype(np.float32))[None, None, :, None]
    top_left, top_right, bottom_left, bottom_right = _corners(image.astype(np.float32), y0, y1, x0, x1)
    if method == "optimized_fused":
        total = top_right * ((one - dy) * dx)
        total = fused_multiply_add(top_left, (one - dy) * (one - dx), total)
        total = fused_multiply_add(bottom_left, dy * (one - dx), total)
        total = fused_multiply_add(bottom_right, dy * dx, total)
    else:
        total = bottom_left * dy * (one - dx)
        total = fused_multiply_add(top_left * (one - dy), one - dx, total)
        total = fused_multiply_add(top_right * (one - dy), dx, total)
        total = fused_multiply_add(bottom_right * dy, dx, total)
    return np.asarray(np.trunc(total + np.float32(0.5)), np.int64)


def _eleven_bit(
    image: Array, vertical: tuple[Array, Array, Array], horizontal: tuple[Array, Array, Array]
) -> Array:
    """Two linear interpolations with 11-bit weights, rounded half up once at the end."""
    (wy, y0, y1), (wx, x0, x1) = vertical, horizontal
    wy, wx = wy[None, :, None, None], wx[None, None, :, None]
    top_left, top_right, bottom_left, bottom_right = _corners(image.astype(np.int64), y0, y1, x0, x1)
    top = (top_left << 11) + (top_right - top_left) * wx
    bottom = (bottom_left << 11) + (bottom_right - bottom_left) * wx
    total: Array = (top << 11) + (bottom - top) * wy
    return np.asarray((total + 2**21) >> 22)
