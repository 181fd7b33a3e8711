"""A small quantized network with one of each common kind of layer."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization


def small_graph() -> Graph:
    """8×8×3 int8: two 3×3 convolutions, a residual addition, a pooling."""
    generator = np.random.default_rng(7)
    builder = GraphBuilder("small")
    image = builder.input("image", (1, 8, 8, 3), "int8", Quantization.per_tensor(1 / 255, -128))

    def convolution(name: str, source: int, channels: int, zero_point: int) -> int:
        in_channels = builder.shape(source)[3]
        filter_ = builder.constant(
            f"{name}/filter",
            generator.integers(-127, 128, (channels, 3, 3, in_channels)).astype(np.int8),
            Quantization((0.0078125,) * channels, (0,) * channels, 0),
        )
        bias = builder.constant(f"{name}/bias", generator.integers(-500, 500, channels).astype(np.int32))
        output = builder.tensor(
            name, (1, 8, 8, channels), "int8", Quantization.per_tensor(0.0234375, zero_point)
        )
        return builder.layer(
            "CONV_2D", [source, filter_, bias], [output], 3,
            padding="SAME", stride_w=1, stride_h=1, dilation_w_factor=1, dilation_h_factor=1,
            fused_activation_function="RELU",
        )  # fmt: skip

    first = convolution("first", image, 5, -128)
    second = convolution("second", first, 5, -127)
    added = builder.tensor("added", (1, 8, 8, 5), "int8", Quantization.per_tensor(0.03125, -125))
    builder.layer("ADD", [first, second], [added], 2, fused_activation_function="NONE")
    pooled = builder.tensor("pooled", (1, 4, 4, 5), "int8", Quantization.per_tensor(0.03125, -125))
    builder.layer(
        "MAX_POOL_2D", [added], [pooled], 2,
        padding="VALID", stride_w=2, stride_h=2, filter_width=2, filter_height=2,
        fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([pooled])
