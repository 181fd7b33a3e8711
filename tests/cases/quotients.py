"""Cases of DIV, REDUCE_PROD, and PRELU and SUM of int16."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.quantized import every_pair, every_value, f32, seeded, some_values
from tests.cases.single_layer import Constant, Feed, Result, indices, single_layer

OLD = ("tflite-2.14-ref", "tflite-2.14-builtin")
NOT_IN_OLD = dict.fromkeys(OLD, "its kernel lacks the type")
OF_ONE_SCALE = dict.fromkeys(OLD, "it adds int16 values of one scale")
AS_BYTES = {"litert-ref": "it reads int16 values as bytes and leaves half of the output as it was"}

QUOTIENTS = {
    "powers": (0.5, 0.5, 0.5),
    "thirds": (0.05, 0.05, 0.03),
    "usual": (0.0471, 0.0093, 0.0213),
    "saturating": (4.0, 0.01, 0.01),
    "vanishing": (1e-5, 1.0, 0.5),
}
"""``(left, right, output)``. In float64 and float32, thirds make two multipliers. Where the quotient of
scales is small, the last shift of small numerators is by 32 places and more."""


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_quotients(), *_quotients_of_int16(), *_whole_quotients(), *_products(), *_prelus(), *_sums()]


def _div(name: str, edge: str, left: Feed, right: Feed | Constant, output: Result, activation: str) -> Case:
    old = dict(NOT_IN_OLD) if output.dtype in ("int8", "int16") else {}
    return single_layer(
        f"div_{name}", edge, "DIV", [left, right], [output], broken_in=old,
        fused_activation_function=activation,
    )  # fmt: skip


def _quotients() -> Iterator[Case]:
    """Every pair of values, shifts beyond 31 places among them."""
    for dtype, (label, scales) in itertools.product(("int8", "uint8"), QUOTIENTS.items()):
        middle = 128 if dtype == "uint8" else 0
        zeros = [zero + middle for zero in ((3, -5, 7) if label != "usual" else (-128, 127, -1))]
        left, right = every_pair(dtype)
        kept = right[0] != zeros[1]
        yield _div(
            f"{dtype}_{label}", "every pair", Feed(left[:, kept].copy(), f32(scales[0]), zeros[0]),
            Feed(right[:, kept].copy(), f32(scales[1]), zeros[1]),
            Result((256, 255), dtype, f32(scales[2]), zeros[2]), "NONE",
        )  # fmt: skip
        yield _div(
            f"{dtype}_{label}_relu6", "a constant divisor", Feed(every_value(dtype), 4.0, middle),
            Constant(np.array([middle + 3], dtype), 1.0, middle), Result((256,), dtype, 4.0, middle), "RELU6",
        )  # fmt: skip


def _quotients_of_int16() -> Iterator[Case]:
    """Small and large values; where small ones meet large ones the runtimes' quotients are wrong."""
    for (label, scales), shape in itertools.product(QUOTIENTS.items(), ((60, 50), (1, 50))):
        rng = seeded(f"{label}{shape}")
        left, right = some_values(rng, "int16", (60, 50)), some_values(rng, "int16", shape)
        left[::2] //= 256
        right[:, ::3] //= 256
        right[right == 0] = 1
        yield _div(
            f"int16_{label}_{shape[0]}", "small and large values", Feed(left, f32(scales[0])),
            Feed(right, f32(scales[1])), Result((60, 50), "int16", f32(scales[2])), "NONE",
        )  # fmt: skip


def _whole_quotients() -> Iterator[Case]:
    """int32, cut off toward zero."""
    rng = seeded("whole quotients")
    left = rng.integers(-(2**31), 2**31, (3, 100)) // np.array([[1], [2**24], [2**29]])
    right = rng.integers(-(2**31), 2**31, 100) // 2 ** rng.integers(0, 31, 100)
    left[0, 0], right[right == 0] = -(2**31), 7
    right[0] = -2
    for activation in ("NONE", "RELU6"):
        yield _div(
            f"int32_{activation.lower()}", "both signs, broadcast", Feed(left.astype(np.int32)),
            Feed(right.astype(np.int32)), Result((3, 100), "int32"), activation,
        )  # fmt: skip


def _reduced(
    op: str, name: str, edge: str, values: Array, axes: Sequence[int], scales: tuple[float, ...],
    zeros: tuple[int, int] = (0, 0), broken_in: dict[str, str] | None = None,
) -> Case:  # fmt: skip
    shape = tuple(size for axis, size in enumerate(values.shape) if axis not in axes)
    if not scales:
        feed, result = Feed(values), Result(shape, values.dtype.name)
    else:
        feed = Feed(values, f32(scales[0]), zeros[0])
        result = Result(shape, values.dtype.name, f32(scales[1]), zeros[1])
    return single_layer(
        f"{op.lower()}_{values.dtype}_{name}", edge, op, [feed, indices(*axes)], [result],
        broken_in=broken_in or {}, keep_dims=False,
    )  # fmt: skip


RATIOS = {"same": (0.5, 0.5), "half": (0.25, 0.5), "usual": (0.0471, 0.61), "crushed": (0.1, 0.002)}


def _products() -> Iterator[Case]:
    """Two to fifty factors, rounded after each; one factor, which optimised kernels copy."""
    over = {"two": (1,), "both": (1, 3), "last": (3,), "all": (0, 1, 2, 3), "one": (2,)}
    for dtype, (label, axes), (kind, scales) in itertools.product(
        ("int8", "int16"), over.items(), RATIOS.items()
    ):
        values = some_values(seeded(f"product{dtype}{label}{kind}"), dtype, (9, 2, 1, 3))
        if label == "all":
            values = values[:1]
        old = {"tflite-2.14-builtin": "it reads before a list's start"} if label == "one" else {}
        zeros = (3, -5) if dtype == "int8" else (0, 0)
        yield _reduced(
            "REDUCE_PROD", f"{label}_{kind}", "each product rounded", values, axes, scales, zeros, old
        )
    for dtype in ("int32", "int64"):
        values = seeded(dtype).integers(-(2**31), 2**31, (3, 4, 5)).astype(dtype)
        yield _reduced("REDUCE_PROD", "wraps", "beyond the type", values, (1,), ())
        yield _reduced(
            "SUM", "wraps", "beyond the type", values * (2**31 if dtype == "int64" else 1), (1, 2), ()
        )


def _prelus() -> Iterator[Case]:
    """int16 values with int8 slopes; with int16 ones LiteRT reads their bytes."""
    values = every_value("int16")[:, None]
    scales = {"ties": (0.25, 0.125, 0.5), "usual": (2.35e-4, 4.7e-3, 5.1e-4), "grown": (1.0, 1.0, 0.001)}
    for (kind, (left, slope, output)), alpha in itertools.product(scales.items(), (-128, 123, -7)):
        yield single_layer(
            f"prelu_int16_{kind}_{alpha}", "every value", "PRELU",
            [Feed(values, f32(left)), Constant(np.array([alpha], np.int8), f32(slope), 5)],
            [Result(values.shape, "int16", f32(output))], broken_in=NOT_IN_OLD,
        )  # fmt: skip
    for dtype, shape, given in itertools.product(
        ("int8", "int16"), ((17,), (3, 1), (4, 3, 17)), (Constant, Feed)
    ):
        rng = seeded(f"{dtype}{shape}")
        slopes = given(some_values(rng, dtype, shape), f32(0.0071), 0)
        yield single_layer(
            f"prelu_int16_{dtype}_{len(shape)}_{given.__name__.lower()}", "broadcast", "PRELU",
            [Feed(some_values(rng, "int16", (4, 3, 17)), f32(2.35e-4)), slopes],
            [Result((4, 3, 17), "int16", f32(5.1e-4))], broken_in=NOT_IN_OLD,
        )  # fmt: skip


def _sums() -> Iterator[Case]:
    """int16: beyond 24 bits, where float32 rounds the sum; ties; saturation, and wrapping in 2.14."""
    over = {"image": (1, 2), "channels": (3,), "all": (0, 1, 2, 3), "one": (0,)}
    ratios = {**RATIOS, "crushed": (0.1, 0.02)}
    for (label, axes), (kind, scales), large in itertools.product(
        over.items(), ratios.items(), (True, False)
    ):
        values = some_values(seeded(f"sum16{label}{kind}"), "int16", (1, 31, 37, 3))
        broken = {**AS_BYTES, **(OF_ONE_SCALE if scales[0] != scales[1] else {})}
        yield _reduced(
            "SUM", f"{label}_{kind}_{'large' if large else 'small'}", "ties, large sums",
            np.abs(values // 2) if large else values // 256, axes, scales, broken_in=broken,
        )  # fmt: skip
