"""DEPTHWISE_CONV_2D: each input channel has ``depth_multiplier`` filters of its own."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.geometry import windows
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_rank,
    require_shape,
)
from karat24.refimpl.spec.tflite.hybrid import hybrid, is_hybrid
from karat24.refimpl.spec.tflite.weights import finish, require_weighted, zero_point_removed


def check_depthwise_conv_2d(view: LayerView) -> None:
    """Inputs: input ``[batch, y, x, channel]``, filter ``[1, y, x, channel * depth_multiplier]``,
    optional bias. Per-channel scales lie along the filter's axis 3.
    """
    require_arity(view, 2, optional=1)
    input_, filter_, output = view.input(0), view.input(1), view.output()
    for tensor in (input_, filter_, output):
        require_rank(view, tensor, 4)
    require_weighted(view, input_, filter_, view.optional_input(2), channel_axis=3)
    require(view, filter_.shape[0] == 1, f"a depthwise filter's first size is 1, not {filter_.shape[0]}")
    channels, depth_multiplier = input_.shape[3], view.integer("depth_multiplier")
    require(
        view,
        filter_.shape[3] == channels * depth_multiplier,
        f"{filter_.shape[3]} filters for {channels} channels and depth_multiplier {depth_multiplier}",
    )
    over_y, over_x = windows(view, input_.shape, filter_.shape, dilated=True)
    require_shape(view, output, (input_.shape[0], over_y.output_size, over_x.output_size, filter_.shape[3]))


def depthwise_conv_2d(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Sums of products, requantized; for float32 data scaled (``hybrid``)."""
    if is_hybrid(view):
        return hybrid(view, values, rule, _products)
    input_, filter_ = view.input(0), view.input(1)
    data = zero_point_removed(input_, operand(values, 0))
    weights = zero_point_removed(filter_, operand(values, 1))
    products = _products(view, data, weights)
    return finish(view, input_, filter_, products, values[2] if len(values) > 2 else None, rule)


def _products(view: LayerView, data: Array, weights: Array) -> Array:
    """Output channel ``c * depth_multiplier + m`` is input channel ``c`` under the channel's filter ``m``."""
    input_, filter_, output = view.input(0), view.input(1), view.output()
    _, filter_height, filter_width, out_channels = filter_.shape
    data = np.repeat(data, out_channels // input_.shape[3], axis=3)
    over_y, over_x = windows(view, input_.shape, filter_.shape, dilated=True)

    products = np.zeros(output.shape, np.int64)
    for filter_y in range(filter_height):
        out_y, in_y = over_y.taken(filter_y)
        for filter_x in range(filter_width):
            out_x, in_x = over_x.taken(filter_x)
            seen = data[:, in_y][:, :, in_x]
            products[:, out_y[:, None], out_x] += seen * weights[0, filter_y, filter_x]
    return products
