"""Resize of NCHW images, linear and nearest, in NHWC memory. Source: ONNX Runtime 1.31.1, ``upsample.cc``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.images.resize_float import resize_float
from karat24.refimpl.kernels.images.resize_short import Between
from karat24.refimpl.kernels.images.strided_images import whole_pixels
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.jit.operands import buffer
from karat24.refimpl.kernels.onnx.images import ImageKernel
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Rule

_HALF = np.float32(0.5)

_ELEMENTS_PER_STEP = 2
"""Elements computed in the time of an elementary step of other loops."""


def prepare_resize(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """Resize: copies the nearest pixel, or weighs four in float32; bytes are truncated toward zero."""
    batch, _, height, _ = view.output().shape
    loop: Any
    constants: tuple[Any, ...]
    if view.text("mode", "nearest") == "nearest":
        loop, constants = _copy_nearest, (_nearest(view, 2), _nearest(view, 3))
    else:
        loop, constants = resize_float, (_between(view, 2), _between(view, 3), np.float32(0))

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        return buffer(inputs, 0), *constants, whole_pixels(outputs[0])

    work = math.prod(view.output().shape) // _ELEMENTS_PER_STEP
    return ImageKernel(LoopKernel(work, batch * height, loop, arguments, strided_outputs=True), (0,))


def _coordinates(view: LayerView, axis: int) -> NDArray[np.float32]:
    """Where each output index of ``axis`` lies in the input, float32, not yet clamped."""
    size, outputs = view.input(0).shape[axis], view.output().shape[axis]
    scales = view.optional_input(2) if view.optional_input(3) is None else None
    if scales is None or scales.data is None:
        scale = np.float32(outputs) / np.float32(size)
    else:
        scale = np.float32(scales.data[axis])
    index = np.arange(outputs).astype(np.float32)
    mode = view.text("coordinate_transformation_mode", "half_pixel")
    if scale == 1:
        return index
    if mode == "asymmetric":
        return np.asarray(index / scale, np.float32)
    if outputs == 1 and mode in ("align_corners", "pytorch_half_pixel"):
        return np.zeros(1, np.float32)
    if mode == "align_corners":
        return np.asarray(index * np.float32(size - 1) / np.float32(outputs - 1), np.float32)
    return np.asarray((index + _HALF) / scale - _HALF, np.float32)


def _nearest(view: LayerView, axis: int) -> NDArray[np.int64]:
    """The input index each output index copies."""
    position, last = _coordinates(view, axis), view.input(0).shape[axis] - 1
    mode = view.text("nearest_mode", "round_prefer_floor")
    whole = np.floor(position)
    if mode == "ceil":
        whole = np.ceil(position)
    elif mode != "floor":
        tie = position - whole == _HALF
        above = whole + np.float32(mode == "round_prefer_ceil")
        whole = np.where(tie, above, np.floor(position + _HALF))
    return np.clip(whole, 0, last).astype(np.int64)


def _between(view: LayerView, axis: int) -> Between:
    """Both neighbours of each output index; the weight of one is the distance from the other.

    Where both are one pixel, each weighs one half.
    """
    last = view.input(0).shape[axis] - 1
    position = np.clip(_coordinates(view, axis), np.float32(0), np.float32(last))
    lower = np.minimum(position.astype(np.int64), last)
    upper = np.minimum(lower + 1, last)
    from_lower, from_upper = (np.abs(position - end.astype(np.float32)) for end in (lower, upper))
    weights = (np.where(lower == upper, _HALF, far).astype(np.float32) for far in (from_upper, from_lower))
    return Between(lower, upper, *weights)


@task_loop
def _copy_nearest(image: Any, rows: Any, columns: Any, out: Any, begin: int, end: int) -> None:
    """Output rows ``begin`` … ``end - 1`` of [batch, y, x, channel]."""
    _, out_height, out_width, _ = out.shape
    channels = image.shape[3]
    for row in range(begin, end):
        batch, y = row // out_height, row % out_height
        for x in range(out_width):
            source, cell = image[batch, rows[y], columns[x]], out[batch, y, x]
            for k in range(channels):
                cell[k] = source[k]
