"""One-layer float graphs, and looking tensors up by name."""

from __future__ import annotations

import numpy as np

from karat24.export.quantize import (
    QuantizationScheme,
    Range,
    quantize_graph,
)
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph, Tensor


def by_name(graph: Graph, name: str) -> Tensor:
    (found,) = (tensor for tensor in graph.tensors if tensor.name == name)
    return found


def conv_graph(
    kernel: Array, bias: Array | None = None, activation: str = "NONE", size: tuple[int, int] = (1, 1)
) -> Graph:
    """One float CONV_2D over ``[1, *size, in_channel]``, called x → y."""
    builder = GraphBuilder("conv")
    x = builder.input("x", (1, *size, kernel.shape[3]), "float32")
    inputs = [x, builder.constant("w", kernel.astype(np.float32))]
    if bias is not None:
        inputs.append(builder.constant("b", bias.astype(np.float32)))
    y = builder.tensor("y", (1, *size, kernel.shape[0]), "float32")
    attributes = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "fused_activation_function": activation}
    return builder.build((builder.layer("CONV_2D", inputs, (y,), **attributes),))


def quantized_conv(
    kernel: Array,
    bias: Array | None = None,
    x: tuple[float, float] = (0, 1),
    y: tuple[float, float] = (0, 1),
    **options,
) -> Graph:
    """The same quantized, given the ranges of x and y and a scheme's options."""
    graph = conv_graph(kernel, bias)
    ranges = {graph.inputs[0]: Range(*x), graph.outputs[0]: Range(*y)}
    return quantize_graph(graph, ranges, QuantizationScheme(**options))
