"""A layer with accumulators as models whose accumulators are known: a batch of single windows each.

The op, scales, zero points, numbers of channels, filter sizes, strides, dilations, groups and the fused
activation are the layer's own; filter, bias and input are not, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from karat24.export.cut import single_layer
from karat24.golden.certify.placement import Placement, Taps, placements
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import (
    DTYPES,
    QUANTIZED_RANGE,
    Array,
    AttributeValue,
    Graph,
    LayerView,
    Quantization,
    Tensor,
)
from karat24.refimpl.staircase.linear_form import data_range, data_zero_point, filter_zero_points
from karat24.refimpl.staircase.requantization import ACCUMULATING


@dataclass(frozen=True, eq=False)
class PlacedLayer:
    """A graph of one layer, and what it is fed."""

    graph: Graph
    feed: Array


@dataclass(frozen=True, eq=False)
class _Arrays:
    """A placement in an op's layouts: data, filter and output shape, and attributes that change."""

    data: Array
    filter: Array
    output: tuple[int, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


def placed_layers(
    graph: Graph, layer: int, thresholds: list[Array], with_bias: bool
) -> Iterator[PlacedLayer]:
    """Models that together put each channel on each of its ``thresholds`` and on the accumulator below.

    Without a bias some taps see an input in every window and take its place: thresholds that these do not
    reach are left out.

    Raises CannotCompare for a layer that such models cannot be made of.
    """
    cut = single_layer(graph, layer).graph
    view = cut.view(0)
    operands = ACCUMULATING[view.op]
    if view.input(operands.data).is_constant:
        raise CannotCompare("its data are constant, so no input reaches it")
    low, high = _weight_range(view)
    shape = view.input(operands.filter).shape
    taps = Taps(_tap_count(view, shape), data_range(view), (low, high))
    arrange = _ARRANGEMENTS[view.op]
    reserved = 0
    if not with_bias:
        largest = max((int(np.abs(found).max()) for found in thresholds if found.size), default=0)
        reserved = min(_taps_for(largest, taps), taps.count - 1)
        if reserved == 0:
            raise CannotCompare("one product and no bias place no accumulator of choice")
        least, most = taps.span(reserved - 1)
        thresholds = [found[(found - 1 > least) & (found < most)] for found in thresholds]
        taps = replace(taps, count=taps.count - reserved)
    for placement in placements(thresholds, taps):
        if reserved:
            placement = _with_bias_in_taps(placement, taps, reserved)
        yield _placed(cut, view, arrange(view, placement), None if reserved else placement.bias)


def _weight_range(view: LayerView) -> tuple[int, int]:
    """Least and greatest weight without its zero point that every channel can have; int8 filters of zero
    point 0 are kept symmetric, as quantizers do."""
    filter_ = view.input(ACCUMULATING[view.op].filter)
    low, high = QUANTIZED_RANGE[filter_.dtype]
    zeros = filter_zero_points(view)
    if filter_.dtype == "int8" and not zeros.any():
        low = -high
    return low - int(zeros.min()), high - int(zeros.max())


def _tap_count(view: LayerView, shape: tuple[int, ...]) -> int:
    """Products behind one output of the models made here."""
    if view.op == "TRANSPOSE_CONV":
        return shape[3]
    if view.op == "DEPTHWISE_CONV_2D":
        return shape[1] * shape[2]
    if view.op == "QLinearMatMul":
        return shape[-2] if len(shape) > 1 else shape[0]
    if view.op == "com.microsoft:QGemm":
        return shape[1] if view.integer("transB", 0) else shape[0]
    return int(np.prod(shape[1:]))


def _convolution(view: LayerView, placement: Placement) -> _Arrays:
    shape = view.input(1).shape
    channels, taps_y, taps_x, depth = shape
    windows = placement.inputs.reshape(-1, taps_y, taps_x, depth)
    groups = view.input(0).shape[3] // depth
    data = _dilated(np.tile(windows, (1, 1, 1, groups)), view)
    return _Arrays(data, placement.weights.reshape(shape), (len(windows), 1, 1, channels), _VALID)


def _depthwise(view: LayerView, placement: Placement) -> _Arrays:
    shape, depth = view.input(1).shape, view.input(0).shape[3]
    windows = placement.inputs.reshape(-1, *shape[1:3], 1)
    data = _dilated(np.repeat(windows, depth, axis=3), view)
    return _Arrays(data, placement.weights.T.reshape(shape), (len(windows), 1, 1, shape[3]), _VALID)


_VALID: Mapping[str, AttributeValue] = MappingProxyType({"padding": "VALID"})


def _dilated(windows: Array, view: LayerView) -> Array:
    """``[window, y, x, channel]`` with the gaps that dilation leaves between taps."""
    step_y, step_x = view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1)
    count, taps_y, taps_x, depth = windows.shape
    data = np.zeros((count, (taps_y - 1) * step_y + 1, (taps_x - 1) * step_x + 1, depth), np.int64)
    data[:, ::step_y, ::step_x] = windows
    return data


def _transposed(view: LayerView, placement: Placement) -> _Arrays:
    """One pixel of input; each tap of the filter makes an output of its own, all alike."""
    shape = view.input(1).shape
    weights = np.broadcast_to(placement.weights[:, np.newaxis, np.newaxis], shape)
    output = (len(placement.inputs), shape[1], shape[2], shape[0])
    return _Arrays(placement.inputs[:, np.newaxis, np.newaxis], weights, output, _VALID)


def _fully_connected(view: LayerView, placement: Placement) -> _Arrays:  # noqa: ARG001 - a table's signature
    return _Arrays(placement.inputs, placement.weights, (len(placement.inputs), len(placement.weights)))


def _onnx_convolution(view: LayerView, placement: Placement) -> _Arrays:
    shape, rank = view.input(3).shape, len(view.input(3).shape) - 2
    windows = placement.inputs.reshape(-1, *shape[1:])
    dilations = view.layer.attributes.get("dilations") or (1,) * rank
    assert isinstance(dilations, tuple | list)
    steps = [int(step) for step in dilations]
    sizes = [(taps - 1) * step + 1 for taps, step in zip(shape[2:], steps, strict=True)]
    data = np.zeros((len(windows), shape[1], *sizes), np.int64)
    data[(slice(None), slice(None), *(slice(None, None, step) for step in steps))] = windows
    data = np.tile(data, (1, view.integer("group", 1), *(1,) * rank))
    attributes: Mapping[str, AttributeValue] = {"auto_pad": "NOTSET", "pads": (0,) * (2 * rank)}
    return _Arrays(data, placement.weights.reshape(shape), (len(windows), shape[0], *(1,) * rank), attributes)


def _onnx_matrix(view: LayerView, placement: Placement) -> _Arrays:
    output = (len(placement.inputs), len(placement.weights))
    if view.op == "com.microsoft:QGemm":
        weights = placement.weights if view.integer("transB", 0) else placement.weights.T
        return _Arrays(placement.inputs, weights, output, {"transA": 0})
    return _Arrays(placement.inputs, placement.weights.T, output)


_ARRANGEMENTS: Mapping[str, Callable[[LayerView, Placement], _Arrays]] = MappingProxyType(
    {
        "CONV_2D": _convolution,
        "DEPTHWISE_CONV_2D": _depthwise,
        "FULLY_CONNECTED": _fully_connected,
        "TRANSPOSE_CONV": _transposed,
        "QLinearConv": _onnx_convolution,
        "QLinearMatMul": _onnx_matrix,
        "com.microsoft:QGemm": _onnx_matrix,
    }
)


def _taps_for(largest: int, taps: Taps) -> int:
    """Taps that hold any bias up to ``largest`` in magnitude: coarse ones and a fine one."""
    for coarse in range(taps.count):
        low, high = taps.span(coarse)
        if low <= -largest - 1 and largest + 1 <= high:
            return coarse + 1
    return taps.count


def _with_bias_in_taps(placement: Placement, taps: Taps, reserved: int) -> Placement:
    coarse = reserved - 1
    always = np.array([taps.coarse_input] * coarse + [taps.fine_input], np.int64)
    inputs = np.hstack([placement.inputs, np.tile(always, (len(placement.inputs), 1))])
    weights = np.hstack([placement.weights, taps.split(placement.bias, coarse)])
    return Placement(inputs, weights, np.zeros_like(placement.bias))


def _placed(cut: Graph, view: LayerView, arrays: _Arrays, bias: Array | None) -> PlacedLayer:
    """The cut with other filter, bias and shapes; ``bias`` is None where it has none."""
    operands = ACCUMULATING[view.op]
    data, filter_ = view.input(operands.data), view.input(operands.filter)
    stored = (arrays.data + data_zero_point(view)).astype(DTYPES[data.dtype])
    weights = arrays.filter + _along_filter(view, filter_zero_points(view), arrays.filter.ndim)
    tensors = list(cut.tensors)
    tensors[data.index] = replace(data, shape=stored.shape, shape_signature=None)
    tensors[filter_.index] = replace(
        filter_,
        shape=arrays.filter.shape,
        data=np.ascontiguousarray(weights.astype(DTYPES[filter_.dtype])),
        shape_signature=None,
    )
    tensors[view.output().index] = replace(view.output(), shape=arrays.output, shape_signature=None)
    inputs = list(view.layer.inputs)
    if view.op == "TRANSPOSE_CONV":
        tensors[inputs[0]] = replace(view.input(0), data=np.array(arrays.output, np.int32))
    if bias is not None:
        inputs += [-1] * (operands.bias + 1 - len(inputs))
        values = bias.astype(np.int32)
        if inputs[operands.bias] == -1:
            inputs[operands.bias] = len(tensors)
            tensors.append(_new_bias(view, len(tensors), values))
        else:
            index = inputs[operands.bias]
            tensors[index] = replace(tensors[index], shape=values.shape, data=values)
    layer = replace(
        view.layer, inputs=tuple(inputs), attributes={**view.layer.attributes, **arrays.attributes}
    )
    return PlacedLayer(replace(cut, tensors=tuple(tensors), layers=(layer,), signatures=()), stored)


def _along_filter(view: LayerView, zeros: Array, rank: int) -> Array:
    """Zero points, one or one per channel, broadcastable to the filter."""
    if zeros.size == 1:
        return zeros.reshape(())
    axis = ACCUMULATING[view.op].filter_axis
    if view.op == "com.microsoft:QGemm" and view.integer("transB", 0):
        axis = 0
    shape = [1] * rank
    shape[axis] = zeros.size
    return zeros.reshape(shape)


def _new_bias(view: LayerView, index: int, values: Array) -> Tensor:
    """A bias for a layer without one, quantized as TFLite asks for; ONNX keeps no parameters with it."""
    if view.op.isupper():
        filter_ = view.input(ACCUMULATING[view.op].filter)
        assert filter_.quantization is not None
        data = np.float32(view.input(ACCUMULATING[view.op].data).scale)
        scales = tuple(float(data * np.float32(scale)) for scale in filter_.quantization.scale)
        quantization = Quantization(scales, (0,) * len(scales), 0)
        return Tensor(index, "bias", values.shape, "int32", quantization, values)
    return Tensor(index, "bias", values.shape, "int32", None, values)
