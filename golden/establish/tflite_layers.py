"""Layers of .tflite files for each kind, on scales where rules differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from karat24.golden.establish.kinds import Kind
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import QUANTIZED_RANGE, Graph, Quantization

CHANNELS = 27
"""Output channels: 24 in whole blocks of 8, 16 in one of 16, and 3 behind both."""

TIE = 4.0
"""An output scale at which RELU6's bound, 1.5 steps, is a tie: where the zero point is odd, the two ways to
quantize a bound differ."""


FINE = 0.77 * 2.0**-16
"""A multiplier so small that accumulators of 23 bits are within the output's range: there the last bit of a
multiplier moves thresholds."""

BEYOND = 2**28 + 2**22
"""A multiplier of 4 is 2^30 / 2^31 and a shift by 3 to the left, which carries this beyond int32."""

THREE_EIGHTHS = 0.375
"""A ratio of scales that is rounded to this in float32, and is a little more or less in float64: what a table
makes of every eighth value is a tie, or lies beside one."""


def _parameters(scale: float, zero_point: int) -> Quantization:
    return Quantization.per_tensor(float(np.float32(scale)), zero_point)


def weighted_layer(kind: Kind, seed: int, clamped: bool = False, beyond: bool = False) -> Graph:
    """A layer of a filter: scales of a power of two for every second seed, where roundings meet ties.

    ``clamped``: with a fused RELU6 whose upper bound is a tie. ``beyond``, for an even seed and one scale:
    biases that a multiplier of 4 carries beyond int32, on both sides. CONV_2D and FULLY_CONNECTED have two
    outputs of each channel: for a single one Arm has kernels that round otherwise.
    """
    rng = np.random.default_rng(seed)
    channels, low = CHANNELS, QUANTIZED_RANGE[kind.dtype][0]
    depth, groups = (4, 2) if kind.form == "grouped" else (8, 1)
    channels = 28 if groups > 1 else channels
    count = channels if kind.per_channel else 1
    scales = np.exp2(rng.integers(-9, -5, count)) if seed % 2 == 0 else rng.uniform(0.002, 0.02, count)
    ratio = 2.0**-4 if seed % 2 == 0 else float(rng.uniform(0.03, 0.09))
    builder = GraphBuilder(str(kind))
    shapes = {
        "CONV_2D": ((2, 3, 3, depth * groups), (channels, 3, 3, depth), (2, 1, 1, channels)),
        "DEPTHWISE_CONV_2D": ((1, 3, 3, channels), (1, 3, 3, channels), (1, 1, 1, channels)),
        "FULLY_CONNECTED": ((2, 40), (channels, 40), (2, channels)),
        "TRANSPOSE_CONV": ((1, 1, 1, 40), (channels, 1, 1, 40), (1, 1, 1, channels)),
    }
    given, filters, result = shapes[kind.op]
    data = builder.input("data", given, kind.dtype, _parameters(ratio, low + 128 + 3))
    middle = 0 if kind.dtype == "int8" else 125
    weights = rng.integers(low + 1, low + 256, filters)
    axis = 3 if kind.op == "DEPTHWISE_CONV_2D" else 0
    filter_ = builder.constant(
        "filter",
        weights.astype(kind.dtype),
        Quantization(tuple(map(float, scales.astype(np.float32))), (middle,) * count, axis),
    )
    biases = np.resize([BEYOND, -BEYOND], channels) if beyond else np.zeros(channels)
    bias = builder.constant("bias", biases.astype(np.int32))
    inputs = [data, filter_, bias]
    attributes: dict[str, Any] = {"fused_activation_function": "RELU6" if clamped else "NONE"}
    if kind.op == "TRANSPOSE_CONV":
        inputs = [builder.constant("shape", np.array(result, np.int32)), filter_, data, bias]
    if kind.op != "FULLY_CONNECTED":
        attributes |= {"padding": "VALID", "stride_h": 1, "stride_w": 1}
    if kind.op == "DEPTHWISE_CONV_2D":
        attributes["depth_multiplier"] = 1
    scale = TIE if clamped else 2.0**-3 if seed % 2 == 0 else ratio * float(scales.mean()) / FINE
    if beyond:
        scale = ratio * float(scales[0]) / 4
    output = builder.tensor("output", result, kind.dtype, _parameters(scale, low + 128 - 7))
    builder.layer(kind.op, inputs, [output], 3, **attributes)
    return builder.build([output])


def table_layer(kind: Kind, seed: int, clamped: bool = False) -> Graph:
    """A layer of one or two bytes, on scales drawn, or for every second seed in the ratio THREE_EIGHTHS."""
    scales = [float(scale) for scale in np.random.default_rng(seed).uniform(0.02, 0.08, 3)]
    if seed % 2:
        product = scales[0] if kind.op != "MUL" else scales[0] * scales[1] * 64
        slope = 0.3 if kind.op == "LEAKY_RELU" and seed % 4 == 3 else 1.0
        scales[2] = product * slope / THREE_EIGHTHS
    elif kind.op == "HARD_SWISH" and seed == 0:
        scales[0] = scales[2] = 0.05  # -1.5 is a stored value, whose product with its gate is a tie
    elif kind.op == "MUL" and seed == 0:
        scales[2] = scales[0] * scales[1] / 6  # products of 17 bits, which 16 do not hold
    builder = GraphBuilder(str(kind))
    low, shape = QUANTIZED_RANGE[kind.dtype][0], (1, 41)
    inputs = [builder.input("left", shape, kind.dtype, _parameters(scales[0], low + 131))]
    attributes: dict[str, Any] = {}
    if kind.op in ("ADD", "SUB", "MUL"):
        right = (1, 1) if kind.form == "scalar" else shape
        inputs.append(builder.input("right", right, kind.dtype, _parameters(scales[1], low + 122)))
        attributes["fused_activation_function"] = "RELU6" if clamped else "NONE"
    if kind.op == "LEAKY_RELU":
        attributes["alpha"] = -0.3 if kind.form == "negative" else 0.3
    if kind.op == "DEQUANTIZE":
        output = builder.tensor("output", shape, "float32")
    elif kind.op == "LOGISTIC":
        output = builder.tensor("output", shape, kind.dtype, _parameters(1 / 256, low))
    elif kind.form == "same scale":
        output = builder.tensor("output", shape, kind.dtype, _parameters(scales[0], low + 131))
    else:
        scale = TIE if clamped else scales[2]
        output = builder.tensor("output", shape, kind.dtype, _parameters(scale, low + 119))
    builder.layer(kind.op, inputs, [output], _version(kind), **attributes)
    return builder.build([output])


def _version(kind: Kind) -> int:
    """The op's version: most ops take int8 from their second version on."""
    first = kind.op in ("HARD_SWISH", "ELU", "PRELU") or kind.form == "from float"
    return 2 if kind.dtype == "int8" and not first else 1


_WINDOW = {
    "padding": "VALID", "stride_h": 1, "stride_w": 1, "filter_height": 2, "filter_width": 3,
}  # fmt: skip


def sampled_layer(kind: Kind, seed: int) -> Graph:
    """A layer without a finite description."""
    rng = np.random.default_rng(seed)
    builder, low = GraphBuilder(str(kind)), QUANTIZED_RANGE[kind.dtype][0]
    scales = [float(scale) for scale in rng.uniform(0.02, 0.08, 3)]
    attributes: dict[str, Any] = {}
    given, other = _parameters(scales[0], low + 131), _parameters(scales[1], low + 119)

    def layer(shape: Sequence[int], result: Sequence[int], out: Quantization, *more: int) -> Graph:
        source = ("float32", None) if kind.form == "from float" else (kind.dtype, given)
        data = builder.input("data", shape, *source)
        output = builder.tensor("output", result, kind.dtype, out)
        builder.layer(kind.op, [data, *more], [output], _version(kind), **attributes)
        return builder.build([output])

    if kind.op in ("QUANTIZE", "EXP", "ELU"):
        shape = (1, 541 if seed < 4 else 7)  # 7 values lie behind the last block, of none
        return layer(shape, shape, other)
    if kind.op == "SOFTMAX":
        attributes["beta"] = 1.0 + seed
        return layer((150, 19), (150, 19), _parameters(1 / 256, low))
    if kind.op == "LOG_SOFTMAX":
        return layer((150, 19), (150, 19), _parameters(16 / 256, low + 255))
    if kind.op == "L2_NORMALIZATION":
        attributes["fused_activation_function"] = "NONE"
        return layer((7, 19), (7, 19), _parameters(1 / 128, low + 128))
    if kind.op == "MEAN":
        spatial = kind.form == "spatial"
        attributes["keep_dims"] = spatial
        axes = builder.constant("axes", np.array([1, 2] if spatial else [1], np.int32))
        if seed % 2:  # averages of 16 values: ties
            given, other = _parameters(2.0**-4, low + 131), _parameters(2.0**-5, low + 119)
        elif seed:  # every eighth sum is a tie, or lies beside one
            other = _parameters(scales[0] / 16 / THREE_EIGHTHS, low + 119)
        if spatial:
            return layer((20, 4, 4, CHANNELS), (20, 1, 1, CHANNELS), other, axes)
        return layer((20, 16, CHANNELS), (20, CHANNELS), other, axes)
    if kind.op in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        given = _parameters(TIE if seed == 0 else scales[0], low + 131)
        attributes |= {**_WINDOW, "fused_activation_function": "RELU6" if seed == 0 else "NONE"}
        return layer((2, 6, 7, 5), (2, 5, 5, 5), given)
    if kind.op == "RESIZE_BILINEAR":
        attributes |= {"align_corners": seed == 1, "half_pixel_centers": seed == 2}
        size = builder.constant("size", np.array([9, 12], np.int32))
        return layer((1, 5, 7, 6), (1, 9, 12, 6), given, size)
    if kind.op == "PRELU":
        other = _parameters(scales[0] / THREE_EIGHTHS, low + 119)
        slopes = rng.integers(low, low + 256, (1, 1, 9)).astype(kind.dtype)
        return layer((3, 5, 7, 9), (3, 5, 7, 9), other, builder.constant("slopes", slopes, other))
    if kind.op == "CONCATENATION":
        attributes |= {"axis": 1, "fused_activation_function": "NONE"}
        right = builder.input("right", (2, 300), kind.dtype, _parameters(scales[2], low + 122))
        return layer((2, 300), (2, 600), other, right)
    assert kind.op == "BATCH_MATMUL"
    attributes |= {"adj_x": False, "adj_y": False}
    right = builder.input("right", (1, 1, 256), kind.dtype, _parameters(scales[2], low + 122))
    result = _parameters(scales[0] * scales[2] * 64 / THREE_EIGHTHS, low + 119)
    return layer((1, 256, 1), (1, 256, 256), result, right)  # one product a sum: all pairs
