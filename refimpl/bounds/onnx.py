"""Intervals of ONNX's float32 layers whose bits depend on the order of a sum. Their checks are the ops'
own."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from karat24.refimpl.bounds.convolution import convolve, spread
from karat24.refimpl.bounds.interval import TINY, Interval
from karat24.refimpl.bounds.pools import means
from karat24.refimpl.bounds.sums import mean_of, rounded_sum, sum_of_products
from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.onnx.table import reduced_axes
from karat24.refimpl.spec.onnx.one_axis import as_image
from karat24.refimpl.spec.onnx.pools import count_taps, windows_of
from karat24.refimpl.spec.onnx.sums import check_convolution
from karat24.refimpl.spec.onnx.unspecified import factors
from karat24.refimpl.spec.shared.geometry import Window
from karat24.refimpl.spec.shared.requirements import operand

TO_NHWC = (0, 2, 3, 1)


def _bias(values: Values, position: int) -> tuple[Array, ...]:
    bias = values[position] if position < len(values) else None
    return () if bias is None else (bias,)


def _channels_first(interval: Interval) -> Interval:
    return Interval(*(np.moveaxis(end, -1, 1) for end in (interval.low, interval.high)))


def conv(view: LayerView, values: Values) -> Interval:
    """Conv, over one to three spatial axes."""
    image = as_image(view, 1)
    over = check_convolution(image, 0, 1)
    data, weights = (operand(values, i).reshape(image.input(i).shape) for i in (0, 1))
    sums = sum_of_products(
        partial(convolve, over, view.integer("group", 1)),
        np.moveaxis(data, 1, -1),
        np.moveaxis(weights, 1, -1),
        math.prod(weights.shape[1:]),
        _bias(values, 2),
    )
    shape = view.output().shape
    return Interval(*(np.moveaxis(end, -1, 1).reshape(shape) for end in (sums.low, sums.high)))


def conv_transpose(view: LayerView, values: Values) -> Interval:
    """ConvTranspose: no output sums more products than there are taps times channels of a group."""
    weights, groups = operand(values, 1), view.integer("group", 1)
    strides, dilations = view.integers("strides", (1, 1)), view.integers("dilations", (1, 1))
    pads = view.integers("pads", (0, 0, 0, 0))
    over_y, over_x = (
        Window(
            view.output().shape[2 + i], view.input(0).shape[2 + i], weights.shape[2 + i], strides[i],
            dilations[i], pads[i],
        )
        for i in (0, 1)
    )  # fmt: skip
    deep, wide = weights.shape[0] // groups, weights.shape[1]
    filters = weights.reshape(groups, deep, wide, *weights.shape[2:]).transpose(0, 2, 3, 4, 1)
    return _channels_first(
        sum_of_products(
            partial(spread, (over_y, over_x), groups),
            operand(values, 0).transpose(TO_NHWC),
            filters.reshape(groups * wide, *weights.shape[2:], deep),
            deep * math.prod(weights.shape[2:]),
            _bias(values, 2),
        )
    )


def matmul(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - every bound takes a view
    """MatMul."""
    left, right = operand(values, 0), operand(values, 1)
    return sum_of_products(np.matmul, left, right, left.shape[-1])


def fused_matmul(view: LayerView, values: Values) -> Interval:
    """ONNX Runtime's FusedMatMul: ``alpha`` is one rounding more."""
    left, right = factors(view, values)
    alpha = float(np.float32(view.real("alpha", 1.0)))
    scaling = int(alpha != 1)
    return sum_of_products(np.matmul, left, right, left.shape[-1], more_roundings=scaling, scale=alpha)


def gemm(view: LayerView, values: Values) -> Interval:
    """Gemm: each term goes through the products with ``alpha`` and ``beta``, too, where they are not 1."""
    left, right = operand(values, 0), operand(values, 1)
    left = left.T if view.integer("transA", 0) else left
    right = right.T if view.integer("transB", 0) else right
    alpha, beta = np.float32(view.real("alpha", 1.0)), np.float32(view.real("beta", 1.0))
    addends = tuple(np.float64(beta) * c.astype(np.float64) for c in _bias(values, 2))
    scalings = int(alpha != 1) + int(bool(addends) and beta != 1)
    return sum_of_products(
        np.matmul, left, right, left.shape[1], addends, more_roundings=scalings, scale=float(alpha)
    )


def reduce_mean(view: LayerView, values: Values) -> Interval:
    """ReduceMean."""
    data, axes = operand(values, 0), _axes(view)
    return mean_of(data, axes, math.prod(data.shape[a] for a in axes)).reshaped(view.output().shape)


def reduce_sum(view: LayerView, values: Values) -> Interval:
    """ReduceSum."""
    return mean_of(operand(values, 0), _axes(view), 1).reshaped(view.output().shape)


def _axes(view: LayerView) -> tuple[int, ...]:
    return tuple(axis % len(view.input(0).shape) for axis in reduced_axes(view))


def global_average_pool(view: LayerView, values: Values) -> Interval:
    """GlobalAveragePool."""
    data = operand(values, 0)
    count = math.prod(data.shape[2:])
    return mean_of(data, tuple(range(2, data.ndim)), count).reshaped(view.output().shape)


def average_pool(view: LayerView, values: Values) -> Interval:
    """AveragePool: the sum of the taps inside the image over the number that counts."""
    data = operand(values, 0)
    over = windows_of(view)
    found = means(over, np.moveaxis(data, 1, -1), count_taps(view, over)[..., None])
    return _channels_first(found)


def batch_normalization(view: LayerView, values: Values) -> Interval:
    """BatchNormalization: ``x s - mean s + bias`` with ``s = scale / sqrt(variance + epsilon)``.

    Whether ``mean`` is subtracted first or ``bias - mean s`` prepared, a term goes through at most four
    roundings in ``s`` (sum, root, reciprocal, product), one product and two additions.
    """
    data, *others = (operand(values, position).astype(np.float64) for position in range(5))
    shape = (-1, *[1] * (data.ndim - 2))
    scale, bias, mean, variance = (other.reshape(shape) for other in others)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + np.float64(np.float32(view.real("epsilon", 1e-5))))
        magnitude = np.abs(data * factor) + np.abs(mean * factor) + np.abs(bias)
        most = (np.abs(data) + np.abs(mean) + 1) * (np.abs(factor) + 1) + np.abs(bias)
        lost = 16 * TINY * most
        return rounded_sum((data - mean) * factor + bias, magnitude, 8, lost)
