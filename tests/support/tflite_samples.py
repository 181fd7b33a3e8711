"""A small model with one of everything a .tflite file can say, for tests that break it."""

from __future__ import annotations

import numpy as np

from karat24.export.cut import up_to
from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization


def every_feature() -> Graph:
    """Per-channel filters, int32 biases, vector options, shared and scalar constants, a
    left-out optional input, a custom op with bytes of its own, two inputs, a signature."""
    generator = np.random.default_rng(5)
    builder = GraphBuilder("main", description="one of everything")
    image = builder.input("image", (1, 6, 6, 2), "uint8", Quantization.per_tensor(0.5, 128))
    extra = builder.input("extra", (1, 3, 3, 3), "int8", Quantization.per_tensor(0.25, -4))
    x = builder.tensor("quantized", (1, 6, 6, 2), "int8", Quantization.per_tensor(0.5, 0))
    builder.layer("QUANTIZE", [image], [x])
    kernel = generator.integers(-127, 128, (3, 3, 3, 2)).astype(np.int8)
    w = builder.constant("filter", kernel, Quantization((0.5, 0.25, 0.125), (0, 0, 0), 0))
    bias = builder.constant(
        "bias", np.array([5, -7, 70000], np.int32), Quantization((0.25, 0.125, 0.0625), (0, 0, 0), 0)
    )
    conv = builder.tensor("conv/Relu", (1, 3, 3, 3), "int8", Quantization.per_tensor(0.25, -4))
    builder.layer(
        "CONV_2D",
        [x, w, bias],
        [conv],
        padding="SAME",
        stride_w=2,
        stride_h=2,
        fused_activation_function="RELU",
    )
    joined = builder.tensor("joined", (1, 3, 3, 6), "int8", Quantization.per_tensor(0.25, -4))
    builder.layer("CONCATENATION", [conv, extra], [joined], axis=-1)
    mean = builder.tensor("mean", (1, 6), "int8", Quantization.per_tensor(0.25, -4))
    builder.layer("MEAN", [joined, builder.constant("axes", np.array([1, 2], np.int32))], [mean])
    dense = builder.tensor("dense", (1, 4), "int8", Quantization.per_tensor(0.5, 3))
    weights = builder.constant(
        "weights", generator.integers(-127, 128, (4, 6)).astype(np.int8), Quantization.per_tensor(0.125)
    )
    builder.layer("FULLY_CONNECTED", [mean, weights, -1], [dense])
    square = builder.tensor("square", (2, 2), "int8", Quantization.per_tensor(0.5, 3))
    size = builder.constant("size", np.array([2, 2], np.int32))
    builder.layer("RESHAPE", [dense, size], [square], new_shape=(2, 2))
    last = builder.tensor("custom", (2, 2), "int8", Quantization.per_tensor(0.5, 3))
    builder.layer("CUSTOM:odd-op", [square], [last], custom_options=bytes(range(40)))
    return with_lowest_versions(builder.build([square, last]))


def runnable() -> Graph:
    """What LiteRT can run of it: everything but the custom op."""
    graph = every_feature()
    return up_to(graph, graph.outputs[:1]).graph
