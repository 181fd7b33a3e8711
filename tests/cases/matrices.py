"""Cases of BATCH_MATMUL, and of FULLY_CONNECTED with a filter that is computed or has a zero point."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tests.cases.case import Case
from tests.cases.quantized import f32, seeded, some_values
from tests.cases.single_layer import Constant, Feed, Result, single_layer

SHAPES = {
    "matrices": ((3, 4), (4, 5)),
    "batches": ((2, 3, 17), (2, 17, 9)),
    "one right": ((2, 3, 4), (4, 5)),
    "broadcast": ((2, 1, 3, 4), (1, 3, 4, 5)),
    "vectors": ((1, 1, 33), (1, 33, 1)),
}

SCALES = {"ties": (0.5, 0.5, 32.0), "usual": (0.0471, 0.0294, 2.61), "fine": (0.5, 0.25, 0.0625)}
"""``(x, y, output)``; powers of two put sums on ties."""


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_products(), *_long_sums(), *_filters()]


def _products() -> Iterator[Case]:
    """Each operand transposed or not; zero points of which XNNPACK takes only a 0 of the second."""
    for (label, shapes), (kind, scales), (adj_x, adj_y) in itertools.product(
        SHAPES.items(), SCALES.items(), ((False, False), (False, True), (True, False), (True, True))
    ):
        for zero_y, constant in ((0, False), (-7, False), (0, True), (127, True)):
            name = f"batch_matmul_{label}_{kind}_{adj_x:d}{adj_y:d}_{zero_y}_{constant:d}"
            rng = seeded(name)
            zeros = rng.integers(-128, 128, 2).tolist()
            left, right = (
                np.swapaxes(values, -1, -2).copy() if turned else values
                for values, turned in zip(
                    (some_values(rng, "int8", shape) for shape in shapes), (adj_x, adj_y), strict=True
                )
            )
            batch = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
            given = (Constant if constant else Feed)(right, f32(scales[1]), zero_y)
            yield single_layer(
                name, "sums on ties, saturated, odd sizes", "BATCH_MATMUL",
                [Feed(left, f32(scales[0]), zeros[0]), given],
                [Result((*batch, shapes[0][-2], shapes[1][-1]), "int8", f32(scales[2]), zeros[1])],
                adj_x=adj_x, adj_y=adj_y,
            )  # fmt: skip


def _long_sums() -> Iterator[Case]:
    """Sums beside ties, long enough to show in which type the multiplier is computed."""
    rng = seeded("long sums")
    for number in range(40):
        scales = [np.float32(2 ** rng.uniform(-7, -1)) for _ in range(2)]
        left, right = (rng.integers(100, 128, 3000).astype(np.int8) for _ in range(2))
        steps = int(rng.integers(60, 127)) + 0.5
        total = float(left.astype(np.int64) @ right.astype(np.int64))
        out_scale = f32(float(scales[0]) * float(scales[1]) * total / steps)
        yield single_layer(
            f"batch_matmul_long_{number}", "a sum of 3000 beside a tie", "BATCH_MATMUL",
            [Feed(left.reshape(1, -1), float(scales[0])), Feed(right.reshape(-1, 1), float(scales[1]))],
            [Result((1, 1), "int8", out_scale)], adj_x=False, adj_y=False,
        )  # fmt: skip


def _filters() -> Iterator[Case]:
    """Filters that are fed, and stored ones with zero points (CMSIS-NN's vectors have them)."""
    for dtype, (kind, scales), constant, bias in itertools.product(
        ("int8", "uint8"), SCALES.items(), (True, False), (True, False)
    ):
        middle = 0 if dtype == "int8" else 128
        for zero in (0, -1, 100):
            name = f"fully_connected_{dtype}_{kind}_{'stored' if constant else 'fed'}_{bias:d}_{zero}"
            rng = seeded(name)
            given = (Constant if constant else Feed)(
                some_values(rng, dtype, (9, 17)), f32(scales[1]), middle + zero
            )
            inputs = [Feed(some_values(rng, dtype, (5, 17)), f32(scales[0]), middle + 3), given]
            if bias:
                scale = float(np.float32(scales[0]) * np.float32(scales[1]))
                inputs.append(Constant(rng.integers(-3000, 3000, 9).astype(np.int32), scale))
            yield single_layer(
                name, "zero point of the filter", "FULLY_CONNECTED",
                inputs, [Result((5, 9), dtype, f32(scales[2]), middle - 5)],
                weights_format="DEFAULT", keep_num_dims=False,
            )  # fmt: skip
