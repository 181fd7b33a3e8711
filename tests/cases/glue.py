"""Integer, boolean and float glue: extremes, comparisons, casts, reductions, IEEE float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.single_layer import Constant, Feed, Result, indices, noise, ramp, single_layer

QUANTIZED = ("int8", "uint8")

FLOATS = np.array(
    [
        0.0,
        -0.0,
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.5,
        0.49999997,
        8388607.5,
        3.25,
        -7.75,
        1e38,
        127.7,
        -128.9,
        255.5,
    ],
    np.float32,
)
"""Ties, signed zeros, the edges of integers. No NaN, on which minimum and maximum disagree, and no
subnormal number, which XNNPACK takes for 0."""

BEYOND = np.array(
    [
        200,
        -200,
        300,
        1e9,
        2147483520.0,
        2147483648.0,
        -2147483648.0,
        3e9,
        -3e9,
        1e19,
        -1e19,
        np.inf,
        -np.inf,
        np.nan,
    ],
    np.float32,
)
"""Values that do not fit the integers they are cast to."""


def cases() -> list[Case]:
    return [
        *extremes(), *arg_extremes(), *comparisons(), *logic(), *casts(), *float_functions(), *divisions(),
        *reductions(), *batches(),
    ]  # fmt: skip


def _fed(values: Array, scale: float = 0.1, zero_point: int = 3) -> Feed:
    return Feed(values, scale, zero_point) if values.dtype.name in QUANTIZED else Feed(values)


def _result(shape: tuple[int, ...], dtype: str) -> Result:
    return Result(shape, dtype, 0.1, 3) if dtype in QUANTIZED else Result(shape, dtype)


def _random(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    if dtype == "float32":
        return np.random.default_rng(seed).choice(FLOATS, shape)
    return noise(shape, "uint8" if dtype == "uint8" else "int8", seed).astype(dtype)


PAIRS = (
    ((2, 3, 4, 5), (2, 3, 4, 5), "equal shapes"),
    ((2, 3, 4, 5), (5,), "a vector"),
    ((2, 3, 4, 5), (), "a scalar"),
    ((2, 1, 4, 1), (2, 3, 1, 5), "both broadcast"),
    ((33,), (33,), "one dimension"),
)


def extremes() -> Iterator[Case]:
    for op in ("MINIMUM", "MAXIMUM"):
        for dtype in (*QUANTIZED, "int32", "float32"):
            for left, right, edge in PAIRS:
                shape = tuple(np.broadcast_shapes(left, right))
                inputs = [_fed(_random(left, dtype, 1)), _fed(_random(right, dtype, 2))]
                yield single_layer(f"{op.lower()}-{dtype}", edge, op, inputs, [_result(shape, dtype)])


def arg_extremes() -> Iterator[Case]:
    for op in ("ARG_MAX", "ARG_MIN"):
        for dtype in (*QUANTIZED, "int32", "float32"):
            for shape, axis in (
                ((2, 5, 4, 3), 3),
                ((2, 5, 4, 33), -1),
                ((2, 5, 4, 3), 1),
                ((7, 64), 1),
                ((300,), 0),
            ):
                for kind in ("int32", "int64"):
                    # Few distinct values: ties everywhere, the first position counts.
                    data = _random(shape, dtype, 5)
                    data = data // 32 * 32 if dtype != "float32" else np.round(data)
                    out = tuple(size for i, size in enumerate(shape) if i != axis % len(shape))
                    yield single_layer(
                        f"{op.lower()}-{dtype}-{kind}",
                        f"shape {shape} axis {axis}",
                        op,
                        [_fed(data.astype(dtype)), Constant(np.array(axis, np.int32))],
                        [Result(out, kind)],
                        output_type=kind,
                    )


def comparisons() -> Iterator[Case]:
    for op in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"):
        for dtype in ("int32", "float32"):
            for left, right, edge in PAIRS:
                shape = tuple(np.broadcast_shapes(left, right))
                inputs = [_fed(_random(left, dtype, 1)), _fed(_random(right, dtype, 2))]
                yield single_layer(f"{op.lower()}-{dtype}", edge, op, inputs, [Result(shape, "bool")])
        for dtype in QUANTIZED:
            for scales in ((0.1, 0.1), (0.1, 0.05), (0.5, 0.25), (0.0031, 0.9), (1.16, 0.5), (1.5, 900.0)):
                # Every value against every eighth one.
                left, right = ramp((256, 1), dtype, step=1), ramp((1, 32), dtype, step=8)
                yield single_layer(
                    f"{op.lower()}-{dtype}",
                    f"scales {scales}",
                    op,
                    [Feed(left, scales[0], 11), Feed(right, scales[1], 100)],
                    [Result((256, 32), "bool")],
                )


def logic() -> Iterator[Case]:
    truth = np.array([[True, False, True, False]])
    other = np.array([[True], [False]])
    for op in ("LOGICAL_AND", "LOGICAL_OR"):
        yield single_layer(
            op.lower(), "truth table", op, [Feed(truth), Feed(other)], [Result((2, 4), "bool")]
        )
    yield single_layer("logical_not", "truth table", "LOGICAL_NOT", [Feed(truth)], [Result((1, 4), "bool")])
    for dtype in (*QUANTIZED, "int32", "float32"):
        left, right = _random((4, 5), dtype, 1), _random((4, 5), dtype, 2)
        for shape, edge in (((4, 5), "value by value"), ((4,), "row by row")):
            condition = np.random.default_rng(3).integers(0, 2, shape).astype(bool)
            inputs = [Feed(condition), _fed(left), _fed(right)]
            yield single_layer(f"select-{dtype}", edge, "SELECT", inputs, [_result((4, 5), dtype)])
        condition = np.random.default_rng(3).integers(0, 2, (4, 1)).astype(bool)
        inputs = [Feed(condition), _fed(left), _fed(right[:1])]
        yield single_layer(f"select_v2-{dtype}", "broadcast", "SELECT_V2", inputs, [_result((4, 5), dtype)])


def casts() -> Iterator[Case]:
    sources = {
        "float32": FLOATS,
        "int32": np.array(
            [0, 1, -1, 127, 128, 255, 256, -129, 65536, 2**31 - 1, -(2**31), 16777217], np.int32
        ),
        "int64": np.array([0, 1, -1, 2**31, 2**40 + 3, -(2**63), 2**63 - 1, 16777217], np.int64),
        "int8": ramp((256,), "int8", step=1),
        "uint8": ramp((256,), "uint8", step=1),
        "bool": np.array([True, False]),
    }
    for source, values in sources.items():
        for target in ("float32", "int32", "int64", "int8", "uint8", "bool"):
            if source != target:
                yield _cast(values, target, "values at the edges")
    for target in ("int32", "int64", "int8", "uint8"):
        yield _cast(BEYOND, target, "values that do not fit")


def _cast(values: Array, target: str, edge: str) -> Case:
    return single_layer(
        f"cast-{values.dtype.name}-{target}",
        edge,
        "CAST",
        [Feed(values)],
        [Result(values.shape, target)],
        in_data_type=values.dtype.name,
        out_data_type=target,
    )


def float_functions() -> Iterator[Case]:
    spread = np.random.default_rng(7).standard_normal(200).astype(np.float32) * np.float32(100.0)
    missing = {"litert-ref": "its op resolver does not list the op"}
    for op in ("ABS", "CEIL", "FLOOR", "NEG", "ROUND", "SQUARE"):
        for values, edge in ((FLOATS, "edges"), (spread, "spread")):
            yield single_layer(
                op.lower(),
                edge,
                op,
                [Feed(values)],
                [Result(values.shape, "float32")],
                broken_in=missing if op in ("CEIL", "ROUND") else None,
            )
    for values, edge in ((FLOATS, "edges"), (spread, "spread")):
        # XNNPACK's square root is an approximation: its profile has no rule for SQRT.
        yield single_layer(
            "sqrt",
            edge,
            "SQRT",
            [Feed(np.abs(values))],
            [Result(values.shape, "float32")],
            broken_in={"litert-xnnpack": "its square root is not correctly rounded"},
        )


def divisions() -> Iterator[Case]:
    numbers = np.random.default_rng(8).standard_normal((2, 3, 4, 5)).astype(np.float32)
    for activation in ("NONE", "RELU", "RELU6", "RELU_N1_TO_1"):
        for divisor, edge in ((numbers[::-1].copy(), "equal shapes"), (numbers[0, 0, 0], "a vector")):
            yield single_layer(
                "div-float32",
                f"{edge}, {activation}",
                "DIV",
                [Feed(numbers), Feed(divisor)],
                [Result(numbers.shape, "float32")],
                version=1,  # the reference resolver ends at 1, broadcasting is 2
                fused_activation_function=activation,
            )
    left = np.array([7, -7, 8, -8, 0, 2**31 - 1, -(2**31), 13], np.int32)
    right = np.array([2, 2, -3, -3, 5, -1, 7, -13], np.int32)
    for op in ("FLOOR_DIV", "FLOOR_MOD"):
        yield single_layer(
            f"{op.lower()}-int32", "every sign", op, [Feed(left), Feed(right)], [Result((8,), "int32")]
        )
        yield single_layer(
            f"{op.lower()}-int32", "constant divisor", op, [Feed(left), indices(-3)], [Result((8,), "int32")]
        )


def reductions() -> Iterator[Case]:
    for op, dtypes in (
        ("REDUCE_MAX", (*QUANTIZED, "int32", "float32")),
        ("REDUCE_MIN", (*QUANTIZED, "int32", "float32")),
        ("REDUCE_ANY", ("bool",)),
        ("REDUCE_ALL", ("bool",)),
        ("SUM", ("int32",)),
    ):
        for dtype in dtypes:
            for axes in ((1, 2), (3,), (0, -1), (0, 1, 2, 3)):
                for keep_dims in (False, True):
                    shape = (2, 3, 4, 17)
                    reduced = {axis % 4 for axis in axes}
                    if keep_dims:
                        out = tuple(1 if i in reduced else n for i, n in enumerate(shape))
                    else:
                        out = tuple(n for i, n in enumerate(shape) if i not in reduced)
                    data = _random(shape, "int8" if dtype == "bool" else dtype, 4)
                    data = data > 100 if dtype == "bool" else data + data.dtype.type(0)  # -0.0 becomes 0.0
                    yield single_layer(
                        f"{op.lower()}-{dtype}-{'keep' if keep_dims else 'drop'}",
                        f"over {axes}",
                        op,
                        [_fed(data), indices(*axes)],
                        [_result(out, dtype)],
                        keep_dims=keep_dims,
                    )


def batches() -> Iterator[Case]:
    for dtype in (*QUANTIZED, "int32", "float32"):
        for size, block, border in (
            ((4, 6), (2, 3), ((0, 0), (0, 0))),
            ((5, 7), (2, 2), ((1, 0), (0, 1))),
            ((5, 5), (3, 3), ((2, 2), (1, 3))),
            ((4, 4), (1, 1), ((0, 0), (0, 0))),
        ):
            small = tuple((n + a + b) // k for n, k, (a, b) in zip(size, block, border, strict=True))
            spread = (2 * block[0] * block[1], *small, 3)
            tensors = [indices(*block), Constant(np.array(border, np.int32))]
            edge = f"{size}, block {block}, border {border}"
            yield single_layer(
                f"space_to_batch_nd-{dtype}",
                edge,
                "SPACE_TO_BATCH_ND",
                [_fed(_random((2, *size, 3), dtype, 1)), *tensors],
                [_result(spread, dtype)],
            )
            yield single_layer(
                f"batch_to_space_nd-{dtype}",
                edge,
                "BATCH_TO_SPACE_ND",
                [_fed(_random(spread, dtype, 2)), *tensors],
                [_result((2, *size, 3), dtype)],
            )
