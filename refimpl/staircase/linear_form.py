"""Accumulators as linear forms: ``acc = bias + sum of weight * (input - zero_point)`` over one window.

From the form follow bounds of an accumulator, and inputs that give a wanted one.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.spec.onnx import qgemm, qlinear_conv, qlinear_matmul
from karat24.refimpl.spec.onnx.one_axis import as_image
from karat24.refimpl.spec.onnx.parameters import Affine
from karat24.refimpl.spec.onnx.sums import check_convolution, zero_of
from karat24.refimpl.spec.shared.geometry import Index, windows
from karat24.refimpl.spec.shared.packed import unpacked
from karat24.refimpl.staircase.requantization import ACCUMULATING


class Window(NamedTuple):
    """The taps of one output element that lie on an input: flat positions in the data tensor, and weights
    without zero points; both int64 ``[tap]``."""

    positions: Array
    weights: Array


def data_zero_point(view: LayerView) -> int:
    """The zero point of an accumulating layer's data."""
    parameters = _affine(view)
    return view.input(ACCUMULATING[view.op].data).zero_point if parameters is None else zero_of(parameters[0])


def data_range(view: LayerView) -> tuple[int, int]:
    """Least and greatest ``input - zero_point``; 0 lies between them."""
    low, high = QUANTIZED_RANGE[view.input(ACCUMULATING[view.op].data).dtype]
    zero_point = data_zero_point(view)
    return low - zero_point, high - zero_point


def centred_filter(view: LayerView) -> Array | None:
    """The filter without its zero points, int64 in the file's layout; None where the graph computes it."""
    operands = ACCUMULATING[view.op]
    tensor = view.input(operands.filter)
    if tensor.data is None:
        return None
    zeros = filter_zero_points(view)
    axis = operands.filter_axis
    if view.op == "com.microsoft:QGemm" and view.integer("transB", 0):
        axis = 0
    weights = unpacked(tensor, tensor.data)
    shape = [1] * weights.ndim
    shape[axis] = zeros.size
    return np.asarray(weights.astype(np.int64) - zeros.reshape(shape))


def filter_zero_points(view: LayerView) -> Array:
    """The filter's zero points, int64: one, or in ONNX one per output channel."""
    parameters = _affine(view)
    if parameters is not None:
        return np.asarray(parameters[1].zero_point, np.int64)
    quantization = view.input(ACCUMULATING[view.op].filter).quantization
    assert quantization is not None
    return np.asarray(quantization.zero_point[:1], np.int64)


def _affine(view: LayerView) -> tuple[Affine, Affine] | None:
    """Data's and filter's parameters of an ONNX layer; a TFLite tensor carries its own."""
    if view.op == "QLinearConv":
        return qlinear_conv.parameters(view)[:2]
    if view.op == "QLinearMatMul":
        return qlinear_matmul.parameters(view)[:2]
    if view.op == "com.microsoft:QGemm":
        return qgemm.parameters(view)[:2]
    return None


def biases(view: LayerView) -> Array | None:
    """The bias, int64, broadcastable to ``[any, channel]``; 0 without, None where the graph computes it."""
    bias = view.optional_input(ACCUMULATING[view.op].bias)
    if bias is None:
        return np.zeros(1, np.int64)
    return None if bias.data is None else bias.data.astype(np.int64)


def window_of(view: LayerView, element: tuple[int, ...]) -> Window:
    """The taps behind one output element, given by its index in the output. The filter must be constant."""
    if view.op == "QLinearConv" and len(element) == 3:
        view, element = as_image(view, 3), (*element[:2], 0, element[2])
    weights = centred_filter(view)
    assert weights is not None
    shape = view.input(ACCUMULATING[view.op].data).shape
    if view.op in ("FULLY_CONNECTED", "QLinearMatMul", "com.microsoft:QGemm"):
        return _row(view, element, weights, shape)
    if view.op == "QLinearConv":
        return _channels_first_window(view, element, weights, shape)
    return _image_window(view, element, weights, shape)


def _row(view: LayerView, element: tuple[int, ...], weights: Array, shape: tuple[int, ...]) -> Window:
    if view.op == "FULLY_CONNECTED":
        depth = weights.shape[1]
        row = int(np.ravel_multi_index(element[:-1], view.output().shape[:-1]))
        return Window(row * depth + np.arange(depth), weights[element[-1]])
    *leading, row, column = element
    if view.op == "com.microsoft:QGemm":
        places = np.arange(shape[0] * shape[1]).reshape(shape)
        places = places.T if view.integer("transA", 0) else places
        weights = weights.T if view.integer("transB", 0) else weights
        return Window(places[row], weights[:, column])
    a: Array = np.arange(int(np.prod(shape))).reshape(shape)
    batch, batches = tuple(leading), view.output().shape[:-2]
    left: Array = np.broadcast_to(a, (*batches, *a.shape[-2:]))[batch]
    right: Array = np.broadcast_to(weights, (*batches, *weights.shape[-2:]))[batch]
    return Window(left[row], right[:, column])


def _image_window(
    view: LayerView, element: tuple[int, ...], weights: Array, shape: tuple[int, ...]
) -> Window:
    """Channels of the data lie in the last dimension."""
    batch, out_y, out_x, channel = element
    image = view.output().shape if view.op == "TRANSPOSE_CONV" else shape
    over_y, over_x = windows(view, image, weights.shape, dilated=view.op != "TRANSPOSE_CONV")
    places: Array = np.arange(int(np.prod(shape))).reshape(shape)
    if view.op == "DEPTHWISE_CONV_2D":
        taps = weights[0, :, :, channel : channel + 1]
        first = channel // (weights.shape[3] // places.shape[3])
    else:
        taps = weights[channel]
        groups = places.shape[3] // taps.shape[2]
        first = channel // (weights.shape[0] // groups) * taps.shape[2]
    seen = places[batch, :, :, first : first + taps.shape[2]]
    found: list[tuple[Array, Array]] = []
    for tap_y in range(taps.shape[0]):
        for tap_x in range(taps.shape[1]):
            for in_y in _seen_by(view, over_y.taken(tap_y), out_y):
                for in_x in _seen_by(view, over_x.taken(tap_x), out_x):
                    found.append((seen[in_y, in_x], taps[tap_y, tap_x]))
    return _joined(found)


def _channels_first_window(
    view: LayerView, element: tuple[int, ...], weights: Array, shape: tuple[int, ...]
) -> Window:
    """Channels of the data lie behind the batch, before any number of spatial axes."""
    batch, channel, *out = element
    over, taps = check_convolution(view, 0, 3), weights[channel]
    groups = shape[1] // taps.shape[0]
    first = channel // (weights.shape[0] // groups) * taps.shape[0]
    places: Array = np.arange(int(np.prod(shape))).reshape(shape)
    seen = places[batch, first : first + taps.shape[0]]
    found: list[tuple[Array, Array]] = []
    for at in itertools.product(*(range(axis.taps) for axis in over)):
        axes = zip(over, at, out, strict=True)
        for taken in itertools.product(*(_seen_by(view, axis.taken(tap), to) for axis, tap, to in axes)):
            pixel: Index = (slice(None), *taken)
            tap: Index = (slice(None), *at)
            found.append((seen[pixel], taps[tap]))
    return _joined(found)


def _joined(found: list[tuple[Array, Array]]) -> Window:
    """Places and weights of each tap in one row."""
    if not found:
        return Window(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Window(np.concatenate([p for p, _ in found]), np.concatenate([w for _, w in found]))


def _seen_by(view: LayerView, taken: tuple[Array, Array], out: int) -> list[int]:
    """Input positions along one axis that one tap joins to output ``out``: one at most.

    A transposed convolution's windows lie over its output, so the two positions change places.
    """
    outputs, inputs = taken[::-1] if view.op == "TRANSPOSE_CONV" else taken
    return [int(position) for position in inputs[outputs == out]]


def inputs_for(window: Window, low: int, high: int, wanted: int) -> Array | None:
    """Values between ``low`` and ``high``, zero point removed, whose sum of products is ``wanted``; or None.

    int64 ``[tap]``. A greedy search from the largest weight to the smallest, which leaves the rest within
    what the remaining weights can give. It may fail although such values exist.
    """
    order = np.argsort(-np.abs(window.weights), kind="stable")
    weights = window.weights[order]
    most = np.maximum(weights * low, weights * high)
    least = np.minimum(weights * low, weights * high)
    most_after = np.concatenate([np.cumsum(most[::-1])[::-1][1:], [0]])
    least_after = np.concatenate([np.cumsum(least[::-1])[::-1][1:], [0]])
    values = np.zeros(len(weights), np.int64)
    rest = wanted
    for i, weight in enumerate(weights):
        if weight == 0:
            break
        # What this tap must leave lies in [least_after, most_after]; it takes as little as it can.
        ends = sorted(((rest - most_after[i]) / weight, (rest - least_after[i]) / weight))
        nearest = min(max(0, int(np.ceil(ends[0]))), int(np.floor(ends[1])))
        values[i] = min(max(nearest, low), high)
        rest -= int(weight * values[i])
    if rest:
        return None
    result = np.zeros_like(values)
    result[order] = values
    return result
