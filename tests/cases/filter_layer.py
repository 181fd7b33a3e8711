"""One layer of CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV or FULLY_CONNECTED, from its arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Quantization
from tests.cases.case import Case
from tests.cases.quantized import f32

EVERY_LANE = ("litert-ref", "litert-builtin", "litert-xnnpack", "tflite-2.14-ref", "tflite-2.14-builtin")
OPTIMISED_LANES = ("litert-builtin", "litert-xnnpack", "tflite-2.14-builtin")


@dataclass(frozen=True)
class Shape:
    """Geometry of one convolution."""

    input: tuple[int, ...]
    out_channels: int
    taps: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    groups: int = 1
    depth_multiplier: int = 1


def filter_layer(
    op: str,
    name: str,
    edge: str,
    shape: Shape,
    feed: Array,
    filter_: Array,
    bias: Array | None,
    quantizations: tuple[Quantization, Quantization, Quantization],
    activation: str = "NONE",
    output_shape: tuple[int, ...] | None = None,
    keep_num_dims: bool = False,
) -> Case:
    """``quantizations`` are the input's, the filter's and the output's."""
    of_input, of_filter, of_output = quantizations
    dtype = feed.dtype.name
    builder = GraphBuilder(name)
    input_ = builder.input("input", feed.shape, dtype, of_input)
    inputs = [input_, builder.constant("filter", filter_, of_filter)]
    if bias is not None:
        bias_scales = tuple(f32(np.float32(of_input.scale[0]) * np.float32(s)) for s in of_filter.scale)
        of_bias = Quantization(bias_scales, (0,) * len(bias_scales), 0)
        inputs.append(builder.constant("bias", bias.astype(np.int32), of_bias))
    output = builder.tensor(
        "output", output_shape or _output_shape(op, shape, filter_.shape), dtype, of_output
    )
    attributes: dict[str, object] = {"fused_activation_function": activation}
    if op == "FULLY_CONNECTED":
        attributes |= {"keep_num_dims": keep_num_dims, "weights_format": "DEFAULT"}
    else:
        attributes |= {
            "padding": shape.padding,
            "stride_h": shape.stride[0],
            "stride_w": shape.stride[1],
        }
    if op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        attributes |= {"dilation_h_factor": shape.dilation[0], "dilation_w_factor": shape.dilation[1]}
    if op == "DEPTHWISE_CONV_2D":
        attributes["depth_multiplier"] = shape.depth_multiplier
    if op == "TRANSPOSE_CONV":
        size = builder.constant("output_shape", np.array(builder.shape(output), np.int32))
        inputs = [size, inputs[1], input_, *inputs[2:]]
    builder.layer(op, inputs, [output], **attributes)  # type: ignore[arg-type]
    broken_in = _broken_in(op, bias is None, activation != "NONE", keep_num_dims and len(of_filter.scale) > 1)
    return Case(name, with_lowest_versions(builder.build([output])), (feed,), edge, broken_in)


def _broken_in(op: str, no_bias: bool, activation: bool, kept_per_channel: bool) -> dict[str, str]:
    """Lanes that cannot run the layer, with the reason."""
    if op == "CONV_2D" and no_bias:
        return dict.fromkeys(EVERY_LANE, "CONV_2D on 8-bit values insists on a bias")
    if op == "DEPTHWISE_CONV_2D" and no_bias:
        return dict.fromkeys(
            OPTIMISED_LANES, "the optimised DEPTHWISE_CONV_2D reads a bias that is not there"
        )
    if op == "TRANSPOSE_CONV" and activation:
        return {"tflite-2.14-ref": "its resolver knows TRANSPOSE_CONV up to version 3, without activation"}
    if op == "FULLY_CONNECTED" and kept_per_channel:
        return {"tflite-2.14-ref": "per channel it takes the second size of any output for its channels"}
    return {}


def _output_shape(op: str, shape: Shape, filter_shape: tuple[int, ...]) -> tuple[int, ...]:
    if op == "FULLY_CONNECTED":
        return (math.prod(shape.input) // filter_shape[1], filter_shape[0])
    sizes = []
    for axis in (0, 1):
        size, stride = shape.input[axis + 1], shape.stride[axis]
        reach = (shape.taps[axis] - 1) * shape.dilation[axis] + 1
        if op == "TRANSPOSE_CONV":
            sizes.append(size * stride if shape.padding == "SAME" else (size - 1) * stride + reach)
        elif shape.padding == "SAME":
            sizes.append(math.ceil(size / stride))
        else:
            sizes.append((size - reach) // stride + 1)
    channels = filter_shape[3] if op == "DEPTHWISE_CONV_2D" else filter_shape[0]
    return (shape.input[0], *sizes, channels)


def filter_shape(op: str, shape: Shape) -> tuple[int, ...]:
    if op == "FULLY_CONNECTED":
        return (shape.out_channels, shape.input[-1])
    if op == "DEPTHWISE_CONV_2D":
        return (1, *shape.taps, shape.input[3] * shape.depth_multiplier)
    return (shape.out_channels, *shape.taps, shape.input[3] // shape.groups)


def channel_axis(op: str) -> int:
    return 3 if op == "DEPTHWISE_CONV_2D" else 0
