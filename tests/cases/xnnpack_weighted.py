"""Single layers with filters, on both sides of every condition LiteRT's XNNPACK delegate sets."""

from __future__ import annotations

from functools import partial

import numpy as np

from karat24.refimpl.graph import AttributeValue, Graph, Quantization
from tests.support.layer_graphs import Constant, Named, Value, filled, ints, layer, q8


def convolution(
    op: str,
    dtype: str,
    *,
    scales: tuple[float, float, float] = (0.05, 0.01, 0.1),
    axes: tuple[int, int, int] = (0, 0, 0),
    filter_zero: int | None = None,
    per_channel: bool = False,
    filter_axis: int | None = None,
    constant_filter: bool = True,
    bias: str = "quantized",
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "SAME",
    activation: str = "NONE",
    channels: tuple[int, int] = (4, 4),
    groups: int = 1,
    batch: int = 1,
) -> Graph:
    """CONV_2D or DEPTHWISE_CONV_2D; ``scales`` and ``axes`` are the input's, filter's and output's."""
    size, (in_channels, out_channels) = 8, channels
    axis = 0 if op == "CONV_2D" else 3
    shape = (
        (out_channels, kernel, kernel, in_channels // groups)
        if axis == 0
        else (1, kernel, kernel, out_channels)
    )
    zero = (0 if dtype == "int8" else 120) if filter_zero is None else filter_zero
    scale = float(np.float32(scales[1]))
    if per_channel:
        filter_q = Quantization(
            (scale,) * out_channels, (zero,) * out_channels, axis if filter_axis is None else filter_axis
        )
    else:
        filter_q = Quantization((scale,), (zero,), axes[1])
    bias_q = Quantization(
        tuple(float(np.float32(scales[0] * s)) for s in filter_q.scale), (0,) * len(filter_q.scale)
    )
    bias_values = np.arange(out_channels, dtype=np.int32)
    biases: dict[str, Value | Constant] = {
        "quantized": Constant(bias_values, bias_q),
        "plain": Constant(bias_values),
        "computed": Value((out_channels,), "int32", bias_q),
        "other scale": Constant(bias_values, Quantization.per_tensor(0.123)),
    }
    span = (kernel - 1) * dilation + 1
    out = -(-size // stride) if padding == "SAME" else -(-(size - span + 1) // stride)
    attributes: dict[str, AttributeValue] = (
        {"depth_multiplier": out_channels // in_channels} if axis == 3 else {}
    )
    filter_ = Constant(filled(shape, dtype), filter_q) if constant_filter else Value(shape, dtype, filter_q)
    return layer(
        op,
        [q8((batch, size, size, in_channels), dtype, scales[0], axis=axes[0]), filter_, biases[bias]],
        q8((batch, out, out, out_channels), dtype, scales[2], axis=axes[2]),
        version=3,
        padding=padding, stride_w=stride, stride_h=stride, dilation_w_factor=dilation,
        dilation_h_factor=dilation, fused_activation_function=activation, **attributes,
    )  # fmt: skip


def convolutions(dtype: str) -> Named:
    for op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        make = partial(convolution, op, dtype)
        yield f"{op} plain", make()
        yield f"{op} input's axis 3", make(axes=(3, 0, 0))
        yield f"{op} filter's axis 3", make(axes=(0, 3, 0))
        yield f"{op} filter's axis 1", make(axes=(0, 1, 0))
        yield f"{op} output's axis 3", make(axes=(0, 0, 3))
        for bias in ("plain", "computed", "other scale"):
            yield f"{op} {bias} bias", make(bias=bias)
        yield f"{op} computed filter", make(constant_filter=False)
        yield f"{op} filter's zero point 1", make(filter_zero=1)
        yield f"{op} subnormal filter scale", make(scales=(0.05, 1e-39, 0.1))
        for activation in ("RELU", "RELU6", "RELU_N1_TO_1"):
            yield f"{op} {activation}", make(activation=activation)
        yield f"{op} stride", make(stride=2, padding="VALID")
        yield f"{op} dilation and stride", make(stride=2, dilation=2)
        yield f"{op} batch", make(batch=2)
        yield f"{op} 1×1", make(kernel=1, stride=2)
        yield f"{op} more channels out", make(channels=(4, 8))
        yield f"{op} one channel in", make(channels=(1, 8))
        yield f"{op} multiplier just below 256", make(scales=(1, 1, 1 / 255.9))
        yield f"{op} multiplier 256", make(scales=(1, 1, 1 / 256))
        yield f"{op} multiplier 2^-40", make(scales=(2**-20, 2**-20, 1))
    yield "CONV_2D groups", convolution("CONV_2D", dtype, groups=2)
    if dtype == "int8":
        for op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            per_channel = partial(convolution, op, dtype, per_channel=True, channels=(8, 8), kernel=1)
            yield f"{op} per channel", per_channel()
            yield f"{op} per channel, multiplier 256", per_channel(scales=(1, 1, 1 / 256))
        yield "DEPTHWISE_CONV_2D per channel, zero point 1", per_channel(filter_zero=1)
        yield (
            "CONV_2D per channel of axis 3",
            convolution("CONV_2D", dtype, per_channel=True, filter_axis=3, channels=(8, 8)),
        )


def transposed_convolution(
    dtype: str,
    *,
    kernel: int = 3,
    stride: int = 2,
    padding: str = "SAME",
    activation: str = "NONE",
    filter_zero: int | None = None,
    filter_axis: int = 0,
    filter_scale: float = 0.01,
    constant: tuple[bool, bool] = (True, True),
    bias: bool | None = None,
    output_scale: float = 0.1,
) -> Graph:
    """``constant``: whether output shape and filter are; ``bias``: quantized, unquantized, or none."""
    size, out = 4, 4 * stride if padding == "SAME" else 3 * stride + kernel
    zero = (0 if dtype == "int8" else 120) if filter_zero is None else filter_zero
    filter_q = Quantization((float(np.float32(filter_scale)),), (zero,), filter_axis)
    shape = (6, kernel, kernel, 4)
    inputs: list[Value | Constant | None] = [
        ints(1, out, out, 6) if constant[0] else Value((4,), "int32"),
        Constant(filled(shape, dtype), filter_q) if constant[1] else Value(shape, dtype, filter_q),
        q8((1, size, size, 4), dtype, 0.05),
    ]
    if bias is not None:
        values = np.arange(6, dtype=np.int32)
        inputs.append(Constant(values, Quantization.per_tensor(0.0005) if bias else None))
    return layer(
        "TRANSPOSE_CONV", inputs, q8((1, out, out, 6), dtype, output_scale),
        version=4 if activation != "NONE" else 3 if bias is not None else 2, padding=padding,
        stride_w=stride, stride_h=stride, fused_activation_function=activation,
    )  # fmt: skip


def transposed_convolutions(dtype: str) -> Named:
    make = partial(transposed_convolution, dtype)
    yield "plain", make()
    yield "VALID", make(padding="VALID")
    yield "bias", make(bias=True)
    yield "unquantized bias", make(bias=False)
    yield "RELU", make(activation="RELU")
    yield "kernel smaller than stride", make(kernel=1)
    yield "kernel smaller than stride, VALID", make(kernel=1, padding="VALID")
    yield "kernel equal to stride", make(kernel=2)
    yield "stride 1", make(stride=1)
    yield "computed shape", make(constant=(False, True))
    yield "computed filter", make(constant=(True, False))
    yield "filter's zero point 1", make(filter_zero=1)
    yield "filter's axis 3", make(filter_axis=3)
    yield "subnormal filter scale", make(filter_scale=1e-39)
    yield "multiplier 256", make(filter_scale=20, output_scale=1 / 256)


def fully_connected(
    dtype: str,
    *,
    rank: int = 2,
    keep: bool = False,
    per_channel: bool = False,
    filter_zero: int | None = None,
    filter_axis: int = 0,
    constant_filter: bool = True,
    bias: str = "quantized",
    activation: str = "NONE",
    scales: tuple[float, float, float] = (0.05, 0.01, 0.1),
) -> Graph:
    shape = {1: (6,), 2: (2, 6), 3: (1, 2, 6), 4: (2, 1, 2, 3)}[rank]
    zero = (0 if dtype == "int8" else 120) if filter_zero is None else filter_zero
    count = 5 if per_channel else 1
    filter_q = Quantization((float(np.float32(scales[1])),) * count, (zero,) * count, filter_axis)
    bias_q = Quantization((float(np.float32(scales[0] * scales[1])),) * count, (0,) * count)
    values = np.arange(5, dtype=np.int32)
    biases: dict[str, list[Value | Constant | None]] = {
        "quantized": [Constant(values, bias_q)],
        "plain": [Constant(values)],
        "computed": [Value((5,), "int32", bias_q)],
        "left out": [None],
        "no input": [],
    }
    filter_ = Constant(filled((5, 6), dtype), filter_q) if constant_filter else Value((5, 6), dtype, filter_q)
    out = (*shape[:-1], 5) if keep else (int(np.prod(shape)) // 6, 5)
    return layer(
        "FULLY_CONNECTED", [q8(shape, dtype, scales[0]), filter_, *biases[bias]], q8(out, dtype, scales[2]),
        version=5 if keep else 4, fused_activation_function=activation, keep_num_dims=keep,
        weights_format="DEFAULT",
    )  # fmt: skip


def fully_connecteds(dtype: str) -> Named:
    make = partial(fully_connected, dtype)
    for bias in ("quantized", "plain", "computed", "left out", "no input"):
        yield f"{bias} bias", make(bias=bias)
    for rank in (1, 3, 4):
        yield f"rank {rank}", make(rank=rank)
    yield "rank 3 kept", make(rank=3, keep=True)
    yield "RELU", make(activation="RELU")
    yield "computed filter", make(constant_filter=False)
    yield "filter's zero point 1", make(filter_zero=1)
    yield "filter's axis 1", make(filter_axis=1)
    yield "multiplier 256", make(scales=(1, 1, 1 / 256))
    yield "multiplier 2^-40", make(scales=(2**-20, 2**-20, 1))
    if dtype == "int8":
        yield "per channel", make(per_channel=True)
        yield "per channel, zero point 1", make(per_channel=True, filter_zero=1)
