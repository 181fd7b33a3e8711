"""Small int8 networks of random weights whose values use most of their range: three architectures."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization

SIZE, CHANNELS = 12, 6
INPUT_ZERO_POINT = -3
SPREAD = 40.0
"""Standard deviation of a layer's values, in steps."""


class Network:
    """Layers one behind the other; ``x`` is the last one's output.

    With ``ties`` all scales are powers of two and weights are small, so that one real result in 8 or 16 lies
    exactly between two integers: roundings, last bits of scales and single units of biases then show.
    """

    def __init__(self, seed: int, ties: bool = False) -> None:
        self.builder = GraphBuilder("network")
        self.random, self.ties = np.random.default_rng(seed), ties
        self.scale, self.spread, self.count = 0.25 if ties else 0.021, 74.0, 0
        quantization = Quantization.per_tensor(self.scale, INPUT_ZERO_POINT)
        self.x = self.builder.input("image", (1, SIZE, SIZE, CHANNELS), "int8", quantization)

    def _named(self, part: str) -> str:
        return f"{part}{self.count}"

    def _output(self, shape: tuple[int, ...], deviation: float, activation: str) -> int:
        """A tensor of values with this standard deviation, in real numbers."""
        zero_point = int(self.random.integers(-9, 10)) if activation == "NONE" else -17
        if not self.ties:
            self.scale, self.spread = float(np.float32(deviation / SPREAD)), SPREAD
        quantization = Quantization.per_tensor(self.scale, zero_point)
        return self.builder.tensor(self._named("out"), shape, "int8", quantization)

    def _weights(self, shape: tuple[int, ...], axis: int, taps: int) -> tuple[list[int], float]:
        """Filter and bias, per-channel scales, and the standard deviation of the sums."""
        channels = shape[axis]
        scales = tuple(float(np.float32(value)) for value in self.random.uniform(0.002, 0.003, channels))
        largest, widest = 127, 4000
        if self.ties:
            scales, largest, widest = (2.0**-4 if taps > 16 else 2.0**-3,) * channels, 2, 300
        filter_ = self.builder.constant(
            self._named("filter"),
            self.random.integers(-largest, largest + 1, shape, np.int8),
            Quantization(scales, (0,) * channels, axis),
        )
        bias = self.random.integers(-widest, widest + 1, channels, np.int32)
        deviation = math.sqrt(taps) * 73 * self.spread * 0.0025 * self.scale
        return [filter_, self.builder.constant(self._named("bias"), bias)], deviation

    def conv(self, channels: int = CHANNELS, activation: str = "NONE", stride: int = 1, taps: int = 3) -> int:
        self.count += 1
        _, height, width, given = self.builder.shape(self.x)
        constants, deviation = self._weights((channels, taps, taps, given), 0, taps * taps * given)
        shape = (1, -(-height // stride), -(-width // stride), channels)
        output = self._output(shape, deviation, activation)
        self.x = self.builder.layer(
            "CONV_2D", [self.x, *constants], [output],
            padding="SAME", stride_h=stride, stride_w=stride, dilation_h_factor=1, dilation_w_factor=1,
            fused_activation_function=activation,
        )  # fmt: skip
        return self.x

    def depthwise(self, activation: str = "NONE", stride: int = 1) -> int:
        self.count += 1
        _, height, width, given = self.builder.shape(self.x)
        constants, deviation = self._weights((1, 3, 3, given), 3, 9)
        output = self._output((1, -(-height // stride), -(-width // stride), given), deviation, activation)
        self.x = self.builder.layer(
            "DEPTHWISE_CONV_2D", [self.x, *constants], [output],
            padding="SAME", stride_h=stride, stride_w=stride, dilation_h_factor=1, dilation_w_factor=1,
            depth_multiplier=1, fused_activation_function=activation,
        )  # fmt: skip
        return self.x

    def add(self, other: int, other_scale: float, activation: str = "NONE") -> int:
        self.count += 1
        output = self._output(self.builder.shape(self.x), 45 * (self.scale + other_scale), activation)
        attributes = {"fused_activation_function": activation, "pot_scale_int16": False}
        self.x = self.builder.layer("ADD", [self.x, other], [output], **attributes)
        return self.x

    def build(self) -> Graph:
        return self.builder.build([self.x])


def plain(seed: int = 0, ties: bool = False) -> Graph:
    """Convolutions only, with and without activations."""
    network = Network(seed, ties)
    for activation in ("NONE", "RELU", "NONE", "RELU6", "NONE"):
        network.conv(activation=activation)
    return network.build()


def residual(seed: int = 1, ties: bool = False) -> Graph:
    """Two blocks whose input is added to their output."""
    network = Network(seed, ties)
    network.conv()
    for _ in range(2):
        shortcut, scale = network.x, network.scale
        network.conv(activation="RELU")
        network.conv()
        network.add(shortcut, scale, "RELU")
    return network.build()


def mobile(seed: int = 2, ties: bool = False) -> Graph:
    """Depthwise convolutions with 1x1 convolutions behind them."""
    network = Network(seed, ties)
    network.conv(8, "RELU")
    for channels in (8, 6):
        network.depthwise()
        network.conv(channels, "RELU", taps=1)
    network.depthwise()
    return network.build()


NETWORKS = {"plain": plain, "residual": residual, "mobile": mobile}
