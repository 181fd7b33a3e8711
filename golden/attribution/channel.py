"""One output channel of a .tflite layer with a filter: its accumulators, and what they become."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from karat24.golden.attribution.suspect import Suspect
from karat24.refimpl.graph import DTYPES, Array, LayerView, Quantization, Tensor
from karat24.refimpl.spec.shared.geometry import windows
from karat24.refimpl.spec.shared.primitives import wrap32
from karat24.refimpl.spec.tflite.weights import requantized, zero_point_removed

EPILOGUES = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Ops whose accumulators become outputs by ``requantized``."""

GATHERED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""Ops whose accumulator is a row of inputs times a column of the filter."""


def outputs_of_accumulators(suspect: Suspect, acc: Array, channel: int | None = None) -> Array:
    """Accumulators ``[..., out_channel]``, or those of one ``channel`` in any shape, as outputs."""
    view, weighted = suspect.view, suspect.weighted
    assert weighted is not None
    filter_ = view.input(weighted.filter)
    rule = suspect.program.steps[suspect.layer].rule
    if channel is not None:
        filter_ = _of_channel(filter_, channel)
        acc = acc[..., None]
    result = requantized(view, view.input(weighted.data), filter_, wrap32(acc.astype(np.int64)), rule)
    result = result.astype(DTYPES[view.output().dtype])
    return result if channel is None else result[..., 0]


def _of_channel(filter_: Tensor, channel: int) -> Tensor:
    quantization = filter_.quantization
    assert quantization is not None
    if not quantization.per_channel:
        return filter_
    return replace(filter_, quantization=Quantization((quantization.scale[channel],), (0,)))


def only_differing_channel(suspect: Suspect) -> int | None:
    """The channel that holds every difference, for an op whose accumulators are understood here."""
    channels = suspect.differing_channels
    if suspect.view.op not in EPILOGUES or len(channels) != 1 or suspect.own.accumulator is None:
        return None
    acc = suspect.own.accumulator[..., channels[0]]
    expected = suspect.own.outputs[0][..., channels[0]]
    return (
        channels[0] if np.array_equal(outputs_of_accumulators(suspect, acc, channels[0]), expected) else None
    )


def with_channel(suspect: Suspect, channel: int, values: Array) -> tuple[Array]:
    """The layer's own output with other values in one channel."""
    output = np.array(suspect.own.outputs[0])
    output[..., channel] = values
    return (output,)


def column(suspect: Suspect, channel: int) -> Array:
    """The stored weights of one output channel, ``[k]``: in y, x, input channel order."""
    view, weighted = suspect.view, suspect.weighted
    assert weighted is not None
    data = view.input(weighted.filter).data
    assert data is not None
    return np.asarray(np.take(data, channel, axis=weighted.out_axis).reshape(-1))


def term(suspect: Suspect, channel: int, place: int, pixels: Array) -> Array:
    """What weight ``place`` of ``column`` is multiplied with at some pixels, zero point removed.

    A pixel is a position of the output without its channels, counted in memory order.
    """
    view, weighted = suspect.view, suspect.weighted
    assert weighted is not None
    data, filter_ = view.input(weighted.data), view.input(weighted.filter)
    values = suspect.inputs[weighted.data]
    assert values is not None
    if view.op == "FULLY_CONNECTED":
        return zero_point_removed(data, values.reshape(-1, filter_.shape[1])[pixels, place])
    over_y, over_x = windows(view, data.shape, filter_.shape, dilated=True)
    if view.op == "DEPTHWISE_CONV_2D":
        seen, (tap_y, tap_x) = channel // view.integer("depth_multiplier"), divmod(place, over_x.taps)
    else:
        tap, seen = divmod(place, data.shape[3])
        tap_y, tap_x = divmod(tap, over_x.taps)
    batch, out_y, out_x = np.unravel_index(pixels, view.output().shape[:3])
    in_y = out_y * over_y.stride - over_y.pad_before + tap_y * over_y.dilation
    in_x = out_x * over_x.stride - over_x.pad_before + tap_x * over_x.dilation
    inside = (in_y >= 0) & (in_y < over_y.input_size) & (in_x >= 0) & (in_x < over_x.input_size)
    result = np.zeros(len(pixels), np.int64)
    result[inside] = zero_point_removed(data, values[batch[inside], in_y[inside], in_x[inside], seen])
    return result


def rows(suspect: Suspect, channel: int, pixels: Array) -> Array:
    """The terms of every weight of a channel: ``[pixel, k]``."""
    places = range(column(suspect, channel).size)
    return np.stack([term(suspect, channel, place, pixels) for place in places], axis=1)


def describe_weight(view: LayerView, filter_: Tensor, channel: int, place: int) -> str:
    """The index in the file's filter of weight ``place`` of a channel's ``column``."""
    if view.op == "FULLY_CONNECTED":
        index: tuple[int, ...] = (channel, place)
    elif view.op == "DEPTHWISE_CONV_2D":
        index = (0, *map(int, np.unravel_index(place, filter_.shape[1:3])), channel)
    else:
        index = (channel, *map(int, np.unravel_index(place, filter_.shape[1:])))
    return "weight " + ",".join(map(str, index))
