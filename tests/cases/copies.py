"""Ops that move or repeat values: shapes, orders, borders, blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.single_layer import Constant, Feed, Result, indices, noise, ramp, single_layer

SCALE = 0.125
QUANTIZED = ("int8", "uint8")
CHANNELS = (1, 3, 8, 15, 16, 17, 33)


def cases() -> list[Case]:
    return [*shapes(), *transposes(), *pads(), *mirrored(), *blocks(), *repeats(), *nearest()]


def _zero(dtype: str) -> int:
    return -77 if dtype == "int8" else 3


def _fed(values: Array) -> Feed:
    if values.dtype.name in QUANTIZED:
        return Feed(values, SCALE, _zero(values.dtype.name))
    return Feed(values)


def _result(shape: tuple[int, ...], dtype: str) -> Result:
    return Result(shape, dtype, SCALE, _zero(dtype)) if dtype in QUANTIZED else Result(shape, dtype)


def _values(shape: tuple[int, ...], dtype: str) -> Array:
    return ramp(shape, "uint8" if dtype == "uint8" else "int8").astype(dtype)


def shapes() -> Iterator[Case]:
    for dtype in (*QUANTIZED, "int32", "float32"):
        data = _fed(_values((2, 3, 4), dtype))
        for wanted, out, edge in (
            ((6, 4), (6, 4), "flattened"),
            ((2, -1), (2, 12), "one size left open"),
            ((1, 2, 3, 4, 1), (1, 2, 3, 4, 1), "five dimensions"),
        ):
            yield single_layer(
                f"reshape-{dtype}", edge, "RESHAPE", [data, indices(*wanted)], [_result(out, dtype)]
            )
        yield single_layer(
            f"reshape-{dtype}", "by attribute", "RESHAPE", [data], [_result((4, 6), dtype)], new_shape=(4, -1)
        )
        thin = _fed(_values((1, 3, 1, 5), dtype))
        for dims, out, edge in (
            ((), (3, 5), "every 1"),
            ((0,), (3, 1, 5), "one"),
            ((-2, 0), (3, 5), "from the back"),
        ):
            yield single_layer(
                f"squeeze-{dtype}", edge, "SQUEEZE", [thin], [_result(out, dtype)], squeeze_dims=dims
            )
        for axis, out in ((0, (1, 2, 3, 4)), (2, (2, 3, 1, 4)), (-1, (2, 3, 4, 1)), (-4, (1, 2, 3, 4))):
            yield single_layer(
                f"expand_dims-{dtype}",
                f"axis {axis}",
                "EXPAND_DIMS",
                [data, Constant(np.array(axis, np.int32))],
                [_result(out, dtype)],
            )
        for out_type in ("int32", "int64"):
            yield single_layer(
                f"shape-{dtype}", out_type, "SHAPE", [data], [Result((3,), out_type)], out_type=out_type
            )
        yield single_layer(f"rank-{dtype}", "three", "RANK", [data], [Result((), "int32")])


def transposes() -> Iterator[Case]:
    orders = ((0, 3, 1, 2), (0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3), (0, 1, 3, 2), (0, 1, 2, 3))
    for dtype in (*QUANTIZED, "int32", "float32"):
        for order in orders:
            shape = (2, 5, 3, 7)
            out = tuple(shape[axis] for axis in order)
            yield single_layer(
                f"transpose-{dtype}",
                f"order {order}",
                "TRANSPOSE",
                [_fed(_values(shape, dtype)), indices(*order)],
                [_result(out, dtype)],
            )
        for shape, order in (((33, 17), (1, 0)), ((2, 3, 4, 5, 6), (4, 2, 0, 3, 1)), ((9,), (0,))):
            out = tuple(shape[axis] for axis in order)
            yield single_layer(
                f"transpose-{dtype}",
                f"{len(shape)} dimensions",
                "TRANSPOSE",
                [_fed(_values(shape, dtype)), indices(*order)],
                [_result(out, dtype)],
            )


def pads() -> Iterator[Case]:
    borders = (
        ((0, 0), (1, 1), (1, 1), (0, 0)),
        ((0, 0), (0, 3), (2, 0), (0, 0)),
        ((1, 0), (2, 1), (0, 1), (3, 2)),
        ((0, 0), (0, 0), (0, 0), (0, 0)),
    )
    for dtype in (*QUANTIZED, "int32", "float32"):
        for kind in ("int32", "int64"):
            for border in borders:
                data = _values((1, 3, 2, 5), dtype)
                out = tuple(n + a + b for n, (a, b) in zip(data.shape, border, strict=True))
                paddings = Constant(np.array(border, kind))
                yield single_layer(
                    f"pad-{dtype}-{kind}",
                    f"border {border}",
                    "PAD",
                    [_fed(data), paddings],
                    [_result(out, dtype)],
                )
                value = np.array([91], dtype)
                quantized = dtype in QUANTIZED
                yield single_layer(
                    f"padv2-{dtype}-{kind}",
                    f"border {border}",
                    "PADV2",
                    [
                        _fed(data),
                        paddings,
                        Constant(value, SCALE, _zero(dtype)) if quantized else Constant(value),
                    ],
                    [_result(out, dtype)],
                )
    for channels in CHANNELS:
        data = noise((1, 4, 3, channels), "int8", channels)
        yield single_layer(
            "pad-int8",
            f"image of {channels} channels",
            "PAD",
            [_fed(data), Constant(np.array(((0, 0), (1, 2), (3, 0), (0, 0)), np.int32))],
            [_result((1, 7, 6, channels), "int8")],
        )


def mirrored() -> Iterator[Case]:
    for dtype in (*QUANTIZED, "float32"):
        for mode, border, edge in (
            ("REFLECT", ((0, 0), (2, 1), (0, 1), (0, 0)), "uneven"),
            ("REFLECT", ((0, 0), (3, 3), (1, 1), (0, 0)), "as far as it goes"),
            ("SYMMETRIC", ((0, 0), (4, 4), (2, 2), (0, 0)), "as far as it goes"),
            ("SYMMETRIC", ((1, 0), (0, 1), (2, 0), (3, 1)), "all axes"),
        ):
            data = _values((1, 4, 2, 5), dtype)
            out = tuple(n + a + b for n, (a, b) in zip(data.shape, border, strict=True))
            yield single_layer(
                f"mirror_pad-{dtype}-{mode.lower()}",
                edge,
                "MIRROR_PAD",
                [_fed(data), Constant(np.array(border, np.int32))],
                [_result(out, dtype)],
                mode=mode,
            )


def blocks() -> Iterator[Case]:
    for dtype in (*QUANTIZED, "float32"):
        for block, channels in ((1, 3), (2, 1), (2, 3), (3, 2), (2, 17)):
            deep, wide = (2, 2, 3, channels * block * block), (2, 2 * block, 3 * block, channels)
            edge = f"block {block}, {channels} channels"
            yield single_layer(
                f"depth_to_space-{dtype}",
                edge,
                "DEPTH_TO_SPACE",
                [_fed(_values(deep, dtype))],
                [_result(wide, dtype)],
                version=1,  # the reference resolver ends at 1, int8 is 2
                block_size=block,
            )
            yield single_layer(
                f"space_to_depth-{dtype}",
                edge,
                "SPACE_TO_DEPTH",
                [_fed(_values(wide, dtype))],
                [_result(deep, dtype)],
                version=1,
                block_size=block,
            )


def repeats() -> Iterator[Case]:
    for dtype in (*QUANTIZED, "int32", "float32"):
        for multiples in ((1, 1, 1), (2, 1, 3), (1, 3, 2)):
            data = _values((2, 3, 4), dtype)
            out = tuple(n * k for n, k in zip(data.shape, multiples, strict=True))
            yield single_layer(
                f"tile-{dtype}",
                f"times {multiples}",
                "TILE",
                [_fed(data), indices(*multiples)],
                [_result(out, dtype)],
                version=1,  # the reference resolver ends at 2, int8 is 3
            )
        for shape, out in (((1, 3, 1), (2, 3, 4)), ((4,), (2, 3, 4)), ((), (2, 3)), ((2, 3, 4), (2, 3, 4))):
            yield single_layer(
                f"broadcast_to-{dtype}",
                f"{shape} to {out}",
                "BROADCAST_TO",
                [_fed(_values(shape, dtype)), indices(*out)],
                [_result(out, dtype)],
            )
        yield single_layer(
            f"fill-{dtype}",
            "two dimensions",
            "FILL",
            [indices(3, 5), _fed(np.array(9, dtype))],
            [_result((3, 5), dtype)],
        )


def nearest() -> Iterator[Case]:
    sizes = (
        ((2, 3), (4, 6)),
        ((4, 6), (2, 3)),
        ((5, 7), (3, 11)),
        ((3, 3), (10, 7)),
        ((1, 1), (3, 2)),
        ((5, 4), (1, 1)),
    )
    # float32 steps of 14/46 and 26/22 miss a whole index from below, steps of 1/65536 do not.
    sizes += (((14, 26), (46, 22)), ((6, 39), (74, 33)))
    for dtype in (*QUANTIZED, "float32"):
        for (height, width), (out_height, out_width) in sizes:
            for align, half in ((False, False), (True, False), (False, True), (True, True)):
                data = _values((2, height, width, 3), dtype)
                yield single_layer(
                    f"resize_nearest_neighbor-{dtype}-align{align:d}-half{half:d}",
                    f"{height}x{width} to {out_height}x{out_width}",
                    "RESIZE_NEAREST_NEIGHBOR",
                    [_fed(data), indices(out_height, out_width)],
                    [_result((2, out_height, out_width, 3), dtype)],
                    align_corners=align,
                    half_pixel_centers=half,
                )
