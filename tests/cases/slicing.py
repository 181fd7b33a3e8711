"""STRIDED_SLICE, SLICE, SPLIT, SPLIT_V, GATHER, PACK, UNPACK, REVERSE_V2."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.single_layer import Constant, Feed, Result, indices, ramp, single_layer

SCALE, ZERO = 0.25, -7


def cases() -> list[Case]:
    return [*strided_slices(), *slices(), *splits(), *gathers(), *packs(), *reverses()]


def _zero(dtype: str) -> int:
    return ZERO if dtype == "int8" else 121


def _quantized(values: Array) -> Feed:
    return Feed(values, SCALE, _zero(values.dtype.name))


def _result(shape: tuple[int, ...], dtype: str) -> Result:
    return Result(shape, dtype, SCALE, _zero(dtype))


def strided_slices() -> Iterator[Case]:
    """Each line: shape, begin, end, strides, masks, output shape, what it hits."""
    b, e, ellipsis, new, shrink = (
        "begin_mask",
        "end_mask",
        "ellipsis_mask",
        "new_axis_mask",
        "shrink_axis_mask",
    )
    table: list[
        tuple[tuple[int, ...], list[int], list[int], list[int], dict[str, int], tuple[int, ...], str]
    ] = [
        ((1, 6, 7, 3), [0, 1, 2, 0], [1, 5, 7, 3], [1, 1, 1, 1], {}, (1, 4, 5, 3), "plain"),
        (
            (1, 6, 7, 3),
            [0, 1, 0, 0],
            [1, 6, 7, 3],
            [1, 2, 3, 2],
            {},
            (1, 3, 3, 2),
            "strides that leave a rest",
        ),
        ((1, 6, 7, 3), [0, -1, -1, 0], [1, -7, -8, 3], [1, -1, -2, 1], {}, (1, 6, 4, 3), "negative strides"),
        (
            (1, 6, 7, 3),
            [0, -1, 0, 0],
            [1, -5, 7, 3],
            [1, -3, 1, 1],
            {},
            (1, 2, 7, 3),
            "negative stride and rest",
        ),
        ((1, 6, 7, 3), [0, -4, -3, 0], [1, -1, -1, 3], [1, 1, 1, 1], {}, (1, 3, 2, 3), "negative indices"),
        ((1, 6, 7, 3), [-9, -100, 3, 0], [9, 100, 99, 3], [1] * 4, {}, (1, 6, 4, 3), "indices clamped"),
        ((1, 6, 7, 3), [0, 99, 0, 0], [1, -99, 7, 3], [1, -2, 1, 1], {}, (1, 3, 7, 3), "clamped, backwards"),
        ((1, 6, 7, 3), [0, 3, 5, 1], [0, 2, 1, 0], [1] * 4, {b: 15, e: 15}, (1, 6, 7, 3), "all masked"),
        (
            (1, 6, 7, 3),
            [0, 3, 5, 1],
            [0, 2, 1, 0],
            [1, -1, -2, 1],
            {b: 15, e: 15},
            (1, 6, 4, 3),
            "masked backwards",
        ),
        ((1, 6, 7, 3), [0, 2, 1, 0], [1, 4, 5, 2], [1] * 4, {b: 2, e: 4}, (1, 4, 6, 2), "one bit each"),
        ((1, 6, 7, 3), [0, 2], [1, 4], [1, 1], {}, (1, 2, 7, 3), "fewer positions than dimensions"),
        ((2, 6, 7, 3), [1, 2, 0, 0], [2, 3, 7, 3], [1] * 4, {shrink: 3}, (7, 3), "two dimensions dropped"),
        (
            (2, 6, 7, 3),
            [-1, 0, -2, 0],
            [0, 6, 9, 3],
            [1] * 4,
            {shrink: 5},
            (6, 3),
            "dropped by negative index",
        ),
        ((2, 6, 7, 3), [1, 2, 3, 1], [0, 0, 0, 0], [1] * 4, {shrink: 15}, (), "one value left"),
        (
            (2, 6, 7, 3),
            [0, 0, 1],
            [0, 0, 3],
            [1, 1, 1],
            {ellipsis: 2, b: 1, e: 1},
            (2, 6, 7, 2),
            "ellipsis inside",
        ),
        ((2, 6, 7, 3), [0, 1], [0, 2], [1, 1], {ellipsis: 1}, (2, 6, 7, 1), "ellipsis first"),
        ((2, 6, 7, 3), [1, 0], [2, 0], [1, 1], {ellipsis: 2}, (1, 6, 7, 3), "ellipsis last"),
        ((2, 6, 7), [0, 0, 1, 0], [1, 9, 2, 0], [1] * 4, {ellipsis: 8}, (1, 6, 1), "ellipsis for nothing"),
        ((6, 7), [0, 1, 0], [0, 4, 7], [1, 1, 1], {new: 1}, (1, 3, 7), "new axis first"),
        ((6, 7), [1, 0, 0], [4, 0, 7], [1, 1, 2], {new: 2}, (3, 1, 4), "new axis inside"),
        ((6, 7), [1, 1, 0], [4, 7, 0], [1, 1, 1], {new: 4}, (3, 6, 1), "new axis last"),
        (
            (6, 7, 3),
            [0, 0, 1],
            [0, 0, 2],
            [1, 1, 1],
            {new: 1, ellipsis: 2},
            (1, 6, 7, 1),
            "new axis and ellipsis",
        ),
        (
            (6, 7, 3),
            [2, 0, 1],
            [3, 0, 2],
            [1, 1, 1],
            {shrink: 5, ellipsis: 2},
            (7,),
            "dropped around ellipsis",
        ),
        ((13,), [3], [11], [2], {}, (4,), "one dimension"),
        ((13,), [3], [3], [1], {"offset": 1, shrink: 0}, (3,), "end counts from begin"),
        (
            (1, 5, 3, 2, 4),
            [0, 1, 0, 0, 3],
            [1, 4, 3, 2, 0],
            [1, 2, 1, 1, -1],
            {},
            (1, 2, 3, 2, 3),
            "five dimensions",
        ),
    ]
    for dtype in ("int8", "uint8", "int32", "float32"):
        for shape, begin, end, strides, masks, out_shape, edge in table:
            data = ramp(shape, "int8").astype(dtype)
            offset = bool(masks.get("offset", 0))
            fed, result = Feed(data), Result(out_shape, dtype)
            if dtype in ("int8", "uint8"):
                fed, result = _quantized(ramp(shape, dtype)), _result(out_shape, dtype)
            yield single_layer(
                f"strided_slice-{dtype}",
                edge,
                "STRIDED_SLICE",
                [fed, indices(*begin), indices(*end), indices(*strides)],
                [result],
                version=1,  # the reference resolver ends at 5, masks are 6 and offset is 8
                **{m: masks.get(m, 0) for m in (b, e, ellipsis, new, shrink)},
                offset=offset,
            )


def slices() -> Iterator[Case]:
    table = [
        ((1, 5, 6, 3), (0, 1, 2, 0), (1, 3, 3, 3), "a box"),
        ((1, 5, 6, 3), (0, 1, 2, 1), (-1, -1, -1, -1), "the rest of each dimension"),
        ((1, 5, 6, 17), (0, 4, 5, 16), (1, 1, 1, 1), "the last value"),
        ((9,), (2,), (5,), "one dimension"),
        ((2, 3, 4, 3, 2), (1, 0, 1, 2, 0), (1, 2, 3, 1, 2), "five dimensions"),
    ]
    for dtype in ("int8", "uint8", "int32"):
        for kind in ("int32", "int64"):
            for shape, begin, size, edge in table:
                out = tuple(
                    n - start if count == -1 else count
                    for n, start, count in zip(shape, begin, size, strict=True)
                )
                data = ramp(shape, "uint8" if dtype == "uint8" else "int8").astype(dtype)
                quantized = dtype != "int32"
                yield single_layer(
                    f"slice-{dtype}-{kind}",
                    edge,
                    "SLICE",
                    [
                        _quantized(data) if quantized else Feed(data),
                        indices(*begin, dtype=kind),
                        indices(*size, dtype=kind),
                    ],
                    [_result(out, dtype) if quantized else Result(out, dtype)],
                )


def splits() -> Iterator[Case]:
    for dtype in ("int8", "uint8"):
        for axis, parts, edge in (
            (3, 3, "channels"),
            (-1, 2, "axis from the back"),
            (1, 4, "rows"),
            (0, 1, "one"),
        ):
            shape = (2, 4, 3, 6)
            out = list(shape)
            out[axis] //= parts
            yield single_layer(
                f"split-{dtype}",
                edge,
                "SPLIT",
                [_axis(axis), _quantized(ramp(shape, dtype))],
                [_result(tuple(out), dtype)] * parts,
                num_splits=parts,
            )
        for axis, sizes, edge in (
            (3, (1, 3, 2), "unequal channels"),
            (-2, (1, -1), "the rest"),
            (1, (1, 1, 1, 1), "rows one by one"),
        ):
            shape = (2, 4, 3, 6)
            known = [size if size != -1 else shape[axis] - sum(sizes) - 1 for size in sizes]
            outs = [tuple(size if i == axis % 4 else n for i, n in enumerate(shape)) for size in known]
            yield single_layer(
                f"split_v-{dtype}",
                edge,
                "SPLIT_V",
                [_quantized(ramp(shape, dtype)), indices(*sizes), _axis(axis)],
                [_result(out, dtype) for out in outs],
                num_splits=len(sizes),
            )


def _axis(axis: int) -> Constant:
    return Constant(np.array(axis, np.int32))


def gathers() -> Iterator[Case]:
    table = [
        ((5, 4), [3, 0, 3], 0, 0, (3, 4), "rows, one twice"),
        ((5, 4), [[3, 1], [0, 2]], -1, 0, (5, 2, 2), "a matrix of positions"),
        ((2, 5, 3), [[0, 4], [2, 1]], 1, 1, (2, 2, 3), "one batch dimension"),
        ((5, 4), 2, 0, 0, (4,), "one position"),
    ]
    for dtype in ("int8", "uint8", "int32"):
        for kind in ("int32", "int64"):
            for shape, positions, axis, batch, out, edge in table:
                data = ramp(shape, "uint8" if dtype == "uint8" else "int8").astype(dtype)
                quantized = dtype != "int32"
                yield single_layer(
                    f"gather-{dtype}-{kind}",
                    edge,
                    "GATHER",
                    [_quantized(data) if quantized else Feed(data), Feed(np.array(positions, kind))],
                    [_result(out, dtype) if quantized else Result(out, dtype)],
                    axis=axis,
                    batch_dims=batch,
                )


def packs() -> Iterator[Case]:
    for dtype in ("int8", "uint8", "int32"):
        for axis, edge in ((0, "first"), (1, "inside"), (-1, "last")):
            shape = (3, 4)
            stacked = list(shape)
            stacked.insert(axis % 3, 3)
            quantized = dtype != "int32"
            source = "uint8" if dtype == "uint8" else "int8"
            parts = [ramp(shape, source, start=start).astype(dtype) for start in (0, 50, 101)]
            yield single_layer(
                f"pack-{dtype}",
                edge,
                "PACK",
                [_quantized(part) if quantized else Feed(part) for part in parts],
                [_result(tuple(stacked), dtype) if quantized else Result(tuple(stacked), dtype)],
                values_count=3,
                axis=axis,
            )
            whole = ramp(tuple(stacked), source).astype(dtype)
            yield single_layer(
                f"unpack-{dtype}",
                edge,
                "UNPACK",
                [_quantized(whole) if quantized else Feed(whole)],
                [_result(shape, dtype) if quantized else Result(shape, dtype)] * 3,
                num=3,
                axis=axis,
            )


def reverses() -> Iterator[Case]:
    for dtype in ("uint8", "int32", "float32"):
        for axes, edge in (((1,), "rows"), ((-1,), "channels"), ((1, 2), "rows and columns")):
            data = ramp((2, 3, 4, 5), "uint8" if dtype == "uint8" else "int8").astype(dtype)
            quantized = dtype == "uint8"
            yield single_layer(
                f"reverse_v2-{dtype}",
                edge,
                "REVERSE_V2",
                [_quantized(data) if quantized else Feed(data), indices(*axes)],
                [_result(data.shape, dtype) if quantized else Result(data.shape, dtype)],
            )
