"""Cases of ADD, SUB and MUL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.quantized import ZERO_POINTS, every_pair, f32, seeded, some_values
from tests.cases.single_layer import Feed, Result, single_layer

OPS = ("ADD", "SUB", "MUL")
DTYPES = ("int8", "uint8")
ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1")

SCALES = {
    "equal": (0.05, 0.05, 0.05),
    "equal_halved": (0.5, 0.5, 1.0),
    "powers": (2.0**-4, 2.0**-6, 2.0**-3),
    "powers_wide": (2.0**-3, 2.0**-12, 2.0**-3),
    "third": (0.1, 0.3, 0.2),
    "usual": (0.0235, 0.0472, 0.0511),
    "fine_output": (0.0235, 0.0472, 0.0043),
    "coarse_output": (0.0235, 0.0172, 1.91),
    "far_apart": (0.7, 0.0009, 0.69),
    "beyond_int16": (0.5, 0.5, 0.5 / 300),
    "beyond_xnnpack": (3.1, 2.9e-4, 3.3),
    "vanishing": (1.0, 2e-8, 1.0),
}
"""``(left, right, output)``. Powers of two put sums and products exactly on ties; some outputs exceed
int16, where LiteRT's bodies wrap; the last two are too wide for XNNPACK's ADD, so those bodies run."""

BROADCASTS = {
    "scalar": ((2, 3, 5, 17), (1,)),
    "scalar_left": ((1, 1, 1, 1), (2, 3, 5, 17)),
    "channel": ((1, 4, 3, 33), (33,)),
    "channel_left": ((33,), (1, 4, 3, 33)),
    "channel_4d": ((2, 3, 3, 19), (1, 1, 1, 19)),
    "row": ((2, 3, 5, 18), (1, 1, 5, 18)),
    "last_one": ((2, 3, 5, 17), (2, 3, 5, 1)),
    "last_one_left": ((2, 3, 5, 1), (2, 3, 5, 17)),
    "middle": ((2, 4, 5, 9), (2, 1, 5, 9)),
    "first": ((1, 3, 4, 16), (2, 3, 4, 16)),
    "both_ways": ((2, 1, 5, 17), (1, 4, 5, 1)),
    "outer": ((1, 1, 7, 1), (1, 6, 1, 33)),
    "rank2": ((6, 23), (1, 23)),
    "rank2_column": ((6, 23), (6, 1)),
    "rank3": ((3, 1, 40), (3, 7, 40)),
    "se_gate": ((1, 6, 6, 24), (1, 1, 1, 24)),
    "image_gate": ((1, 6, 6, 1), (1, 6, 6, 24)),
}

PLAIN_SHAPES = {"same": ((2, 3, 4, 5), (2, 3, 4, 5)), "channel": ((2, 3, 4, 5), (5,)), "scalar": ((3, 4), ())}


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_pairs(), *_activations(), *_tails(), *_broadcasts(), *_plain()]


def _case(
    op: str,
    dtype: str,
    label: str,
    edge: str,
    operands: tuple[Array, Array],
    scales: tuple[float, float, float],
    zero_points: tuple[int, int, int],
    activation: str = "NONE",
) -> Case:
    left, right = operands
    left_scale, right_scale, output_scale = (f32(scale) for scale in scales)
    shape = np.broadcast_shapes(left.shape, right.shape)
    return single_layer(
        f"{op.lower()}_{dtype}_{label}",
        edge,
        op,
        [Feed(left, left_scale, zero_points[0]), Feed(right, right_scale, zero_points[1])],
        [Result(shape, dtype, output_scale, zero_points[2])],
        fused_activation_function=activation,
    )


def _product_scales(op: str, scales: tuple[float, float, float]) -> tuple[float, float, float]:
    """For MUL the output scale that makes products about as large as sums would be."""
    left, right, output = scales
    return (left, right, left * right * 64 * output / max(left, right)) if op == "MUL" else scales


def _pairs() -> Iterator[Case]:
    """All 65,536 pairs of values: every tie there is."""
    for op, dtype, (label, scales) in itertools.product(OPS, DTYPES, SCALES.items()):
        rng = seeded(f"{op}{dtype}{label}")
        zero_points = tuple(int(z) for z in rng.choice(ZERO_POINTS[dtype], 3))
        yield _case(
            op, dtype, f"pairs_{label}", "every pair of values", every_pair(dtype),
            _product_scales(op, scales), zero_points,  # type: ignore[arg-type]
        )  # fmt: skip
        swapped = (scales[1], scales[0], scales[2])
        yield _case(
            op, dtype, f"pairs_{label}_swapped", "every pair of values, scales swapped", every_pair(dtype),
            _product_scales(op, swapped), zero_points[::-1],  # type: ignore[arg-type]
        )  # fmt: skip


def _activations() -> Iterator[Case]:
    """At scale 4, 6 and 1 lie on ties of an odd zero point."""
    for op, dtype, activation, zero in itertools.product(OPS, DTYPES, ACTIVATIONS, (2, 3)):
        scales = (0.5, 0.25, 4.0) if op == "MUL" else (1.0, 0.7, 4.0)
        label = f"{activation.lower()}_zp{zero}"
        yield _case(
            op,
            dtype,
            label,
            f"{activation} bound on a tie",
            every_pair(dtype),
            scales,
            (zero, 7, zero),
            activation,
        )


def _tails() -> Iterator[Case]:
    """Flat sizes around the blocks of 8 and 16; scales that put half of all sums on ties."""
    sizes = (1, 7, 8, 9, 15, 16, 17, 31, 33)
    for op, dtype, size in itertools.product(OPS, DTYPES, sizes):
        rng = seeded(f"{op}{dtype}tail{size}")
        operands = some_values(rng, dtype, (1, 1, size, 1)), some_values(rng, dtype, (1, 1, size, 1))
        scales = (0.5, 0.25, 0.125) if op == "MUL" else (0.3, 0.1, 0.4)
        yield _case(op, dtype, f"size{size}", "block and tail", operands, scales, (3, 5, 1))
    for op, dtype in itertools.product(OPS, DTYPES):
        rng = seeded(f"{op}{dtype}rank5")
        operands = some_values(rng, dtype, (2, 1, 3, 2, 5)), some_values(rng, dtype, (2, 1, 3, 2, 5))
        yield _case(op, dtype, "rank5", "equal shapes of rank 5", operands, (0.3, 0.1, 0.4), (3, 5, 1))


def _broadcasts() -> Iterator[Case]:
    for op, dtype, (label, shapes) in itertools.product(OPS, DTYPES, BROADCASTS.items()):
        rng = seeded(f"{op}{dtype}{label}")
        operands = some_values(rng, dtype, shapes[0]), some_values(rng, dtype, shapes[1])
        kinds = {
            "ties": (0.25, 0.125, 0.5),
            "thirds": (0.1, 0.3, 0.2),
            "beyond_int16": (0.5, 0.25, 0.5 / 300),
        }
        for kind, scales in kinds.items():
            yield _case(
                op, dtype, f"broadcast_{label}_{kind}", "broadcast, blocks and tails",
                operands, _product_scales(op, scales), (3, 5, 1),
            )  # fmt: skip


def _plain() -> Iterator[Case]:
    """int32 and float32: plain arithmetic, int32 wrapping."""
    for op, (label, shapes) in itertools.product(OPS, PLAIN_SHAPES.items()):
        for dtype, activation in itertools.product(("int32", "float32"), ("NONE", "RELU6")):
            name = f"{op.lower()}_{dtype}_{label}_{activation.lower()}"
            rng = seeded(name)
            if dtype == "int32":
                left, right = (rng.integers(-(2**31), 2**31, shape).astype(np.int32) for shape in shapes)
            else:
                left, right = (rng.normal(0, 4, shape).astype(np.float32) for shape in shapes)
            yield single_layer(
                name, "unquantized", op, [Feed(np.asarray(left)), Feed(np.asarray(right))],
                [Result(shapes[0], dtype)], fused_activation_function=activation,
            )  # fmt: skip
