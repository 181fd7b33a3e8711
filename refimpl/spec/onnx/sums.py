"""Integer sums of products: convolutions over images, channels first, and products of matrices."""

from __future__ import annotations

import itertools

import numpy as np

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import sum_saturating_pairs
from karat24.refimpl.spec.onnx.parameters import Affine
from karat24.refimpl.spec.onnx.windows import windows_over
from karat24.refimpl.spec.shared.geometry import Window, taken_by
from karat24.refimpl.spec.shared.requirements import require, require_rank


def check_convolution(view: LayerView, data: int, filter_: int) -> tuple[Window, ...]:
    """Image ``[batch, channel, y, x]`` and filter ``[out, channel / group, y, x]`` at those inputs, or both
    over three spatial axes.

    Returns the windows over each axis; the output's shape follows from them.
    """
    image, weights = view.input(data), view.input(filter_)
    if len(image.shape) not in (4, 5):
        raise UnsupportedOp(
            f"{view}: images of shape {image.shape}; one to three spatial axes are implemented"
        )
    require_rank(view, weights, len(image.shape))
    over = windows_over(view, image.shape, weights.shape[2:])
    groups = view.integer("group", 1)
    require(
        view,
        groups >= 1 and image.shape[1] == weights.shape[1] * groups and weights.shape[0] % groups == 0,
        f"filter {weights.shape} in {groups} groups for an image {image.shape}",
    )
    kernel = view.integers("kernel_shape", weights.shape[2:])
    require(view, kernel == weights.shape[2:], f"kernel_shape {kernel} but a filter of {weights.shape}")
    expected = (image.shape[0], weights.shape[0], *(axis.output_size for axis in over))
    require(
        view,
        view.output().shape == expected,
        f"output has shape {view.output().shape}, the op computes {expected}",
    )
    return over


def convolve(
    view: LayerView,
    rule: Rule,
    over: tuple[Window, ...],
    data: tuple[Array, int],
    weights: tuple[Array, Array],
) -> Array:
    """``sum (image - zp) * (filter - zp)`` as int64 ``[batch, out, ...]``; padding contributes nothing.

    ``data`` and ``weights`` are the stored values and their zero points; a filter may have one zero
    point per output channel.
    """
    image, zero_point = data[0].astype(np.int64), data[1]
    filters = weights[0].astype(np.int64)
    filter_zero = np.broadcast_to(weights[1].reshape(-1), filters.shape[:1])
    groups = view.integer("group", 1)
    channels, outputs = filters.shape[1], filters.shape[0] // groups
    result = np.zeros(view.output().shape, np.int64)
    for group in range(groups):
        seen = _taps(image[:, group * channels : (group + 1) * channels], zero_point, over)
        own = slice(group * outputs, (group + 1) * outputs)
        flat = np.moveaxis(filters[own], 1, -1).reshape(outputs, -1)
        sums = products(rule, seen, zero_point, flat.T, filter_zero[own])
        result[:, own] = np.moveaxis(sums, -1, 1)
    return result


def _taps(image: Array, zero_point: int, over: tuple[Window, ...]) -> Array:
    """What each window sees, ``[batch, out..., taps... * channel]``; padding: the zero point."""
    batch, channels = image.shape[:2]
    outputs, kernel = tuple(axis.output_size for axis in over), tuple(axis.taps for axis in over)
    seen = np.full((batch, *outputs, *kernel, channels), zero_point, np.int64)
    for taps in itertools.product(*map(range, kernel)):
        out, taken = taken_by(over, taps)
        values = image[(slice(None), slice(None), *taken)]
        seen[(slice(None), *out, *taps)] = np.moveaxis(values, 1, -1)
    return seen.reshape(batch, *outputs, -1)


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
