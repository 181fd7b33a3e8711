"""RESIZE_NEAREST_NEIGHBOR: each output pixel copies one input pixel. NHWC."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import round_half_away
from karat24.refimpl.spec.shared.requirements import (
    constant_integers,
    operand,
    require,
    require_arity,
    require_elements,
    require_rank,
    require_same_dtype,
    require_shape,
)


def check_resize_nearest_neighbor(view: LayerView) -> None:
    """Inputs: image ``[batch, y, x, channel]``, size (int32 constant: height, width)."""
    require_arity(view, 2)
    require_same_dtype(view, view.input(0), view.output())
    check_size(view)
    if max(view.input(0).shape[1:3]) >= 2**15:
        raise UnsupportedOp(
            f"{view}: an image of {view.input(0).shape}; from 32768 pixels on the runtimes' indices overflow"
        )


def check_size(view: LayerView) -> None:
    """The check of image, size and output of both resizes."""
    image, output = view.input(0), view.output()
    require_rank(view, image, 4)
    require_elements(view, image)
    height, width = constant_integers(view, 1, "the size", (2,))
    require(view, height >= 1 and width >= 1, f"size {height}×{width} is empty")
    require_shape(view, output, (image.shape[0], height, width, image.shape[3]))
    view.flag("align_corners")
    view.flag("half_pixel_centers")


def nearest_indices(size: int, outputs: int, align_corners: bool, half_pixel_centers: bool) -> Array:
    """The input index of each of ``outputs`` positions, int64, computed in float32.

    Source: TFLite ``GetNearestNeighbor``.
    """
    if align_corners and outputs > 1:
        scale = np.float32(size - 1) / np.float32(outputs - 1)
    else:
        scale = np.float32(size) / np.float32(outputs)
    offset = np.float32(0.5 if half_pixel_centers else 0.0)
    position = (np.arange(outputs).astype(np.float32) + offset) * scale
    index = round_half_away(position) if align_corners else np.floor(position)
    return np.clip(index.astype(np.int64), 0, size - 1)


def fixed_point_indices(size: int, outputs: int) -> Array:
    """Input indices by a step in 1/65536 pixel, one unit too large so that it is never 0.

    Exact multiples, which float32 can miss from below, are therefore right. This is the mode with neither
    ``align_corners`` nor ``half_pixel_centers``.

    Source: TFLite ``optimized_ops::ResizeNearestNeighbor``.
    """
    step = (size << 16) // outputs + 1
    return np.array([min((index * step) >> 16, size - 1) for index in range(outputs)], np.int64)


def resize_nearest_neighbor(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """RESIZE_NEAREST_NEIGHBOR by the rule's method; ``optimized`` only differs in the plain mode."""
    image = operand(values, 0)
    _, out_height, out_width, _ = view.output().shape
    modes = view.flag("align_corners"), view.flag("half_pixel_centers")
    if rule.method == "optimized" and modes == (False, False):
        ys = fixed_point_indices(image.shape[1], out_height)
        xs = fixed_point_indices(image.shape[2], out_width)
    else:
        ys = nearest_indices(image.shape[1], out_height, *modes)
        xs = nearest_indices(image.shape[2], out_width, *modes)
    return SpecResult((image[:, ys][:, :, xs],))
