"""The sums of products of a layer with a filter, in one form for both formats.

Sums are ``[batch, y, x, out_channel]`` and images ``[batch, y, x, channel]``, whatever the layout of the
file. A product of matrices is a 1×1 convolution over images of one pixel. A *pixel* is a position of the sums
without their channels, counted in memory order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from karat24.golden.attribution.suspect import Suspect
from karat24.refimpl.graph import DTYPES, Array, LayerView, Quantization, Tensor
from karat24.refimpl.profiles import Rule
from karat24.refimpl.spec.onnx import qgemm, qlinear_conv, qlinear_matmul
from karat24.refimpl.spec.onnx.arithmetic import requantize
from karat24.refimpl.spec.onnx.parameters import Affine
from karat24.refimpl.spec.onnx.windows import windows as onnx_windows
from karat24.refimpl.spec.shared.geometry import Window, windows
from karat24.refimpl.spec.shared.primitives import wrap32
from karat24.refimpl.spec.tflite.weights import requantized

ONE = Window(1, 1, 1, 1, 1, 0)
"""The window of a matrix."""

Requantize = Callable[[Array, int | None], Array]
"""Sums ``[..., out_channel]``, or ``[..., 1]`` of the one channel that is given, as values of the output."""


@dataclass(frozen=True)
class Windowed:
    """How the terms of a sum are found: windows over y and x of an image of stored values."""

    image: Array
    zero_point: int
    over: tuple[Window, Window]
    weights: Array
    """Stored values, ``[out_channel, y, x, channel of the group]``."""
    weight_zero: Array
    """The zero point of every output channel's weights."""
    groups: int
    place: Callable[[int, int, int, int], tuple[int, ...]]
    """The index in the file's filter of a weight."""

    def column(self, channel: int) -> Array:
        """The stored weights of one output channel, ``[k]``, in y, x, channel order."""
        return np.ascontiguousarray(self.weights[channel]).reshape(-1)

    def term(self, channel: int, place: int, pixels: Array) -> Array:
        """What weight ``place`` of ``column`` is multiplied with at some pixels, zero point removed."""
        over_y, over_x = self.over
        outputs, _, _, depth = self.weights.shape
        tap, seen = divmod(place, depth)
        tap_y, tap_x = divmod(tap, over_x.taps)
        seen += channel // (outputs // self.groups) * depth
        batch, out_y, out_x = np.unravel_index(
            pixels, (self.image.shape[0], over_y.output_size, over_x.output_size)
        )
        in_y = out_y * over_y.stride - over_y.pad_before + tap_y * over_y.dilation
        in_x = out_x * over_x.stride - over_x.pad_before + tap_x * over_x.dilation
        inside = (in_y >= 0) & (in_y < over_y.input_size) & (in_x >= 0) & (in_x < over_x.input_size)
        result = np.zeros(len(pixels), np.int64)
        values = self.image[batch[inside], in_y[inside], in_x[inside], seen]
        result[inside] = values.astype(np.int64) - self.zero_point
        return result

    def rows(self, channel: int, pixels: Array) -> Array:
        """The terms of every weight of a channel: ``[pixel, k]``."""
        places = range(self.weights[channel].size)
        return np.stack([self.term(channel, place, pixels) for place in places], axis=1)

    def describe(self, channel: int, place: int) -> str:
        """The weight ``place`` of ``column``, by its index in the file's filter."""
        y, x, seen = (int(i) for i in np.unravel_index(place, self.weights.shape[1:]))
        return "weight " + ",".join(map(str, self.place(channel, y, x, seen)))


@dataclass(frozen=True)
class Sums:
    """A layer's accumulators ``[batch, y, x, out_channel]``, int64, and what becomes of them."""

    suspect: Suspect
    acc: Array
    bias: Array | None
    """The bias of every output channel, int64; None without one."""
    requantize: Requantize
    windowed: Windowed | None
    """None for an op whose terms are not looked at here."""

    def of_channel(self, acc: Array, channel: int) -> Array:
        """Sums of one channel, of any shape, as values of the output."""
        return self.requantize(acc[..., None], channel)[..., 0]

    def outputs(self, acc: Array) -> tuple[Array]:
        """What the layer gives with these sums, of the shape of ``acc``."""
        return (self._laid_out(self.requantize(acc, None)),)

    def with_channel(self, channel: int, values: Array) -> tuple[Array]:
        """The layer's own output with other values, in pixel order, in one channel."""
        own = self.by_pixel(self.suspect.own.outputs[0])
        own[:, channel] = values.reshape(-1)
        return (self._laid_out(own),)

    def by_pixel(self, output: Array) -> Array:
        """A copy of an output, ``[pixel, out_channel]``."""
        weighted = self.suspect.weighted
        assert weighted is not None
        last = np.moveaxis(output, weighted.channel_axis, -1)
        return np.array(last.reshape(-1, self.acc.shape[-1]), order="C")

    def _laid_out(self, values: Array) -> Array:
        """Values, channels last, in the layout of the output."""
        weighted, shape = self.suspect.weighted, self.suspect.view.output().shape
        assert weighted is not None
        last = tuple(np.moveaxis(np.empty(shape, np.bool_), weighted.channel_axis, -1).shape)
        return np.ascontiguousarray(np.moveaxis(values.reshape(last), -1, weighted.channel_axis))


def sums_of(suspect: Suspect) -> Sums | None:
    """The layer's sums; None where it has none, or they are not understood: they must give its outputs."""
    build, acc = BUILDERS.get(suspect.view.op), suspect.own.accumulator
    if build is None or acc is None or suspect.weighted is None:
        return None
    found = build(suspect, acc)
    if found is None or not np.array_equal(found.outputs(found.acc)[0], suspect.own.outputs[0]):
        return None
    return found


def only_differing_channel(suspect: Suspect) -> tuple[Sums, int] | None:
    """The layer's sums and the channel that holds every difference, if one does."""
    if len(suspect.differing_channels) != 1 or (sums := sums_of(suspect)) is None:
        return None
    return sums, suspect.differing_channels[0]


def _tflite(suspect: Suspect, acc: Array) -> Sums:
    view, weighted = suspect.view, suspect.weighted
    assert weighted is not None
    rule = suspect.program.steps[suspect.layer].rule
    data, filter_ = view.input(weighted.data), view.input(weighted.filter)

    def outputs(sums: Array, channel: int | None) -> Array:
        own = filter_ if channel is None else _filter_of(filter_, channel)
        return requantized(view, data, own, wrap32(sums), rule).astype(DTYPES[view.output().dtype])

    sums = acc.astype(np.int64).reshape(*_pixels(acc.shape[:-1]), acc.shape[-1])
    return Sums(suspect, sums, _bias(suspect), outputs, _tflite_windows(suspect, data, filter_))


def _tflite_windows(suspect: Suspect, data: Tensor, filter_: Tensor) -> Windowed | None:
    view, weighted, weights = suspect.view, suspect.weighted, filter_.data
    assert weighted is not None
    image = suspect.inputs[weighted.data]
    if weights is None or image is None or view.op == "TRANSPOSE_CONV":
        return None
    zero = np.broadcast_to(
        np.array(filter_.quantization.zero_point if filter_.quantization else 0, np.int64),
        filter_.shape[weighted.out_axis],
    )
    if view.op == "FULLY_CONNECTED":
        image, weights, over = image.reshape(-1, 1, 1, filter_.shape[1]), weights[:, None, None], (ONE, ONE)
        return Windowed(image, data.zero_point, over, weights, zero, 1, lambda c, _y, _x, i: (c, i))
    over = windows(view, data.shape, filter_.shape, dilated=True)
    if view.op == "DEPTHWISE_CONV_2D":
        weights = weights.transpose(3, 1, 2, 0)
        groups = data.shape[3]
        return Windowed(image, data.zero_point, over, weights, zero, groups, lambda c, y, x, _i: (0, y, x, c))
    groups = data.shape[3] // filter_.shape[3]
    return Windowed(image, data.zero_point, over, weights, zero, groups, lambda c, y, x, i: (c, y, x, i))


def _filter_of(filter_: Tensor, channel: int) -> Tensor:
    quantization = filter_.quantization
    assert quantization is not None
    if not quantization.per_channel:
        return filter_
    return replace(filter_, quantization=Quantization((quantization.scale[channel],), (0,)))


def _qlinear_conv(suspect: Suspect, acc: Array) -> Sums | None:
    view = suspect.view
    if acc.ndim != 4:
        return None
    data, filters, output = qlinear_conv.parameters(view)
    image, weights = suspect.inputs[0], view.input(3).data
    assert image is not None
    assert weights is not None
    windowed = Windowed(
        image.transpose(0, 2, 3, 1),
        int(data.zero_point[0]),
        onnx_windows(view, image.shape, weights.shape[2:]),
        weights.transpose(0, 2, 3, 1),
        np.broadcast_to(filters.zero_point, weights.shape[0]),
        view.integer("group", 1),
        lambda c, y, x, i: (c, i, y, x),
    )
    scale = data.scale * filters.scale / output.scale
    sums = acc.astype(np.int64).transpose(0, 2, 3, 1)
    return Sums(suspect, sums, _bias(suspect), _onnx(view, suspect.rule, scale, output), windowed)


def _qlinear_matmul(suspect: Suspect, acc: Array) -> Sums | None:
    left, right, output = qlinear_matmul.parameters(suspect.view)
    return _matrix(suspect, acc, suspect.inputs[0], (left, right, output), left.scale * right.scale)


def _qgemm(suspect: Suspect, acc: Array) -> Sums | None:
    view = suspect.view
    left, right, output = qgemm.parameters(view)
    bias, data = view.optional_input(6), suspect.inputs[0]
    assert data is not None
    if output is None or (bias is not None and bias.shape != view.output().shape[1:]):
        return None
    scale = np.float32(view.real("alpha", 1.0)) * left.scale * right.scale
    data = data.T if view.integer("transA", 0) else data
    return _matrix(suspect, acc, data, (left, right, output), scale)


def _matrix(
    suspect: Suspect, acc: Array, data: Array | None, parameters: tuple[Affine, Affine, Affine], scale: Array
) -> Sums | None:
    """The sums of a product with a constant matrix of two dimensions."""
    view, weighted, weights = suspect.view, suspect.weighted, suspect.view.input(3).data
    left, right, output = parameters
    if weighted is None or weights is None or weights.ndim != 2 or data is None or left.zero_point.size != 1:
        return None
    rows_first = weighted.out_axis == 0
    by_channel = weights if rows_first else weights.T
    windowed = Windowed(
        data.reshape(-1, 1, 1, by_channel.shape[1]), int(left.zero_point[0]), (ONE, ONE),
        by_channel[:, None, None], np.broadcast_to(right.zero_point, by_channel.shape[0]), 1,
        lambda c, _y, _x, i: (c, i) if rows_first else (i, c),
    )  # fmt: skip
    sums = acc.astype(np.int64).reshape(-1, 1, 1, acc.shape[-1])
    effective = _onnx(view, suspect.rule, scale / output.scale, output)
    return Sums(suspect, sums, _bias(suspect), effective, windowed)


def _onnx(view: LayerView, rule: Rule, scale: Array, output: Affine) -> Requantize:
    def outputs(sums: Array, channel: int | None) -> Array:
        own = scale if channel is None or scale.size == 1 else scale[channel]
        return requantize(view, rule, wrap32(sums), own, output).astype(DTYPES[view.output().dtype])

    return outputs


def _bias(suspect: Suspect) -> Array | None:
    weighted = suspect.weighted
    tensor = None if weighted is None or weighted.bias is None else suspect.view.optional_input(weighted.bias)
    return None if tensor is None or tensor.data is None else tensor.data.astype(np.int64)


def _pixels(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A matrix's rows as images of one pixel."""
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (int(np.prod(shape)), 1, 1)


BUILDERS: dict[str, Callable[[Suspect, Array], Sums | None]] = {
    "CONV_2D": _tflite,
    "DEPTHWISE_CONV_2D": _tflite,
    "FULLY_CONNECTED": _tflite,
    "TRANSPOSE_CONV": _tflite,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "com.microsoft:QGemm": _qgemm,
}
"""Ops whose accumulators become outputs channel by channel."""
