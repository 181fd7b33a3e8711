"""Single layers of float32 data with int8 filters, on both sides of what XNNPACK takes."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Graph, Quantization
from tests.support.layer_graphs import Constant, Named, Value, layer


def _product(
    left: tuple[int, ...],
    right: tuple[int, ...],
    *,
    adjoint: tuple[bool, bool] = (False, False),
    scales: int = 1,
    axis: int = 0,
    zero_point: int = 0,
    computed: bool = False,
) -> Graph:
    """BATCH_MATMUL of operands as they are stored."""
    adj_x, adj_y = adjoint
    rows = left[-1] if adj_x else left[-2]
    columns = right[-2] if adj_y else right[-1]
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    quantization = Quantization((0.5,) * scales, (zero_point,) * scales, axis)
    filter_ = (
        Value(right, "int8", quantization) if computed else Constant(np.ones(right, np.int8), quantization)
    )
    return layer(
        "BATCH_MATMUL",
        [Value(left, "float32"), filter_],
        Value((*batch, rows, columns), "float32"),
        adj_x=adj_x,
        adj_y=adj_y,
        asymmetric_quantize_inputs=False,
    )


def products() -> Named:
    yield "plain", _product((3, 8), (8, 5))
    yield "adj_x", _product((8, 3), (8, 5), adjoint=(True, False))
    yield "adj_y", _product((3, 8), (5, 8), adjoint=(False, True))
    yield "axis 1 of one scale", _product((3, 8), (8, 5), axis=1)
    yield "per channel", _product((3, 8), (8, 5), scales=5, axis=1)
    yield "per channel, adj_y", _product((3, 8), (5, 8), scales=5, axis=0, adjoint=(False, True))
    yield "per row", _product((3, 8), (8, 5), scales=8, axis=0)
    yield "zero point", _product((3, 8), (8, 5), zero_point=3)
    yield "computed", _product((3, 8), (8, 5), computed=True)
    yield "batch", _product((2, 3, 8), (2, 8, 5))
    yield "batch per channel", _product((2, 3, 8), (2, 8, 5), scales=5, axis=2)
    yield "broadcast data", _product((1, 3, 8), (4, 8, 5))
    yield "implicit data", _product((3, 8), (4, 8, 5))
    yield "two batches", _product((2, 4, 3, 8), (8, 5))
    yield "two batches both", _product((2, 4, 3, 8), (2, 4, 8, 5))
    yield "rank 5", _product((1, 1, 2, 3, 8), (8, 5))
    yield "one row", _product((1, 8), (8, 5))
    yield "one column", _product((3, 8), (8, 1))
    yield "depth one", _product((3, 1), (1, 5))


def transposed() -> Named:
    def make(
        scales: int = 1,
        axis: int = 0,
        zero_point: int = 0,
        computed: bool = False,
        bias: str = "float32",
        stride: int = 2,
        activation: str = "NONE",
    ) -> Graph:
        quantization = Quantization((0.5,) * scales, (zero_point,) * scales, axis)
        shape = (4, 2, 2, 3)
        filter_ = (
            Value(shape, "int8", quantization)
            if computed
            else Constant(np.ones(shape, np.int8), quantization)
        )
        size = 4 * stride
        inputs: list[Value | Constant | None] = [
            Constant(np.array((1, size, size, 4), np.int32)), filter_, Value((1, 4, 4, 3), "float32"),
        ]  # fmt: skip
        if bias != "none":
            inputs.append(Constant(np.zeros(4, np.float32)) if bias == "float32" else Value((4,), "float32"))
        return layer(
            "TRANSPOSE_CONV", inputs, Value((1, size, size, 4), "float32"), version=4, padding="SAME",
            stride_w=stride, stride_h=stride, fused_activation_function=activation,
        )  # fmt: skip

    yield "plain", make()
    yield "per channel", make(scales=4)
    yield "per channel, axis 3", make(scales=3, axis=3)
    yield "axis 3 of one scale", make(axis=3)
    yield "zero point", make(zero_point=3)
    yield "computed", make(computed=True)
    yield "no bias", make(bias="none")
    yield "computed bias", make(bias="computed")
    yield "RELU", make(activation="RELU")
    yield "stride above the filter", make(stride=3)
