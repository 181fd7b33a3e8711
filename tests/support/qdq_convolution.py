"""A Conv between QuantizeLinear and DequantizeLinear, as an ONNX graph."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization


def qdq_convolution(
    weight: int = 20,
    axis: int | None = 0,
    activations: str = "uint8",
    bias_scale: float = 0.25,
    groups: int = 1,
) -> Graph:
    """A Conv between quantizations, with a square filter matrix of 2×2."""
    builder = GraphBuilder(format="onnx")
    low = {"uint8": 128, "int8": 0}[activations]
    zero = np.array(low, activations)
    scale = builder.constant("s", np.float32(0.5))
    zero_point = builder.constant("z", zero)
    per_tensor = Quantization.per_tensor(0.5, low)
    x = builder.input("x", (1, 2, 4, 4), "float32")
    xq = builder.tensor("xq", (1, 2, 4, 4), activations, per_tensor)
    xf = builder.tensor("xf", (1, 2, 4, 4), "float32")
    scales = builder.constant("sw", np.array([0.5, 0.5], np.float32))
    filter_ = np.full((2, 2 // groups, 1, 1), weight, np.int8)
    shape = filter_.shape
    w = builder.constant("w", filter_, Quantization((0.5, 0.5), (0, 0), 0) if shape[0] == 2 else None)
    wf = builder.tensor("wf", shape, "float32")
    b = builder.constant("b", np.array([1, 2], np.int32), Quantization.per_tensor(bias_scale))
    sb = builder.constant("sb", np.float32(bias_scale))
    bf = builder.tensor("bf", (2,), "float32")
    c = builder.tensor("c", (1, 2, 4, 4), "float32")
    y = builder.tensor("y", (1, 2, 4, 4), activations, per_tensor)
    out = builder.tensor("out", (1, 2, 4, 4), "float32")
    builder.layer("QuantizeLinear", [x, scale, zero_point], [xq], 13)
    builder.layer("DequantizeLinear", [xq, scale, zero_point], [xf], 13)
    builder.layer("DequantizeLinear", [w, scales], [wf], 13, **({} if axis is None else {"axis": axis}))
    builder.layer("DequantizeLinear", [b, sb], [bf], 13)
    builder.layer("Conv", [xf, wf, bf], [c], 13, group=groups)
    builder.layer("QuantizeLinear", [c, scale, zero_point], [y], 13)
    builder.layer("DequantizeLinear", [y, scale, zero_point], [out], 13)
    return builder.build([out])
