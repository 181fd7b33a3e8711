"""Layers of the ops that multiply by filters, made from a few numbers; for comparing two implementations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView, Quantization


@dataclass(frozen=True)
class WeightedShape:
    """What a layer needs besides its values. ``taps``, ``strides``, ``dilations`` are (y, x)."""

    op: str
    dtype: str = "int8"
    batch: int = 1
    size: tuple[int, int] = (5, 7)
    channels: int = 3
    filters: int = 4
    taps: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    groups: int = 1
    multiplier: int = 1
    per_channel: bool = True
    bias: bool = True
    bias_type: str = "int32"
    activation: str = "NONE"
    extra: tuple[int, int] = (0, 0)
    """TRANSPOSE_CONV: outputs beyond (SAME: short of) the usual size, fewer than a stride."""

    def filter_shape(self) -> tuple[int, ...]:
        return {
            "CONV_2D": (self.filters, *self.taps, self.channels // self.groups),
            "DEPTHWISE_CONV_2D": (1, *self.taps, self.channels * self.multiplier),
            "FULLY_CONNECTED": (self.filters, self.channels),
            "TRANSPOSE_CONV": (self.filters, *self.taps, self.channels),
        }[self.op]

    def input_shape(self) -> tuple[int, ...]:
        if self.op == "FULLY_CONNECTED":
            return (self.batch, self.channels)
        return (self.batch, *self.size, self.channels)

    def output_shape(self) -> tuple[int, ...] | None:
        """None when no window fits."""
        filters = self.channels * self.multiplier if self.op == "DEPTHWISE_CONV_2D" else self.filters
        if self.op == "FULLY_CONNECTED":
            return (self.batch, filters)
        sizes = []
        for axis in (0, 1):
            size, taps, stride = self.size[axis], self.taps[axis], self.strides[axis]
            reach = (taps - 1) * self.dilations[axis] + 1
            if self.op == "TRANSPOSE_CONV":
                extra = self.extra[axis] % stride
                sizes.append(
                    size * stride - extra if self.padding == "SAME" else (size - 1) * stride + taps + extra
                )
            elif self.padding == "SAME":
                sizes.append(math.ceil(size / stride))
            else:
                sizes.append((size - reach) // stride + 1 if reach <= size else 0)
        return (self.batch, *sizes, filters) if min(sizes) > 0 else None


def random_values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """Uniform values with the type's extremes mixed in."""
    low, high = QUANTIZED_RANGE[dtype]
    values = rng.integers(low, high + 1, shape)
    extremes = rng.choice([low, high], shape)
    return np.where(rng.random(shape) < 0.2, extremes, values).astype(dtype)


def _zero_point(rng: np.random.Generator, dtype: str, choices: list[int]) -> int:
    """One of the choices; that of int16 is always 0."""
    chosen = int(rng.choice(choices))
    return 0 if dtype == "int16" else chosen


def weighted_layer(
    shape: WeightedShape, seed: int, bias: Array | None = None, weights: Array | None = None
) -> tuple[LayerView, list[Array | None]]:
    """The layer, and one array per input."""
    rng = np.random.default_rng(seed)
    low, high = QUANTIZED_RANGE[shape.dtype]
    output_shape = shape.output_shape()
    assert output_shape is not None
    channels = output_shape[-1]
    filter_type = "int8" if shape.dtype == "int16" else shape.dtype
    per_channel = shape.per_channel and filter_type == "int8" and channels > 1
    # Half of the scales are powers of two, where roundings tie.
    scales = np.float32(0.01) * rng.uniform(0.5, 2, channels if per_channel else 1).astype(np.float32)
    if rng.random() < 0.5:
        scales = np.exp2(np.rint(np.log2(scales))).astype(np.float32)
    axis = 3 if shape.op == "DEPTHWISE_CONV_2D" else 0
    zero_point = 0 if filter_type == "int8" else int(rng.choice([0, 1, 127, 128, 255]))
    builder = GraphBuilder()
    data = builder.input(
        "data", shape.input_shape(), shape.dtype,
        Quantization.per_tensor(2.0**-4, _zero_point(rng, shape.dtype, [low, low + 1, 3, high])),
    )  # fmt: skip
    if weights is None:
        weights = random_values(rng, filter_type, shape.filter_shape())
    filters = builder.constant(
        "filter", weights, Quantization(tuple(map(float, scales)), (zero_point,) * len(scales), axis)
    )
    inputs = [data, filters]
    if shape.op == "TRANSPOSE_CONV":
        inputs = [builder.constant("shape", np.array(output_shape, np.int32)), filters, data]
    if shape.bias:
        if bias is None:
            bias = rng.integers(-3000, 3000, channels)
        inputs.append(builder.constant("bias", bias.astype(shape.bias_type)))
    output_scale = float(rng.choice([2.0**-3, 0.37, 2.0]))
    output = builder.tensor(
        "output",
        output_shape,
        shape.dtype,
        Quantization.per_tensor(output_scale, _zero_point(rng, shape.dtype, [low, 5, high])),
    )
    attributes: dict[str, str | int] = {"fused_activation_function": shape.activation}
    if shape.op != "FULLY_CONNECTED":
        attributes |= {"padding": shape.padding, "stride_h": shape.strides[0], "stride_w": shape.strides[1]}
    if shape.op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        attributes |= {"dilation_h_factor": shape.dilations[0], "dilation_w_factor": shape.dilations[1]}
    if shape.op == "DEPTHWISE_CONV_2D":
        attributes["depth_multiplier"] = shape.multiplier
    builder.layer(shape.op, inputs, [output], **attributes)
    graph = builder.build([output])
    values = [graph.tensors[index].data for index in inputs]
    values[inputs.index(data)] = random_values(rng, shape.dtype, shape.input_shape())
    return graph.view(0), values
