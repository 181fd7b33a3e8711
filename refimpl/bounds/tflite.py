"""Intervals of TFLite's float32 layers: convolutions, fully connected layers, means, pools, sums."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from karat24.refimpl.bounds.convolution import convolve, spread
from karat24.refimpl.bounds.interval import Interval
from karat24.refimpl.bounds.pools import counts, means
from karat24.refimpl.bounds.sums import mean_of, sum_of_products
from karat24.refimpl.contract import Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.spec.shared.geometry import Window, windows
from karat24.refimpl.spec.shared.requirements import (
    broadcast,
    constant_integers,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_shape,
    require_taps,
)
from karat24.refimpl.spec.tflite.mean import reduced_axes, reduced_shape

ACTIVATIONS = {"NONE": None, "RELU": (0.0, math.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
"""Fused activations that only clamp, with their bounds; an interval is clamped as its values are."""


def require_float(view: LayerView, first: int = 0) -> None:
    """Inputs from ``first`` on and outputs are float32 and hold values; the fused activation only clamps."""
    for tensor in (*view.inputs[first:], *view.outputs):
        if tensor is not None:
            require_dtype(view, tensor, ("float32",))
            require_elements(view, tensor)
    activation = view.text("fused_activation_function", "NONE")
    if activation not in ACTIVATIONS:
        raise UnsupportedOp(f"{view}: no bound of float32 with the fused activation {activation}")


def activated(view: LayerView, interval: Interval) -> Interval:
    """The interval behind the fused activation."""
    ends = ACTIVATIONS[view.text("fused_activation_function", "NONE")]
    if ends is None:
        return interval
    low, high = (np.float32(end) for end in ends)
    return Interval(np.clip(interval.low, low, high), np.clip(interval.high, low, high))


def _bias(values: Values, position: int) -> tuple[Array, ...]:
    bias = values[position] if position < len(values) else None
    return () if bias is None else (bias,)


def _require_bias(view: LayerView, position: int, channels: int) -> None:
    bias = view.optional_input(position)
    if bias is not None:
        require_shape(view, bias, (channels,))


def check_conv_2d(view: LayerView) -> None:
    """As the 8-bit one: input ``[batch, y, x, channel]``, filter OHWI, optional bias ``[O]``."""
    require_arity(view, 2, optional=1)
    require_float(view)
    input_, filter_ = view.input(0), view.input(1)
    for tensor in (input_, filter_):
        require_rank(view, tensor, 4)
    out_channels, _, _, group_channels = filter_.shape
    groups = input_.shape[3] // group_channels
    fits = groups * group_channels == input_.shape[3] and groups >= 1 and out_channels % groups == 0
    require(view, fits, f"filter {filter_.shape} for an input of {input_.shape}")
    _require_bias(view, 2, out_channels)
    over_y, over_x = windows(view, input_.shape, filter_.shape, dilated=True)
    sizes = over_y.output_size, over_x.output_size
    require_shape(view, view.output(), (input_.shape[0], *sizes, out_channels))


def conv_2d(view: LayerView, values: Values) -> Interval:
    """CONV_2D, in groups where the filter has fewer channels than the input."""
    filter_ = view.input(1)
    over = windows(view, view.input(0).shape, filter_.shape, dilated=True)
    groups = view.input(0).shape[3] // filter_.shape[3]
    sums = sum_of_products(
        partial(convolve, over, groups),
        operand(values, 0),
        operand(values, 1),
        math.prod(filter_.shape[1:]),
        _bias(values, 2),
    )
    return activated(view, sums)


def check_depthwise_conv_2d(view: LayerView) -> None:
    """Input ``[batch, y, x, channel]``, filter ``[1, y, x, channel * depth_multiplier]``, optional bias."""
    require_arity(view, 2, optional=1)
    require_float(view)
    input_, filter_ = view.input(0), view.input(1)
    for tensor in (input_, filter_):
        require_rank(view, tensor, 4)
    channels = filter_.shape[3]
    fits = filter_.shape[0] == 1 and channels == input_.shape[3] * view.integer("depth_multiplier")
    require(view, fits, f"filter {filter_.shape} for an input of {input_.shape}")
    _require_bias(view, 2, channels)
    over_y, over_x = windows(view, input_.shape, filter_.shape, dilated=True)
    require_shape(view, view.output(), (input_.shape[0], over_y.output_size, over_x.output_size, channels))


def depthwise_conv_2d(view: LayerView, values: Values) -> Interval:
    """DEPTHWISE_CONV_2D: a group per input channel."""
    filter_ = view.input(1)
    over = windows(view, view.input(0).shape, filter_.shape, dilated=True)
    sums = sum_of_products(
        partial(convolve, over, view.input(0).shape[3]),
        operand(values, 0),
        operand(values, 1).transpose(3, 1, 2, 0),
        math.prod(filter_.shape[1:3]),
        _bias(values, 2),
    )
    return activated(view, sums)


def check_transpose_conv(view: LayerView) -> None:
    """Output shape (constant), filter OHWI, input ``[batch, y, x, channel]``, optional bias ``[O]``."""
    require_arity(view, 3, optional=1)
    require_float(view, first=1)
    filter_, input_, output = view.input(1), view.input(2), view.output()
    for tensor in (filter_, input_, output):
        require_rank(view, tensor, 4)
    require_shape(view, output, constant_integers(view, 0, "the output shape", (4,)))
    over_y, over_x = windows(view, output.shape, filter_.shape, dilated=False)
    sizes = over_y.output_size, over_x.output_size
    require_shape(view, input_, (output.shape[0], *sizes, filter_.shape[3]))
    require_shape(view, output, (*output.shape[:3], filter_.shape[0]))
    _require_bias(view, 3, filter_.shape[0])


def transpose_conv(view: LayerView, values: Values) -> Interval:
    """TRANSPOSE_CONV: no output sums more products than there are taps times channels."""
    filter_ = view.input(1)
    over = windows(view, view.output().shape, filter_.shape, dilated=False)
    sums = sum_of_products(
        partial(spread, over, 1),
        operand(values, 2),
        operand(values, 1),
        math.prod(filter_.shape[1:]),
        _bias(values, 3),
    )
    return activated(view, sums)


def check_fully_connected(view: LayerView) -> None:
    """Input of any rank, read as rows of I values; filter ``[O, I]``, optional bias ``[O]``."""
    require_arity(view, 2, optional=1)
    require_float(view)
    input_, filter_ = view.input(0), view.input(1)
    require_rank(view, filter_, 2)
    wide, deep = filter_.shape
    elements = math.prod(input_.shape)
    require(view, elements % deep == 0, f"{elements} input values are not whole rows of {deep}")
    _require_bias(view, 2, wide)
    kept = view.flag("keep_num_dims")
    require_shape(view, view.output(), (*input_.shape[:-1], wide) if kept else (elements // deep, wide))


def fully_connected(view: LayerView, values: Values) -> Interval:
    """FULLY_CONNECTED."""
    weights = operand(values, 1)
    deep = weights.shape[1]
    rows = operand(values, 0).reshape(-1, deep)
    sums = sum_of_products(np.matmul, rows, weights.T, deep, _bias(values, 2))
    return activated(view, sums.reshaped(view.output().shape))


def check_batch_matmul(view: LayerView) -> None:
    """Two matrices, or stacks of them that broadcast; ``adj_x`` and ``adj_y`` transpose them."""
    require_arity(view, 2)
    require_float(view)
    for tensor in (view.input(0), view.input(1)):
        require_rank(view, tensor, 2, 8)
    left, right = _matrices(view, view.input(0).shape, view.input(1).shape)
    require(view, left[-1] == right[-2], f"{left} times {right}")
    stack = broadcast(view, left[:-2], right[:-2])
    require_shape(view, view.output(), (*stack, left[-2], right[-1]))


def _matrices(view: LayerView, *shapes: tuple[int, ...]) -> list[tuple[int, ...]]:
    flags = view.flag("adj_x"), view.flag("adj_y")
    return [
        (*shape[:-2], shape[-1], shape[-2]) if flag else shape
        for shape, flag in zip(shapes, flags, strict=True)
    ]


def batch_matmul(view: LayerView, values: Values) -> Interval:
    """BATCH_MATMUL."""
    left, right = operand(values, 0), operand(values, 1)
    left = left.swapaxes(-1, -2) if view.flag("adj_x") else left
    right = right.swapaxes(-1, -2) if view.flag("adj_y") else right
    return sum_of_products(np.matmul, left, right, left.shape[-1])


def check_mean(view: LayerView) -> None:
    """Inputs: data, constant axes. Attribute ``keep_dims``."""
    require_arity(view, 2)
    require_dtype(view, view.input(0), ("float32",))
    require_dtype(view, view.output(), ("float32",))
    require_elements(view, view.input(0))
    require_shape(view, view.output(), reduced_shape(view, reduced_axes(view)))


def mean(view: LayerView, values: Values) -> Interval:
    """MEAN."""
    axes = reduced_axes(view)
    count = math.prod(view.input(0).shape[axis] for axis in axes)
    return mean_of(operand(values, 0), axes, count).reshaped(view.output().shape)


def sum_(view: LayerView, values: Values) -> Interval:
    """SUM."""
    return mean_of(operand(values, 0), reduced_axes(view), 1).reshaped(view.output().shape)


def check_average_pool_2d(view: LayerView) -> None:
    """Input ``[batch, y, x, channel]``."""
    require_arity(view, 1)
    require_float(view)
    require_rank(view, view.input(0), 4)
    require_taps(view, view.integer("filter_height"), view.integer("filter_width"))
    over_y, over_x = _pool(view)
    batch, *_, channels = view.input(0).shape
    require_shape(view, view.output(), (batch, over_y.output_size, over_x.output_size, channels))


def _pool(view: LayerView) -> tuple[Window, Window]:
    taps = 1, view.integer("filter_height"), view.integer("filter_width"), 1
    return windows(view, view.input(0).shape, taps, dilated=False)


def average_pool_2d(view: LayerView, values: Values) -> Interval:
    """AVERAGE_POOL_2D: the mean of the taps inside the image."""
    over = _pool(view)
    return activated(view, means(over, operand(values, 0), counts(over)))
