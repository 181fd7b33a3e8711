"""Cases of products that Arm's kernels treat apart: one row or pixel, and depthwise filters of 3x3 taps.

All accumulators lie on or beside ties, carried by the bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np

from karat24.refimpl.graph import DTYPES, Quantization
from tests.cases.case import Case
from tests.cases.filter_layer import Shape, channel_axis, filter_layer, filter_shape
from tests.cases.quantized import ZERO_POINTS, f32, parameters, seeded
from tests.cases.ties import tie_accumulators

KINDS = (("int8", True), ("int8", False), ("uint8", False))


@cache
def cases() -> tuple[Case, ...]:
    """All of them, names unique."""
    return (*_vectors(), *_depthwise())


def _case(op: str, dtype: str, per_channel: bool, shape: Shape, multiplier: float = 2.0**-7) -> Case:
    sizes = filter_shape(op, shape)
    channels = sizes[channel_axis(op)]
    kind = "per_channel" if per_channel else "per_tensor"
    window = f"{'x'.join(map(str, sizes))}_stride{shape.stride[0]}{shape.stride[1]}"
    name = f"small_{op.lower()}_{dtype}_{kind}_{'x'.join(map(str, shape.input))}_{window}_{shape.padding}"
    name += f"_{multiplier:.3g}_{shape.dilation[0]}_{shape.depth_multiplier}"
    rng = seeded(name)
    zero = ZERO_POINTS[dtype][3]
    zero_filter = 0 if dtype == "int8" else 131
    s_in, s_out = 2.0**-5, 2.0**-3
    spread = 2.0 ** rng.integers(-2, 1, channels if per_channel else 1)
    s_filter = tuple(f32(multiplier * s_out / s_in * factor) for factor in spread)
    bias = [
        rng.choice(tie_accumulators((s_in, scale, s_out), zero, dtype, 24, rng))
        for scale in np.resize(s_filter, channels)
    ]
    feed = (zero + rng.integers(-1, 2, shape.input)).astype(DTYPES[dtype])
    filter_ = np.full(sizes, zero_filter)
    if op == "DEPTHWISE_CONV_2D":
        filter_[:, sizes[1] // 2, sizes[2] // 2, :] += 1
    else:
        filter_[..., 0] += 1
    axis = channel_axis(op) if per_channel else 0
    of_filter = Quantization(s_filter, (zero_filter,) * len(s_filter), axis)
    return filter_layer(
        op, name, "ties", shape, feed, filter_.astype(DTYPES[dtype]), np.array(bias),
        (parameters(s_in, zero), of_filter, parameters(s_out, zero)),
    )  # fmt: skip


def _vectors() -> Iterator[Case]:
    """Depths and channels on both sides of 8 and 4, from which on Arm's vector kernel runs."""
    for (dtype, per_channel), depth, channels in itertools.product(KINDS, (7, 8, 9, 17), (3, 4, 5, 17)):
        for multiplier in (2.0**-7, 1.37e-5):
            row, pixel = Shape((1, depth), channels), Shape((1, 1, 1, depth), channels)
            yield _case("FULLY_CONNECTED", dtype, per_channel, row, multiplier)
            yield _case("CONV_2D", dtype, per_channel, pixel, multiplier)
        yield _case("FULLY_CONNECTED", dtype, per_channel, Shape((2, depth), channels))
    for (dtype, per_channel), channels in itertools.product(KINDS, (4, 17)):
        for rows in (1, 3):
            yield _case("FULLY_CONNECTED", dtype, per_channel, Shape((rows, 16), channels), 1.73)
            yield _case("FULLY_CONNECTED", dtype, per_channel, Shape((rows, 16), channels), 0.99999994)
        window = Shape((1, 3, 3, 3), channels, (3, 3), padding="VALID")
        yield _case("CONV_2D", dtype, per_channel, window)


def _depthwise() -> Iterator[Case]:
    """Images, strides and channels that the 3x3 kernel takes, and some that it does not."""
    images = ((5, 6), (4, 4), (3, 3), (1, 5), (5, 1), (1, 1), (2, 2))
    for (dtype, per_channel), channels, stride, padding, (height, width) in itertools.product(
        KINDS, (8, 12, 24), ((1, 1), (2, 2), (1, 2)), ("SAME", "VALID"), images
    ):
        if padding == "SAME" or min(height, width) >= 3:
            shape = Shape((1, height, width, channels), 0, (3, 3), stride, padding=padding)
            yield _case("DEPTHWISE_CONV_2D", dtype, per_channel, shape)
    for dtype, per_channel in KINDS:
        yield _case("DEPTHWISE_CONV_2D", dtype, per_channel, Shape((1, 5, 6, 8), 0, (3, 3), dilation=(2, 2)))
        yield _case(
            "DEPTHWISE_CONV_2D", dtype, per_channel, Shape((1, 5, 6, 4), 0, (3, 3), depth_multiplier=2)
        )
        yield _case("DEPTHWISE_CONV_2D", dtype, per_channel, Shape((1, 5, 6, 8), 0, (5, 5)))
