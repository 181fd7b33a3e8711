"""Convolutions and fully connected layers of int16 activations, int8 filters, and each kind of bias."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np

from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, AttributeValue, Quantization
from tests.cases.case import Case
from tests.cases.filter_layer import EVERY_LANE, Shape, channel_axis, filter_shape
from tests.cases.quantized import f32, parameters, seeded, some_values

OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
BIASES = ("int64", "int32", "named int32", "none")
"""The bias's element type; ``named`` where the layer's attribute quantized_bias_type says it too."""

LITERT = ("litert-ref", "litert-builtin", "litert-xnnpack")
OLD = ("tflite-2.14-ref", "tflite-2.14-builtin")

EFFECTIVE = {
    "power_of_two": 2.0**-7,
    "fine": 1.37e-5,
    "coarse": 0.0231,
    "near_one": 0.99999994,
    "left_shift": 1.73,
    "left_shift_power": 4.0,
}
"""Effective multipliers by what they hit: exact ties; accumulators of 31 bits, where multipliers of 15 and
31 bits differ; few ties; the carry of both multipliers; shifts to the left, where roundings differ most."""


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_ties(), *_tails(), *_wide(), *_geometry(), *_activations()]


def _broken_in(op: str, bias: str, activation: str) -> dict[str, str]:
    """Lanes that cannot run the layer, with the reason."""
    if op == "TRANSPOSE_CONV" and activation != "NONE":
        return {"tflite-2.14-ref": "its resolver knows TRANSPOSE_CONV up to version 3, without activation"}
    if bias == "none":
        if op == "CONV_2D":
            return dict.fromkeys(EVERY_LANE, "CONV_2D on quantized values insists on a bias")
        return {}
    if bias == "int64":
        return {}
    if op == "DEPTHWISE_CONV_2D":
        return dict.fromkeys(EVERY_LANE, "DEPTHWISE_CONV_2D of int16 takes an int64 bias only")
    if bias == "named int32":
        return dict.fromkeys(OLD, "it lists no version with quantized_bias_type")
    if op in ("CONV_2D", "TRANSPOSE_CONV"):
        return dict.fromkeys(LITERT, "an int32 bias nobody names is read as int64, past its end")
    return {"litert-ref": "an int32 bias nobody names is read as int64, past its end"}


def _layer(
    op: str,
    name: str,
    edge: str,
    shape: Shape,
    feed: Array,
    filter_: Array,
    bias: Array | None,
    scales: tuple[float, tuple[float, ...], float],
    kind: str = "int64",
    activation: str = "NONE",
    output_shape: tuple[int, ...] | None = None,
) -> Case:
    """``scales`` are the input's, the filter's (one, or one per channel) and the output's."""
    s_in, s_filter, s_out = scales
    of_filter = Quantization(s_filter, (0,) * len(s_filter), channel_axis(op) if len(s_filter) > 1 else 0)
    builder = GraphBuilder(name)
    input_ = builder.input("input", feed.shape, "int16", parameters(s_in))
    inputs = [input_, builder.constant("filter", filter_.astype(np.int8), of_filter)]
    attributes: dict[str, AttributeValue] = {"fused_activation_function": activation}
    if bias is not None and kind != "none":
        bias_scales = tuple(f32(np.float32(s_in) * np.float32(scale)) for scale in s_filter)
        of_bias = Quantization(bias_scales, (0,) * len(bias_scales), 0)
        inputs.append(builder.constant("bias", bias.astype(kind.removeprefix("named ")), of_bias))
        if kind.startswith("named") and op != "DEPTHWISE_CONV_2D":
            attributes["quantized_bias_type"] = kind.removeprefix("named ")
    if output_shape is None:
        output_shape = (*feed.shape[:-1], shape.out_channels)
    output = builder.tensor("output", output_shape, "int16", parameters(s_out))
    if op == "FULLY_CONNECTED":
        attributes |= {"keep_num_dims": False, "weights_format": "DEFAULT"}
    else:
        attributes |= {
            "padding": shape.padding, "stride_h": shape.stride[0], "stride_w": shape.stride[1],
        }  # fmt: skip
    if op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        attributes |= {"dilation_h_factor": shape.dilation[0], "dilation_w_factor": shape.dilation[1]}
    if op == "DEPTHWISE_CONV_2D":
        attributes["depth_multiplier"] = shape.depth_multiplier
    if op == "TRANSPOSE_CONV":
        size = builder.constant("output_shape", np.array(output_shape, np.int32))
        inputs = [size, inputs[1], input_, *inputs[2:]]
    builder.layer(op, inputs, [output], **attributes)
    broken_in = _broken_in(op, kind, activation)
    return Case(name, with_lowest_versions(builder.build([output])), (feed,), edge, broken_in)


def _scales(
    rng: np.random.Generator, effective: float, channels: int, exact: bool
) -> tuple[float, tuple[float, ...], float]:
    """Scales whose multiplier is about ``effective``, exactly it in channel 0 when ``exact``."""
    s_in, s_out = (2.0**-12, 2.0**-10) if exact else (f32(3.1e-4), f32(0.9e-3))
    spread = 2.0 ** rng.integers(-2, 3, channels) if exact else rng.uniform(0.6, 1.6, channels)
    spread[0] = 1.0
    return s_in, tuple(f32(effective * s_out / s_in * factor) for factor in spread), s_out


def _tie_bias(scales: tuple[float, tuple[float, ...], float], channels: int, name: str) -> Array:
    """One accumulator per channel beside a tie, by the whole multiplier or by its 15 bits, within 31 bits."""
    s_in, s_filter, s_out = scales
    rng, found = seeded(name + "bias"), []
    for channel, scale in enumerate(np.resize(s_filter, channels)):
        real = s_in * float(scale) / s_out
        if channel % 2:
            fraction, exponent = math.frexp(real)
            real = math.ldexp(round(fraction * 2**15), exponent - 15)
        most = min(32000, int(2**31 * real * 0.98))
        found.append(round((int(rng.integers(-most, most)) + 0.5) / real))
    return np.array(found, np.int64)


def _steps_case(
    op: str, label: str, edge: str, bias: str, per_channel: bool, kind: str, channels: int
) -> Case:
    """1x1 layers in which acc = bias + input of one channel: a few steps around each tie."""
    axis = "channel" if per_channel else "tensor"
    name = f"{op.lower()}_int16_{bias.replace(' ', '_')}_per_{axis}_{label}"
    rng = seeded(name)
    scales = _scales(rng, EFFECTIVE[kind], channels if per_channel else 1, exact="power" in kind)
    biases = _tie_bias(scales, channels, name)
    steps = np.arange(-4, 5)
    in_channels = channels if op == "DEPTHWISE_CONV_2D" else 4
    shape = Shape((1, 1, len(steps), in_channels), channels)
    feed = np.repeat(steps[:, None], in_channels, 1).astype(np.int16)
    if bias == "none":
        feed = some_values(rng, "int16", (9, in_channels))
    if op == "FULLY_CONNECTED":
        shape = Shape((len(steps), in_channels), channels)
    feed = feed.reshape(shape.input)
    filter_ = np.zeros(filter_shape(op, shape))
    filter_[(Ellipsis,) if op == "DEPTHWISE_CONV_2D" else (..., 0)] = 1
    return _layer(op, name, edge, shape, feed, filter_, biases, scales, bias)


def _ties() -> Iterator[Case]:
    for op, bias, per_channel, kind in itertools.product(OPS, BIASES, (True, False), EFFECTIVE):
        yield _steps_case(op, kind, f"ties, multiplier {kind}", bias, per_channel, kind, 17)


def _tails() -> Iterator[Case]:
    """Channels below, on and behind every block size in use."""
    for op, bias, channels in itertools.product(OPS, ("int64", "named int32", "none"), (1, 3, 8, 9, 16, 33)):
        edge = f"{channels} channels, ties"
        yield _steps_case(op, f"{channels}_channels", edge, bias, channels != 9, "power_of_two", channels)


def _wide() -> Iterator[Case]:
    """Sums beyond 31 and beyond 47 bits, where 32-bit results wrap; only an int64 bias is so large."""
    limits = {"beyond_int32": 2**33, "beyond_48_bits": 2**50}
    for op, (label, limit), kind in itertools.product(OPS, limits.items(), ("fine", "coarse")):
        name = f"{op.lower()}_int16_wide_{label}_{kind}"
        rng = seeded(name)
        channels = 9
        scales = _scales(rng, EFFECTIVE[kind], channels, exact=False)
        shape = Shape((7, channels) if op == "FULLY_CONNECTED" else (1, 1, 7, channels), channels)
        feed = some_values(rng, "int16", shape.input)
        filter_ = rng.integers(-127, 128, filter_shape(op, shape))
        bias = rng.integers(-limit, limit, channels)
        yield _layer(op, name, f"accumulators {label}", shape, feed, filter_, bias, scales)
    for op, bias_kind in itertools.product(("CONV_2D", "FULLY_CONNECTED"), BIASES):
        name = f"{op.lower()}_int16_deep_{bias_kind.replace(' ', '_')}"
        rng = seeded(name)
        depth = 1100
        shape = Shape((3, depth) if op == "FULLY_CONNECTED" else (1, 1, 3, depth), 5)
        feed = np.full(shape.input, -32768, np.int16)
        filter_ = np.sign(rng.normal(0, 1, filter_shape(op, shape)) + 3) * 127
        scales = _scales(rng, 1.37e-5, 5, exact=False)
        bias = rng.integers(-(2**20), 2**20, 5)
        yield _layer(op, name, "products beyond int32", shape, feed, filter_, bias, scales, bias_kind)


def _geometry() -> Iterator[Case]:
    shapes: Mapping[str, tuple[str, Shape, tuple[int, ...]]] = {
        "strided": ("CONV_2D", Shape((2, 9, 8, 5), 7, (3, 3), (2, 2)), (2, 5, 4, 7)),
        "dilated": ("CONV_2D", Shape((1, 9, 9, 3), 4, (3, 2), (1, 1), (2, 3), "VALID"), (1, 5, 6, 4)),
        "grouped": ("CONV_2D", Shape((1, 6, 6, 8), 12, (3, 3), groups=4), (1, 6, 6, 12)),
        "pointwise": ("CONV_2D", Shape((1, 5, 5, 32), 20), (1, 5, 5, 20)),
        "same": ("DEPTHWISE_CONV_2D", Shape((2, 7, 7, 19), 19, (3, 3), (2, 2)), (2, 4, 4, 19)),
        "multiplied": (
            "DEPTHWISE_CONV_2D", Shape((1, 6, 6, 5), 10, (3, 3), depth_multiplier=2), (1, 6, 6, 10),
        ),
        "dilated_depthwise": (
            "DEPTHWISE_CONV_2D", Shape((1, 9, 9, 8), 8, (3, 3), (1, 1), (2, 2)), (1, 9, 9, 8),
        ),
        "doubled": ("TRANSPOSE_CONV", Shape((1, 4, 5, 6), 9, (3, 3), (2, 2)), (1, 8, 10, 9)),
        "valid": ("TRANSPOSE_CONV", Shape((1, 4, 4, 3), 5, (2, 4), (2, 2), padding="VALID"), (1, 8, 10, 5)),
        "rows": ("FULLY_CONNECTED", Shape((6, 37), 18), (6, 18)),
    }  # fmt: skip
    for (label, (op, shape, result)), bias in itertools.product(shapes.items(), BIASES):
        name = f"{op.lower()}_int16_{label}_{bias.replace(' ', '_')}"
        rng = seeded(name)
        feed = some_values(rng, "int16", shape.input)
        sizes = filter_shape(op, shape)
        filter_ = rng.integers(-127, 128, sizes)
        terms = max(math.prod(sizes) // shape.out_channels, 1)
        scales = _scales(rng, 1.5e-3 / math.sqrt(terms), shape.out_channels, exact=False)
        biases = rng.integers(-(2**24), 2**24, shape.out_channels)
        yield _layer(
            op, name, "geometry, random values", shape, feed, filter_, biases, scales, bias,
            output_shape=result,
        )  # fmt: skip


def _activations() -> Iterator[Case]:
    """At scale 4, 6 and 1 lie on ties."""
    for op, activation in itertools.product(OPS, ("RELU", "RELU6", "RELU_N1_TO_1")):
        name = f"{op.lower()}_int16_{activation.lower()}"
        rng = seeded(name)
        shape = Shape((5, 6) if op == "FULLY_CONNECTED" else (1, 1, 5, 6), 6)
        feed = rng.integers(-50, 50, shape.input).astype(np.int16)
        filter_ = rng.integers(-3, 4, filter_shape(op, shape))
        bias = rng.integers(-9, 9, 6)
        scales = (1.0, (0.5,), 4.0)
        yield _layer(
            op, name, f"{activation} bound on a tie", shape, feed, filter_, bias, scales,
            activation=activation,
        )  # fmt: skip
