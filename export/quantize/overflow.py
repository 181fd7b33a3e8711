"""Whether any accumulator of a quantized graph can overflow, whatever the input.

The bound is the worst case over all inputs: every input value at whichever end of its type's range
makes the sum larger. Padding contributes 0 and so stays within it.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.export.quantize.affine_layers import AFFINE_LAYERS
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, Graph, LayerView, Tensor

LIMIT = 2**31 - 1

WIDE_LIMIT = 2**47 - 1
"""What sums of 64 bits may reach: TFLite multiplies them by 16 bits."""


def check_accumulators(graph: Graph) -> None:
    """Raises ModelError naming the first layer whose accumulators can leave int32, or, behind int16
    activations and without an int32 bias, 48 bits.

    Also refused: a multiplier above 1 whose left shift can push an int32 accumulator out of int32, since
    runtimes shift before they multiply, and a product of 64 bits of which 32 would not hold the result.
    """
    for view in graph.views():
        if view.op not in AFFINE_LAYERS:
            continue
        reach, multiplier = accumulator_reach(view), _greatest_multiplier(view)
        wide = _is_wide(view)
        if reach > (WIDE_LIMIT if wide else LIMIT):
            holder = "48 bits hold" if wide else "int32 holds"
            raise ModelError(
                f"{view}: accumulators can reach ±{reach}, more than {holder}; use fewer input channels or "
                "smaller kernels (split the layer), or a smaller bias"
            )
        if wide:
            if reach * multiplier > LIMIT:
                raise ModelError(
                    f"{view}: accumulators can reach ±{reach}, which times {multiplier:g} leaves int32; "
                    f"{_too_narrow(view)}"
                )
            continue
        shift = max(math.frexp(multiplier)[1], 0)
        if reach << shift > LIMIT:
            raise ModelError(
                f"{view}: accumulators can reach ±{reach} and are shifted left by {shift}, which leaves "
                f"int32; {_too_narrow(view)}"
            )


def _is_wide(view: LayerView) -> bool:
    """Whether runtimes sum in 64 bits: behind int16 activations, unless the bias is int32."""
    bias = view.optional_input(AFFINE_LAYERS[view.op].bias)
    return view.output().dtype == "int16" and (bias is None or bias.dtype == "int64")


def _too_narrow(view: LayerView) -> str:
    return (
        f"the range of {view.output().name!r} is too narrow for the layer's input and filter: calibrate on "
        "more representative samples"
    )


def accumulator_reach(view: LayerView) -> int:
    """The greatest magnitude an accumulator can take at any moment, in any order of summation.

    ``sum(max((qmin - zx) * w, (qmax - zx) * w))`` and its counterpart, with and without the bias,
    over each output channel's filter; ``w`` is the filter less its zero point. Partial sums are no
    larger, since no term of either sum has the other sign.
    """
    layer = AFFINE_LAYERS[view.op]
    image, filter_ = view.input(layer.input), view.input(layer.filter)
    qmin, qmax = QUANTIZED_RANGE[image.dtype]
    weights = _centered(filter_, view, layer.channel_axis)
    positive, negative = np.maximum(weights, 0).sum(axis=1), np.minimum(weights, 0).sum(axis=1)
    above, below = qmax - image.zero_point, qmin - image.zero_point
    highest = positive * above + negative * below
    lowest = positive * below + negative * above
    bias = _bias(view)
    bounds = [highest, -lowest, highest + bias, -(lowest + bias), np.abs(bias)]
    return max(int(bound.max()) for bound in bounds)


def _centered(filter_: Tensor, view: LayerView, channel_axis: int) -> Array:
    """The filter's values less its zero point, int64 ``[out_channel, rest]``."""
    if filter_.data is None:
        raise ModelError(f"{view}: filter {filter_.name!r} must be constant; its accumulators have no bound")
    assert filter_.quantization is not None
    zero_points = np.array(filter_.quantization.zero_point, np.int64)
    rows = np.moveaxis(filter_.data, channel_axis, 0).reshape(filter_.shape[channel_axis], -1)
    return rows.astype(np.int64) - zero_points[:, None]


def _bias(view: LayerView) -> Array:
    bias = view.optional_input(AFFINE_LAYERS[view.op].bias)
    if bias is None or bias.data is None:
        return np.zeros(1, np.int64)
    return bias.data.astype(np.int64)


def _greatest_multiplier(view: LayerView) -> float:
    """The greatest ``s_in * s_filter / s_out`` of the layer's channels."""
    layer = AFFINE_LAYERS[view.op]
    filter_ = view.input(layer.filter)
    assert filter_.quantization is not None
    return view.input(layer.input).scale * max(filter_.quantization.scale) / view.output().scale
