"""Cases of RELU, RELU6, RELU_N1_TO_1, LEAKY_RELU, PRELU, HARD_SWISH and L2_NORMALIZATION."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tests.cases.case import Case
from tests.cases.quantized import ZERO_POINTS, every_value, f32, seeded, some_values
from tests.cases.single_layer import Constant, Feed, Result, single_layer

DTYPES = ("int8", "uint8")

SCALES = {
    "same": (0.0471, 0.0471),
    "tie": (4.0, 4.0),
    "halved": (0.25, 0.5),
    "quartered": (0.25, 1.0),
    "usual": (0.0471, 0.0294),
    "shrunk": (0.021, 0.11),
    "grown": (2.0, 0.013),
    "far_apart": (0.0001, 1.0),
}
"""``(input, output)``; at 4, bounds of 6 and 1 lie on ties."""


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_relus(), *_leaky_relus(), *_prelus(), *_hard_swishes(), *_l2_normalizations()]


def _relus() -> Iterator[Case]:
    for op, dtype, (label, scales), turn in itertools.product(
        ("RELU", "RELU6", "RELU_N1_TO_1"), DTYPES, SCALES.items(), range(3)
    ):
        zero_in, zero_out = ZERO_POINTS[dtype][turn], ZERO_POINTS[dtype][(turn + 2) % 5]
        if scales[0] == scales[1]:
            zero_out = zero_in = ZERO_POINTS[dtype][2 + turn]
        yield single_layer(
            f"{op.lower()}_{dtype}_{label}_{turn}", "every value", op,
            [Feed(every_value(dtype), f32(scales[0]), zero_in)],
            [Result((256,), dtype, f32(scales[1]), zero_out)],
        )  # fmt: skip
    for op in ("RELU", "RELU6", "RELU_N1_TO_1"):
        values = np.linspace(-8, 8, 65, dtype=np.float32)
        yield single_layer(
            f"{op.lower()}_float32", "unquantized", op, [Feed(values)], [Result((65,), "float32")]
        )


def _leaky_relus() -> Iterator[Case]:
    alphas = {
        "tenth": 0.1, "half": 0.5, "more_than_one": 1.5, "negative": -0.3, "minus_half": -0.5, "zero": 0.0,
        "third": 1 / 3, "small": 0.01,
    }  # fmt: skip
    for dtype, (label, scales), (name, alpha) in itertools.product(DTYPES, SCALES.items(), alphas.items()):
        rng = seeded(f"leaky{dtype}{label}{name}")
        zero_points = [int(zero) for zero in rng.choice(ZERO_POINTS[dtype], 2)]
        yield single_layer(
            f"leaky_relu_{dtype}_{label}_{name}", "every value", "LEAKY_RELU",
            [Feed(every_value(dtype), f32(scales[0]), zero_points[0])],
            [Result((256,), dtype, f32(scales[1]), zero_points[1])], alpha=f32(alpha),
        )  # fmt: skip


def _prelus() -> Iterator[Case]:
    shapes = {
        "channel": ((2, 3, 4, 17), (1, 1, 17)),
        "whole": ((2, 3, 4, 17), (3, 4, 17)),
        "scalar": ((2, 3, 4, 17), (1,)),
        "rank2": ((5, 9), (9,)),
        "column": ((2, 3, 4, 9), (1, 4, 1)),
        "same": ((2, 3, 4, 9), (2, 3, 4, 9)),
    }
    for dtype, (label, (shape, alpha_shape)), constant in itertools.product(
        DTYPES, shapes.items(), (True, False)
    ):
        for kind, scales in {"ties": (0.25, 0.125, 0.5), "usual": (0.0471, 0.0073, 0.0332)}.items():
            name = f"prelu_{dtype}_{label}_{kind}_{'constant' if constant else 'fed'}"
            rng = seeded(name)
            zero_points = [int(zero) for zero in rng.choice(ZERO_POINTS[dtype], 3)]
            alpha = some_values(rng, dtype, alpha_shape)
            given = (Constant if constant else Feed)(alpha, f32(scales[1]), zero_points[1])
            yield single_layer(
                name, "slopes of both signs, broadcast", "PRELU",
                [Feed(some_values(rng, dtype, shape), f32(scales[0]), zero_points[0]), given],
                [Result(shape, dtype, f32(scales[2]), zero_points[2])],
            )  # fmt: skip
    for dtype in DTYPES:
        values = every_value(dtype)
        yield single_layer(
            f"prelu_{dtype}_pairs", "every pair of value and slope", "PRELU",
            [Feed(np.repeat(values[:, None], 256, 1), 0.5, 3), Constant(values, 0.25, 5)],
            [Result((256, 256), dtype, 4.0, 1)],
        )  # fmt: skip


def _hard_swishes() -> Iterator[Case]:
    scales = {
        "usual": (0.0471, 0.0294), "same": (0.0235, 0.0235), "powers": (2.0**-4, 2.0**-5),
        "wide": (0.25, 0.125),
        "narrow": (0.0007, 0.0006), "coarse": (3.1, 3.0), "gate_of_one": (0.01171875, 0.01),
        "huge": (150.0, 140.0), "fine_output": (0.0471, 0.00047), "coarse_output": (0.01, 2.0),
    }  # fmt: skip
    for dtype, (label, (scale_in, scale_out)), turn in itertools.product(DTYPES, scales.items(), range(5)):
        yield single_layer(
            f"hard_swish_{dtype}_{label}_{turn}", "every value", "HARD_SWISH",
            [Feed(every_value(dtype), f32(scale_in), ZERO_POINTS[dtype][turn])],
            [Result((256,), dtype, f32(scale_out), ZERO_POINTS[dtype][(turn + 3) % 5])],
        )  # fmt: skip


def _l2_normalizations() -> Iterator[Case]:
    for dtype, depth, turn in itertools.product(DTYPES, (1, 2, 3, 8, 17, 64, 1000), range(5)):
        name = f"l2_normalization_{dtype}_{depth}_{turn}"
        rng = seeded(name)
        zero = ZERO_POINTS[dtype][turn]
        shape = (2, 3, 2, depth) if turn % 2 else (7, depth)
        values = some_values(rng, dtype, shape)
        values.reshape(-1, depth)[0] = zero  # a row of zeros
        values.reshape(-1, depth)[1] = zero
        values.reshape(-1, depth)[1, -1] = zero + (1 if zero < 100 else -1)  # and one of length 1
        yield single_layer(
            name, "rows of zeros, of length 1, and long ones", "L2_NORMALIZATION",
            [Feed(values, f32(0.037), zero)], [Result(shape, dtype, 1 / 128, 128 if dtype == "uint8" else 0)],
            fused_activation_function="NONE",
        )  # fmt: skip
