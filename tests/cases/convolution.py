"""Cases of CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV and FULLY_CONNECTED."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache

import numpy as np

from karat24.refimpl.graph import DTYPES, Quantization
from tests.cases.case import Case
from tests.cases.filter_layer import Shape, channel_axis, filter_layer, filter_shape
from tests.cases.quantized import ZERO_POINTS, f32, parameters, seeded, some_values
from tests.cases.ties import tie_accumulators

TAILS = (1, 3, 8, 9, 15, 16, 17, 33)
"""Channel counts below, on and behind every block size in use (8 and 16)."""

EFFECTIVE = {
    "power_of_two": 2.0**-7,
    "fine": 1.37e-5,
    "beyond_float24": 1.1e-6,
    "coarse": 0.0231,
    "near_one": 0.99999994,
    "left_shift": 1.73,
    "left_shift_power": 4.0,
}
"""Effective multipliers by what they hit: exact ties; accumulators so large that effP and effD
part; accumulators a float32 cannot hold; few ties; quantize_multiplier's carry; shifts to the left."""


LOUD = {"loud": 900.0, "deafening": 2e5}
"""Outputs far beyond int8, and beyond int16: a kernel that narrows in two steps may wrap in the first."""


@cache
def cases() -> tuple[Case, ...]:
    """All of them, names unique."""
    return (
        *_requantization_cases(),
        *_geometry_cases(),
        *_depthwise_geometry_cases(),
        *_transpose_geometry_cases(),
        *_fully_connected_cases(),
        *_activation_cases(),
        *_beyond_int32_cases(),
    )


def _scales(
    rng: np.random.Generator, effective: float, channels: int, per_channel: bool, exact: bool
) -> tuple[float, tuple[float, ...], float]:
    """``(s_in, s_filter, s_out)`` whose multiplier is about ``effective``; exactly it when ``exact``."""
    if exact:
        s_in, s_out = 2.0**-5, 2.0**-3
        spread = 2.0 ** rng.integers(-2, 3, channels if per_channel else 1)
        spread[0] = 1.0
    else:
        s_in, s_out = f32(0.0078 * rng.uniform(1, 2)), f32(0.031 * rng.uniform(1, 2))
        spread = rng.uniform(0.6, 1.6, channels) if per_channel else np.ones(1)
    return s_in, tuple(f32(effective * s_out / s_in * factor) for factor in spread), s_out


# --- ties, injected through the bias ------------------------------------------------------------


def _requantization_cases() -> Iterator[Case]:
    """1x1 layers in which acc = bias + (input - zp) of one channel: a few steps around each tie."""
    for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"):
        variants = (("int8", True), ("int8", False), ("uint8", False))
        for (dtype, per_channel), kind in itertools.product(variants, EFFECTIVE):
            channels = {"power_of_two": 33, "fine": 41, "beyond_float24": 24}.get(kind, 17)
            yield _tie_case(op, dtype, per_channel, kind, channels, zero_points=3)
    for op, channels in itertools.product(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), TAILS):
        yield _tie_case(op, "int8", True, "power_of_two", channels, zero_points=4)
    for channels in TAILS:
        yield _tie_case("TRANSPOSE_CONV", "int8", False, "power_of_two", channels, zero_points=1)
        yield _tie_case("TRANSPOSE_CONV", "uint8", False, "power_of_two", channels, zero_points=4)
    for op, zero_points in itertools.product(("CONV_2D", "DEPTHWISE_CONV_2D"), (0, 1, 2)):
        yield _tie_case(op, "int8", True, "fine", 16, zero_points)
        yield _tie_case(op, "uint8", False, "fine", 16, zero_points)
    yield _tie_case("CONV_2D", "int8", True, "power_of_two", 16, 3, groups=4)
    yield _tie_case("CONV_2D", "uint8", False, "power_of_two", 16, 3, groups=4)
    yield _tie_case("CONV_2D", "uint8", False, "fine", 16, 3, groups=2)
    yield _tie_case("CONV_2D", "int8", False, "fine", 12, 3, groups=3)


def _tie_case(
    op: str, dtype: str, per_channel: bool, kind: str, channels: int, zero_points: int, groups: int = 1
) -> Case:
    axis = "channel" if per_channel else "tensor"
    name = f"{op.lower()}_{dtype}_per_{axis}_{kind}_{channels}_zp{zero_points}_g{groups}"
    rng = seeded(name)
    zero_in = ZERO_POINTS[dtype][zero_points]
    zero_out = ZERO_POINTS[dtype][(zero_points + 1) % 5]
    zero_filter = 0 if dtype == "int8" else ZERO_POINTS[dtype][(zero_points + 2) % 5]
    s_in, s_filter, s_out = _scales(rng, EFFECTIVE[kind], channels, per_channel, exact="power" in kind)
    bias = np.array(
        [
            tie_accumulators((s_in, scale, s_out), zero_out, dtype, channels, rng)[channel]
            for channel, scale in enumerate(np.resize(s_filter, channels))
        ]
    )
    low = {"int8": -128, "uint8": 0}[dtype]
    steps = [step for step in range(-4, 5) if low <= zero_in + step <= low + 255]
    in_channels = channels if op == "DEPTHWISE_CONV_2D" else 4 * groups
    shape = Shape((1, 1, len(steps), in_channels), channels, groups=groups)
    feed = np.full(shape.input, zero_in, DTYPES[dtype])
    feed[0, 0, :, :] = (zero_in + np.array(steps))[:, None]
    if op == "FULLY_CONNECTED":
        shape = Shape((len(steps), in_channels), channels)
        feed = feed.reshape(shape.input)
    filter_ = np.full(filter_shape(op, shape), zero_filter)
    first = (Ellipsis,) if op == "DEPTHWISE_CONV_2D" else (..., 0)
    filter_[first] = zero_filter + (1 if zero_filter < 255 else -1)
    of_filter = Quantization(s_filter, (zero_filter,) * len(s_filter), channel_axis(op) if per_channel else 0)
    return filter_layer(
        op, name, f"ties, multiplier {kind}", shape, feed, filter_.astype(DTYPES[dtype]), bias,
        (parameters(s_in, zero_in), of_filter, parameters(s_out, zero_out)),
    )  # fmt: skip


# --- geometry, on random values -----------------------------------------------------------------


def _random_case(
    op: str,
    label: str,
    shape: Shape,
    dtype: str,
    per_channel: bool,
    edge: str,
    activation: str = "NONE",
    bias: bool = True,
    output_shape: tuple[int, ...] | None = None,
    keep_num_dims: bool = False,
    loud: float = 60.0,
    scales: tuple[float, int] | None = None,
) -> Case:
    """Random values; the multiplier makes outputs spread ``loud`` steps around the zero point."""
    axis = "channel" if per_channel else "tensor"
    name = f"{op.lower()}_{dtype}_per_{axis}_{label}"
    rng = seeded(name)
    sizes = filter_shape(op, shape)
    channels = sizes[channel_axis(op)]
    zero_in, zero_out = (int(rng.choice(ZERO_POINTS[dtype])) for _ in range(2))
    zero_filter = 0 if dtype == "int8" else int(rng.choice(ZERO_POINTS[dtype]))
    terms = max(math.prod(sizes) // channels, 1)
    effective = loud / (math.sqrt(terms) * 90 * 90)
    s_in, s_filter, s_out = _scales(rng, effective, channels, per_channel, exact=False)
    if scales is not None:
        ratio, (s_out, zero_out) = s_out, scales
        s_filter = tuple(f32(scale * s_out / ratio) for scale in s_filter)
    feed = some_values(rng, dtype, shape.input)
    filter_ = some_values(rng, dtype, sizes)
    values = None
    if bias:
        values = rng.integers(-100, 101, channels) * math.ceil(terms * 20)
    of_filter = Quantization(s_filter, (zero_filter,) * len(s_filter), channel_axis(op) if per_channel else 0)
    quantizations = (parameters(s_in, zero_in), of_filter, parameters(s_out, zero_out))
    return filter_layer(
        op, name, edge, shape, feed, filter_, values, quantizations, activation, output_shape, keep_num_dims
    )


_KINDS = (("int8", True), ("int8", False), ("uint8", False))

_WINDOWS = {
    "1x1": {},
    "3x3_same": {"taps": (3, 3)},
    "3x3_valid": {"taps": (3, 3), "padding": "VALID"},
    "3x3_same_stride2": {"taps": (3, 3), "stride": (2, 2)},
    "5x2_valid_stride13": {"taps": (5, 2), "stride": (1, 3), "padding": "VALID"},
    "3x3_same_dilation2": {"taps": (3, 3), "dilation": (2, 2)},
    "2x3_valid_dilation32": {"taps": (2, 3), "dilation": (3, 2), "padding": "VALID"},
    "1x1_stride2": {"stride": (2, 2)},
    "7x7_same_larger_than_input": {"taps": (9, 11)},
}


def _geometry_cases() -> Iterator[Case]:
    op = "CONV_2D"
    for (label, window), (dtype, per_channel) in itertools.product(_WINDOWS.items(), _KINDS):
        shape = Shape((2, 8, 7, 5), 9, **window)
        yield _random_case(op, label, shape, dtype, per_channel, "padding, strides, dilation, batch 2")
    for in_channels, out_channels in itertools.product((1, 3, 16, 17), (1, 8, 33)):
        shape = Shape((1, 4, 5, in_channels), out_channels, (3, 3))
        label = f"{in_channels}_to_{out_channels}"
        yield _random_case(op, label, shape, "int8", True, "channel tails")
        yield _random_case(op, label, shape, "uint8", False, "channel tails")
    for groups, (dtype, per_channel) in itertools.product((2, 3, 6), _KINDS):
        shape = Shape((1, 5, 4, 12), 18, (3, 3), groups=groups)
        yield _random_case(op, f"groups{groups}", shape, dtype, per_channel, "grouped convolution")
    for dtype, per_channel in _KINDS:
        shape = Shape((1, 1, 1, 7), 6, (3, 3))
        yield _random_case(op, "1x1_input", shape, dtype, per_channel, "one position, eight taps outside")
        shape = Shape((1, 3, 3, 4), 6, (3, 3), padding="VALID")
        yield _random_case(op, "1x1_output", shape, dtype, per_channel, "one output position")
        shape = Shape((1, 5, 5, 4), 6, (3, 3))
        yield _random_case(op, "no_bias", shape, dtype, per_channel, "bias left out", bias=False)
        for label, loud in LOUD.items():
            yield _random_case(op, label, shape, dtype, per_channel, "saturation at both ends", loud=loud)


def _depthwise_geometry_cases() -> Iterator[Case]:
    op = "DEPTHWISE_CONV_2D"
    for (label, window), (dtype, per_channel) in itertools.product(_WINDOWS.items(), _KINDS):
        shape = Shape((2, 8, 7, 9), 9, **window)
        yield _random_case(op, label, shape, dtype, per_channel, "padding, strides, dilation, batch 2")
    for channels, multiplier in ((1, 1), (1, 8), (3, 1), (3, 2), (4, 4), (8, 1), (15, 1), (16, 2), (33, 1)):
        shape = Shape((1, 5, 5, channels), 0, (3, 3), depth_multiplier=multiplier)
        label = f"{channels}_times_{multiplier}"
        yield _random_case(op, label, shape, "int8", True, "depth multiplier and channel tails")
        yield _random_case(op, label, shape, "uint8", False, "depth multiplier and channel tails")
    for dtype, per_channel in _KINDS:
        shape = Shape((1, 1, 1, 17), 0, (3, 3))
        yield _random_case(op, "1x1_input", shape, dtype, per_channel, "one position, eight taps outside")
        shape = Shape((1, 6, 6, 8), 0, (3, 3))
        yield _random_case(op, "no_bias", shape, dtype, per_channel, "bias left out", bias=False)
        for label, loud in LOUD.items():
            yield _random_case(op, label, shape, dtype, per_channel, "saturation at both ends", loud=loud)


def _transpose_geometry_cases() -> Iterator[Case]:
    op = "TRANSPOSE_CONV"
    windows: dict[str, dict[str, object]] = {
        "4x4_same_stride2": {"taps": (4, 4), "stride": (2, 2)},
        "3x3_same_stride2": {"taps": (3, 3), "stride": (2, 2)},
        "3x3_same": {"taps": (3, 3)},
        "3x2_valid_stride12": {"taps": (3, 2), "stride": (1, 2), "padding": "VALID"},
        "2x2_valid_stride3": {"taps": (2, 2), "stride": (3, 3), "padding": "VALID"},
        "1x1": {},
    }
    for (label, window), (dtype, per_channel), bias in itertools.product(
        windows.items(), _KINDS, (True, False)
    ):
        shape = Shape((2, 3, 4, 5), 9, **window)  # type: ignore[arg-type]
        label = label if bias else label + "_no_bias"
        yield _random_case(op, label, shape, dtype, per_channel, "overlap, gaps, batch 2", bias=bias)
    for out_channels, (dtype, per_channel) in itertools.product(TAILS, (_KINDS[0], _KINDS[2])):
        shape = Shape((1, 3, 3, 4), out_channels, (3, 3), (2, 2))
        yield _random_case(op, f"to_{out_channels}", shape, dtype, per_channel, "channel tails")
    for dtype, per_channel in _KINDS:
        shape = Shape((1, 4, 3, 4), 8, (3, 3), (2, 2))
        yield _random_case(
            op, "odd_output", shape, dtype, per_channel, "SAME output one short of input times stride",
            output_shape=(1, 7, 5, 8),
        )  # fmt: skip
        shape = Shape((1, 3, 3, 4), 8, (2, 2), (2, 2), padding="VALID")
        yield _random_case(
            op, "longer_output", shape, dtype, per_channel, "VALID output with a rim nothing reaches",
            output_shape=(1, 7, 6, 8),
        )  # fmt: skip
        for label, loud in LOUD.items():
            yield _random_case(op, label, shape, dtype, per_channel, "saturation at both ends", loud=loud)


def _fully_connected_cases() -> Iterator[Case]:
    op = "FULLY_CONNECTED"
    for out_channels, (dtype, per_channel) in itertools.product(TAILS, _KINDS):
        shape = Shape((3, 21), out_channels)
        yield _random_case(op, f"to_{out_channels}", shape, dtype, per_channel, "channel tails, 3 rows")
    for in_channels, (dtype, per_channel) in itertools.product((1, 15, 16, 65), _KINDS):
        shape = Shape((1, in_channels), 10)
        yield _random_case(op, f"from_{in_channels}", shape, dtype, per_channel, "one row")
    for dtype, per_channel in _KINDS:
        shape = Shape((2, 3, 6), 7)
        yield _random_case(op, "flattened", shape, dtype, per_channel, "rank 3 read as rows")
        yield _random_case(
            op, "kept", shape, dtype, per_channel, "keep_num_dims", keep_num_dims=True, output_shape=(2, 3, 7)
        )
        yield _random_case(op, "no_bias", shape, dtype, per_channel, "bias left out", bias=False)
        for label, loud in LOUD.items():
            yield _random_case(op, label, shape, dtype, per_channel, "saturation at both ends", loud=loud)


def _activation_cases() -> Iterator[Case]:
    """Fused activations; at scale 4, 6 and 1 lie on ties (1.5 and 0.25 steps) of an odd zero point."""
    shapes = {
        "CONV_2D": Shape((1, 4, 4, 6), 9, (3, 3)),
        "DEPTHWISE_CONV_2D": Shape((1, 5, 5, 9), 0, (3, 3)),
        "TRANSPOSE_CONV": Shape((1, 3, 3, 4), 9, (3, 3), (2, 2)),
        "FULLY_CONNECTED": Shape((4, 12), 9),
    }
    settings = {"tie_odd": (4.0, 3), "tie_even": (4.0, 2), "half_step": (2.0, 5), "plain": (f32(0.047), 1)}
    for op, (dtype, per_channel), activation, (label, scales) in itertools.product(
        shapes, (_KINDS[0], _KINDS[2]), ("RELU", "RELU6", "RELU_N1_TO_1"), settings.items()
    ):
        yield _random_case(
            op, f"{activation.lower()}_{label}", shapes[op], dtype, per_channel,
            f"{activation} bound, output scale {scales[0]:.3g}", activation, scales=scales,
        )  # fmt: skip


def _beyond_int32_cases() -> Iterator[Case]:
    """Sums whose products with a multiplier of 4 round to int32's ends, to what zero points carry past them,
    and to what no int32 holds: LiteRT's reference kernel converts a float64, and adds the zero point after.

    None below int32 has a negative zero point: there XNNPACK wraps on some processors, and is not compared.
    """
    beside = [*range(-3, 4), 32, 33]
    above, below = ([sign * (2**29 + step) for step in beside] + [sign * 2**30] for sign in (1, -1))
    for (dtype, per_channel), position in itertools.product(_KINDS, range(5)):
        zero_in, zero_out = ZERO_POINTS[dtype][0], ZERO_POINTS[dtype][position]
        bias = np.array(above + (below if zero_out >= 0 else []))
        axis = "channel" if per_channel else "tensor"
        scales = (1.0,) * (len(bias) if per_channel else 1)
        shape = Shape((1, 4), len(bias))
        zero_filter = 0 if dtype == "int8" else 3
        filter_ = np.full(filter_shape("FULLY_CONNECTED", shape), zero_filter, DTYPES[dtype])
        yield filter_layer(
            "FULLY_CONNECTED", f"fully_connected_{dtype}_per_{axis}_beyond_int32_zp{zero_out}",
            "products at and beyond int32", shape,
            np.full(shape.input, zero_in, DTYPES[dtype]), filter_, bias,
            (parameters(1.0, zero_in), Quantization(scales, (zero_filter,) * len(scales), 0),
             parameters(0.25, zero_out)),
        )  # fmt: skip
