"""Drawing a float32 network in TFLite ops, layer by layer.

Activations are NHWC, ``[1, y, x, channel]``. Op versions are the lowest that
describe a float32 layer, which is what TensorFlow's converter writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.weights import Weights


class Drawing:
    """A network being drawn. Methods take and return tensor indices, as :class:`GraphBuilder` does.

    A layer's ``name`` is the name of its output tensor; its constants are called
    ``<name>/filter``, ``<name>/bias`` and ``<name>/size``.
    """

    def __init__(self, name: str, weights: Mapping[str, Array] | None, seed: int, description: str) -> None:
        self._builder = GraphBuilder(name, description=description)
        self._weights = Weights(name, weights, seed)

    def input(self, name: str, height: int, width: int, channels: int) -> int:
        """The network's input ``[1, height, width, channels]``."""
        return self._builder.input(name, (1, height, width, channels), "float32")

    def conv(
        self, x: int, name: str, channels: int, size: int, activation: str = "RELU", stride: int = 1
    ) -> int:
        """A ``size`` × ``size`` convolution to ``channels``, SAME, with bias and fused activation."""
        _, height, width, _ = self._builder.shape(x)
        pixels = -(-height // stride), -(-width // stride)
        return self._conv(x, name, channels, (size, size), pixels, "SAME", activation, stride)

    def fully_connected(self, x: int, name: str, units: int, activation: str = "RELU") -> int:
        """Every value of ``x`` to ``units`` values, with bias: a convolution whose filter is as large as the
        image, so that exporters and quantization meet one kind of layer. Gives ``[1, 1, 1, units]``."""
        _, height, width, _ = self._builder.shape(x)
        return self._conv(x, name, units, (height, width), (1, 1), "VALID", activation, 1)

    def _conv(
        self,
        x: int,
        name: str,
        channels: int,
        window: tuple[int, int],
        pixels: tuple[int, int],
        padding: str,
        activation: str,
        stride: int,
    ) -> int:
        in_channels = self._builder.shape(x)[3]
        filter_shape = (channels, *window, in_channels)
        fan_in = window[0] * window[1] * in_channels
        filter_ = self._builder.constant(
            f"{name}/filter", self._weights.filter(f"{name}/filter", filter_shape, fan_in)
        )
        bias = self._builder.constant(f"{name}/bias", self._weights.bias(f"{name}/bias", (channels,)))
        output = self._builder.tensor(name, (1, *pixels, channels), "float32")
        return self._builder.layer(
            "CONV_2D",
            (x, filter_, bias),
            (output,),
            padding=padding,
            stride_w=stride,
            stride_h=stride,
            fused_activation_function=activation,
            dilation_w_factor=1,
            dilation_h_factor=1,
        )

    def max_pool(self, x: int, name: str) -> int:
        """Halves height and width: the maximum of each 2×2 block."""
        _, height, width, channels = self._builder.shape(x)
        output = self._builder.tensor(name, (1, height // 2, width // 2, channels), "float32")
        return self._builder.layer(
            "MAX_POOL_2D",
            (x,),
            (output,),
            padding="VALID",
            stride_w=2,
            stride_h=2,
            filter_width=2,
            filter_height=2,
            fused_activation_function="NONE",
        )

    def global_mean(self, x: int, name: str) -> int:
        """The mean of each channel, ``[1, 1, 1, channels]``."""
        axes = self._builder.constant(f"{name}/axes", np.array([1, 2], np.int32))
        output = self._builder.tensor(name, (1, 1, 1, self._builder.shape(x)[3]), "float32")
        return self._builder.layer("MEAN", (x, axes), (output,), keep_dims=True)

    def add(self, first: int, second: int, name: str, activation: str = "RELU") -> int:
        """The sum of two activations of one shape."""
        output = self._builder.tensor(name, self._builder.shape(first), "float32")
        return self._builder.layer("ADD", (first, second), (output,), fused_activation_function=activation)

    def upsample_bilinear(self, x: int, name: str) -> int:
        """Doubles height and width by bilinear interpolation with half-pixel centres."""
        _, height, width, channels = self._builder.shape(x)
        size = self._builder.constant(f"{name}/size", np.array([2 * height, 2 * width], np.int32))
        output = self._builder.tensor(name, (1, 2 * height, 2 * width, channels), "float32")
        return self._builder.layer(
            "RESIZE_BILINEAR", (x, size), (output,), version=3, align_corners=False, half_pixel_centers=True
        )

    def upsample_transposed(self, x: int, name: str) -> int:
        """Doubles height and width by a 4×4 stride-2 transposed convolution, then ReLU."""
        _, height, width, channels = self._builder.shape(x)
        # Of its 4×4 taps, a quarter meet any one output value at stride 2.
        filter_ = self._weights.filter(f"{name}/filter", (channels, 4, 4, channels), fan_in=4 * channels)
        output_shape = (1, 2 * height, 2 * width, channels)
        linear = self._builder.layer(
            "TRANSPOSE_CONV",
            (
                self._builder.constant(f"{name}/size", np.array(output_shape, np.int32)),
                self._builder.constant(f"{name}/filter", filter_),
                x,
            ),
            (self._builder.tensor(f"{name}/linear", output_shape, "float32"),),
            padding="SAME",
            stride_w=2,
            stride_h=2,
            fused_activation_function="NONE",
        )
        return self._builder.layer("RELU", (linear,), (self._builder.tensor(name, output_shape, "float32"),))

    def concat(self, first: int, second: int, name: str) -> int:
        """Stacks the channels of ``second`` behind those of ``first``."""
        *sizes, first_channels = self._builder.shape(first)
        channels = first_channels + self._builder.shape(second)[-1]
        output = self._builder.tensor(name, (*sizes, channels), "float32")
        return self._builder.layer(
            "CONCATENATION", (first, second), (output,), axis=3, fused_activation_function="NONE"
        )

    def finish(self, output: int) -> Graph:
        """The validated graph. Raises ModelError when the weights given do not fit."""
        self._weights.finish()
        return self._builder.build((output,))


def check_size(network: str, height: int, width: int) -> None:
    """Raises UsageError unless both sizes are positive multiples of 8 (three halvings must be exact)."""
    for name, size in (("height", height), ("width", width)):
        if isinstance(size, bool) or not isinstance(size, int) or size <= 0 or size % 8:
            raise UsageError(f"{network}: {name} {size!r} is not a positive multiple of 8")


def check_width(network: str, width: float, channels: Sequence[int]) -> None:
    """Raises UsageError unless ``width`` times each number of channels is a positive whole number."""
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 1:
        raise UsageError(f"{network}: width {width!r} is not above 0 and at most 1")
    for number in channels:
        if number * width != int(number * width):
            raise UsageError(f"{network}: width {width!r} makes {number * width} channels of {number}")
