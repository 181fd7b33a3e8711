"""A chain of layers of all kinds that the stand-in compiles for the Edge TPU."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph, Quantization


def chain(channels: tuple[int, ...] = (6, 5, 70), dtype: str = "int8", per_channel: bool = True) -> Graph:
    """Convolution, depthwise, convolution over more than one block, and a fully connected layer."""
    rng = np.random.default_rng(11)
    builder = GraphBuilder("chain")
    middle = 0 if dtype == "int8" else 128
    low, high = (-127, 128) if dtype == "int8" else (0, 256)

    def constant(name: str, shape: tuple[int, ...], axis: int) -> int:
        values: Array = rng.integers(low, high, shape).astype(dtype)
        scales = rng.uniform(0.001, 0.01, shape[axis] if per_channel else 1).astype(np.float32)
        zero = (0,) * len(scales) if dtype == "int8" else (117,) * len(scales)
        return builder.constant(name, values, Quantization(tuple(scales.tolist()), zero, axis))

    def bias(name: str, count: int) -> int:
        return builder.constant(name, rng.integers(-900, 900, count).astype(np.int32))

    def output(name: str, shape: tuple[int, ...], scale: float, zero_point: int) -> int:
        return builder.tensor(name, shape, dtype, Quantization.per_tensor(scale, zero_point + middle - 128))

    def window(activation: str) -> dict[str, str | int]:
        strides = {"stride_w": 1, "stride_h": 1, "dilation_w_factor": 1, "dilation_h_factor": 1}
        return {"padding": "SAME", "fused_activation_function": activation, **strides}

    x = builder.input("image", (1, 4, 4, 3), dtype, Quantization.per_tensor(0.0078, middle))
    a = output("a", (1, 4, 4, channels[0]), 0.0235, 128)
    filters = constant("a/filter", (channels[0], 3, 3, 3), 0)
    builder.layer("CONV_2D", [x, filters, bias("a/bias", channels[0])], [a], **window("RELU6"))
    b = output("b", (1, 4, 4, channels[0]), 0.03, 135)
    filters = constant("b/filter", (1, 3, 3, channels[0]), 3)
    inputs = [a, filters, bias("b/bias", channels[0])]
    builder.layer("DEPTHWISE_CONV_2D", inputs, [b], depth_multiplier=1, **window("NONE"))
    c = output("c", (1, 4, 4, channels[2]), 0.05, 140)
    filters = constant("c/filter", (channels[2], 1, 1, channels[0]), 0)
    builder.layer("CONV_2D", [b, filters, bias("c/bias", channels[2])], [c], **window("RELU"))
    d = output("d", (1, channels[1]), 0.2, 120)
    flat = 16 * channels[2]
    filters = constant("d/filter", (channels[1], flat), 0)
    inputs = [c, filters, bias("d/bias", channels[1])]
    builder.layer("FULLY_CONNECTED", inputs, [d], fused_activation_function="NONE")
    return builder.build([d])
