"""CONV_2D: ``acc[n, y, x, o] = bias[o] + sum over taps and channels of (input - zp) * (filter - zp)``."""

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


def check_conv_2d(view: LayerView) -> None:
    """Inputs: input ``[batch, y, x, channel]``, filter OHWI, optional bias ``[O]``.

    The filter's I divides the input's channels; the quotient is the number of
    groups, which divides O.
    """
    require_arity(view, 2, optional=1)
    input_, filter_, output = view.input(0), view.input(1), view.output()
    for tensor in (input_, filter_, output):
        require_rank(view, tensor, 4)
    require_weighted(view, input_, filter_, view.optional_input(2), channel_axis=0)
    out_channels, _, _, group_channels = filter_.shape
    channels = input_.shape[3]
    require(
        view,
        channels % group_channels == 0,
        f"{channels} input channels must be a multiple of the filter's {group_channels}",
    )
    groups = channels // group_channels
    require(view, out_channels % groups == 0, f"{out_channels} output channels for {groups} groups")
    over_y, over_x = windows(view, input_.shape, filter_.shape, dilated=True)
    require_shape(view, output, (input_.shape[0], over_y.output_size, over_x.output_size, out_channels))


def conv_2d(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Sums of products, requantized; for float32 data scaled (``hybrid``)."""
    if is_hybrid(view):
        return hybrid(view, values, rule, _products)
    input_, filter_ = view.input(0), view.input(1)
    data = zero_point_removed(input_, operand(values, 0))
    weights = zero_point_removed(filter_, operand(values, 1))
    products = _products(view, data, weights)
    return finish(view, input_, filter_, products, values[2] if len(values) > 2 else None, rule)


def _products(view: LayerView, data: Array, weights: Array) -> Array:
    """Sums one filter tap after the other. Group g reads its own slice of the input channels."""
    input_, filter_, output = view.input(0), view.input(1), view.output()
    out_channels, filter_height, filter_width, group_channels = filter_.shape
    groups = input_.shape[3] // group_channels
    group_outputs = out_channels // groups
    over_y, over_x = windows(view, input_.shape, filter_.shape, dilated=True)

    products = np.zeros(output.shape, np.int64)
    for filter_y in range(filter_height):
        out_y, in_y = over_y.taken(filter_y)
        for filter_x in range(filter_width):
            out_x, in_x = over_x.taken(filter_x)
            seen = data[:, in_y][:, :, in_x]
            for group in range(groups):
                in_slice = slice(group * group_channels, (group + 1) * group_channels)
                out_slice = slice(group * group_outputs, (group + 1) * group_outputs)
                taps = weights[out_slice, filter_y, filter_x, :]
                products[:, out_y[:, None], out_x, out_slice] += seen[..., in_slice] @ taps.T
    return products
