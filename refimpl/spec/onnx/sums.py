"""Integer sums of products: convolutions over NCHW images and products of matrices."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import sum_saturating_pairs
from karat24.refimpl.spec.onnx.parameters import Affine
from karat24.refimpl.spec.onnx.windows import windows
from karat24.refimpl.spec.shared.geometry import Window
from karat24.refimpl.spec.shared.requirements import require, require_rank


def check_convolution(view: LayerView, data: int, filter_: int) -> tuple[Window, Window]:
    """Image ``[batch, channel, y, x]`` and filter ``[out, channel / group, y, x]`` at those inputs.

    Returns the windows over y and x; the output's shape follows from them.
    """
    image, weights = view.input(data), view.input(filter_)
    over_y, over_x = windows(view, image.shape, weights.shape[2:])
    require_rank(view, weights, 4)
    groups = view.integer("group", 1)
    require(
        view,
        groups >= 1 and image.shape[1] == weights.shape[1] * groups and weights.shape[0] % groups == 0,
        f"filter {weights.shape} in {groups} groups for an image {image.shape}",
    )
    kernel = view.integers("kernel_shape", weights.shape[2:])
    require(view, kernel == weights.shape[2:], f"kernel_shape {kernel} but a filter of {weights.shape}")
    expected = (image.shape[0], weights.shape[0], over_y.output_size, over_x.output_size)
    require(
        view,
        view.output().shape == expected,
        f"output has shape {view.output().shape}, the op computes {expected}",
    )
    return over_y, over_x


def convolve(
    view: LayerView,
    rule: Rule,
    over: tuple[Window, Window],
    data: tuple[Array, int],
    weights: tuple[Array, Array],
) -> Array:
    """``sum (image - zp) * (filter - zp)`` as int64 ``[batch, out, y, x]``; padding contributes nothing.

    ``data`` and ``weights`` are the stored values and their zero points; a filter may have one zero
    point per output channel.
    """
    image, zero_point = data[0].astype(np.int64), data[1]
    filters, filter_zero = weights[0].astype(np.int64), weights[1].reshape(-1, 1, 1, 1)
    over_y, over_x = over
    groups = view.integer("group", 1)
    channels, outputs = filters.shape[1], filters.shape[0] // groups
    result = np.zeros(view.output().shape, np.int64)
    for group in range(groups):
        seen = _taps(image[:, group * channels : (group + 1) * channels], zero_point, over_y, over_x)
        own = slice(group * outputs, (group + 1) * outputs)
        flat = filters[own].transpose(0, 2, 3, 1).reshape(outputs, -1)
        zeros = np.broadcast_to(filter_zero, (filters.shape[0], 1, 1, 1))[own].reshape(-1)
        result[:, own] = products(rule, seen, zero_point, flat.T, zeros).transpose(0, 3, 1, 2)
    return result


def _taps(image: Array, zero_point: int, over_y: Window, over_x: Window) -> Array:
    """What each window sees, ``[batch, out_y, out_x, tap_y * tap_x * channel]``; padding: the zero point."""
    batch, channels = image.shape[:2]
    shape = (batch, over_y.output_size, over_x.output_size, over_y.taps, over_x.taps, channels)
    seen = np.full(shape, zero_point, np.int64)
    for tap_y in range(over_y.taps):
        out_y, in_y = over_y.taken(tap_y)
        for tap_x in range(over_x.taps):
            out_x, in_x = over_x.taken(tap_x)
            values = image[:, :, in_y][:, :, :, in_x].transpose(0, 2, 3, 1)
            seen[:, out_y[:, None], out_x, tap_y, tap_x] = values
    return seen.reshape(*shape[:3], -1)


def products(rule: Rule, left: Array, left_zero: int | Array, right: Array, right_zero: Array) -> Array:
    """``(left - zp) @ (right - zp)`` of stored values (int64), summed as the rule says.

    ``right_zero`` has one value per column, or one. With saturating pairs the raw values are
    multiplied, and what the zero points add is taken out afterwards, exactly.
    """
    if rule.accumulation == "exact":
        return np.asarray((left - left_zero) @ (right - right_zero))
    columns = np.moveaxis(right, -1, 0)[..., None, :]
    raw = np.stack([sum_saturating_pairs(left, column) for column in columns], axis=-1)
    depth = left.shape[-1]
    row_sums, column_sums = left.sum(axis=-1, keepdims=True), right.sum(axis=-2, keepdims=True)
    return np.asarray(raw - left_zero * column_sums - right_zero * row_sums + depth * left_zero * right_zero)


def zero_of(parameters: Affine) -> int:
    """The zero point of a tensor with one scale."""
    return int(parameters.zero_point.reshape(-1)[0])
