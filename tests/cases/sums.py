"""Cases of SUM, SQUARED_DIFFERENCE, LOG_SOFTMAX, TOPK_V2 and GATHER_ND."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tests.cases.case import Case
from tests.cases.quantized import ZERO_POINTS, every_pair, f32, seeded, some_values
from tests.cases.single_layer import Constant, Feed, Result, indices, noise, single_layer

DTYPES = ("int8", "uint8")


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_sums(), *_sums_beside_ties(), *_squared_differences(), *_log_softmaxes(), *_choices()]


def _sum(
    name: str, edge: str, feed: Feed, axes: tuple[int, ...], output: tuple[float, int], keep: bool
) -> Case:
    shape = feed.values.shape
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes)
    return single_layer(
        name, edge, "SUM", [feed, indices(*axes)],
        [Result(kept, feed.values.dtype.name, f32(output[0]), output[1])], keep_dims=keep,
    )  # fmt: skip


def _sums() -> Iterator[Case]:
    """Any axes; equal scales, ties, saturation in both directions."""
    axes = {"y": (1,), "image": (1, 2), "channels": (3,), "all": (0, 1, 2, 3), "last two": (2, 3)}
    scales = {"same": (0.5, 0.5), "tie": (0.25, 0.5), "usual": (0.0471, 0.61), "crushed": (0.1, 0.02)}
    for dtype, (label, over), (kind, scale), turn in itertools.product(
        DTYPES, axes.items(), scales.items(), range(3)
    ):
        name = f"sum_{dtype}_{label}_{kind}_{turn}"
        values = some_values(seeded(name), dtype, (2, 5, 7, 3))
        zero_in, zero_out = ZERO_POINTS[dtype][turn], ZERO_POINTS[dtype][(turn + 3) % 5]
        feed = Feed(values, f32(scale[0]), zero_in)
        yield _sum(name, "any axes, saturation", feed, over, (scale[1], zero_out), bool(turn % 2))


def _sums_beside_ties() -> Iterator[Case]:
    """Sums of 9 steered beside ties: the order of float32 operations, and fused ones, show."""
    rng = seeded("sums beside ties")
    for number in range(60):
        size, steps = int(rng.integers(1, 700)), int(rng.integers(0, 60)) + 0.5
        zero = int(rng.integers(-60, 60))
        scale = np.float32(2 ** rng.uniform(-6, -1))
        total = 9 * zero + size * int(rng.choice((-1, 1)))
        row = np.full(9, total // 9)
        row[: total - 9 * (total // 9)] += 1
        values = np.clip(np.stack([row, row[::-1], row + 1, row - 1]), -128, 127).astype(np.int8)
        feed = Feed(values, float(scale), zero)
        output = (float(scale) * size / steps, int(rng.integers(-40, 40)))
        yield _sum(f"sum_int8_beside_{number}", "beside a tie", feed, (1,), output, True)


def _squared_differences() -> Iterator[Case]:
    scales = {
        "ties": (0.5, 0.5, 0.5), "mixed": (0.5, 0.25, 1.0), "usual": (0.0471, 0.0094, 0.11),
        "crushed": (1.0, 1.0, 8.0), "far apart": (0.25, 0.001, 0.125),
    }  # fmt: skip
    for (kind, scale), turn in itertools.product(scales.items(), range(3)):
        zeros = [ZERO_POINTS["int8"][(turn + step) % 5] for step in range(3)]
        left, right = every_pair("int8")
        yield single_layer(
            f"squared_difference_{kind}_{turn}", "every pair", "SQUARED_DIFFERENCE",
            [Feed(left, f32(scale[0]), zeros[0]), Feed(right, f32(scale[1]), zeros[1])],
            [Result((256, 256), "int8", f32(scale[2]), zeros[2])],
        )  # fmt: skip
    for shapes in (
        ((2, 3, 5), (2, 3, 1)),
        ((2, 3, 5), (5,)),
        ((1,), (4, 4)),
        ((1, 2, 3, 2, 3), (1, 2, 3, 2, 3)),
    ):
        rng = seeded(str(shapes))
        yield single_layer(
            f"squared_difference_{shapes}", "broadcast", "SQUARED_DIFFERENCE",
            [Feed(some_values(rng, "int8", shape), 0.1, 3) for shape in shapes],
            [Result(np.broadcast_shapes(*shapes), "int8", 0.5, -100)],
        )  # fmt: skip


def _log_softmaxes() -> Iterator[Case]:
    for dtype, depth, scale in itertools.product(DTYPES, (1, 2, 3, 17, 100), (0.004, 0.0791, 0.25, 1.0)):
        low = -128 if dtype == "int8" else 0
        yield single_layer(
            f"log_softmax_{dtype}_{depth}", f"scale {scale}", "LOG_SOFTMAX",
            [Feed(noise((12, depth), dtype, depth), f32(scale), low + 40)],
            [Result((12, depth), dtype, 16 / 256, low + 255)],
        )  # fmt: skip
    for shape in ((9,), (2, 3, 7), (2, 2, 3, 5)):
        yield single_layer(
            f"log_softmax_{len(shape)}", "dimensions", "LOG_SOFTMAX",
            [Feed(noise(shape, "int8", 3), 0.1, 0)], [Result(shape, "int8", 16 / 256, 127)],
        )  # fmt: skip


def _choices() -> Iterator[Case]:
    """TOPK_V2 with equal values in a row, GATHER_ND with positions of every depth, stored and fed."""
    for dtype, k in itertools.product(DTYPES, (1, 4, 9)):
        values = noise((2, 3, 9), dtype, k) // 16 * 16
        values[0, 0] = 5
        yield single_layer(
            f"topk_{dtype}_{k}", "equal values", "TOPK_V2",
            [Feed(values, 0.1, 3), Constant(np.array(k, np.int32))],
            [Result((2, 3, k), dtype, 0.1, 3), Result((2, 3, k), "int32")],
        )  # fmt: skip
    for dtype, depth, given in itertools.product((*DTYPES, "int32"), (1, 2, 3), (Constant, Feed)):
        rng = seeded(f"gather_nd_{dtype}_{depth}")
        data = noise((3, 4, 5), "int8", depth).astype(dtype)
        positions = rng.integers(0, (3, 4, 5)[:depth], (2, 2, depth)).astype(np.int32)
        quantized = (0.1, 3) if dtype in DTYPES else ()
        yield single_layer(
            f"gather_nd_{dtype}_{depth}_{given.__name__}", "slices", "GATHER_ND",
            [Feed(data, *quantized), given(positions)],
            [Result((2, 2, *(3, 4, 5)[depth:]), dtype, *quantized)],
        )  # fmt: skip
