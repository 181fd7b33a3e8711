"""Winograd's transforms for 3x3 convolutions, F(4x4, 3x3), in whole numbers.

A tile of 4x4 outputs needs 6x6 inputs d and a filter g. Instead of 9 products for each output it takes
36 for all sixteen, one per *point* (S. Winograd 1980; A. Lavin and S. Gray, "Fast Algorithms for
Convolutional Neural Networks", 2015, section 4.3) ::

    Y = A' [(G g G') * (B' d B)] A          ' is transposition, * element by element

where G has fractions. Its rows times 24, 24, 24, 24, 24 and 12 are whole, and so is A' with its last column
times 2: both directions together then give 24 * 24 * Y = 64 * 9 * Y. Sums are taken modulo 2**32, where
9 has an inverse. Multiplied by that they are 64 * Y, exactly, if it fits 32 bits: if no result reaches 2**25,
which ``karat24.refimpl.kernels.convolution.winograd.convolution`` proves for each layer.

Inputs from -128 to 127 give values of at most 10 * 10 * 128 = 12,800, filters from -128 to 127 at most
12 * 12 * 128 = 18,432: both are int16. No sum of two products of them reaches 2**31, so an instruction that
multiplies and adds pairs cannot saturate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from karat24.refimpl.kernels.jit.llvm_ir import (
    INT8,
    INT16,
    INT32,
    constant,
    element,
    intrinsic,
    load,
    store,
    vector,
)

TILE, TAPS = 4, 3
"""Outputs and filter taps in each direction."""

SIDE = TILE + TAPS - 1
POINTS = SIDE * SIDE
"""Inputs of a tile in each direction, and points of a tile: (vertical, horizontal), row by row."""

LARGEST_INPUT = 128
"""Largest magnitude of an input, an int8."""

INPUT_LANES, OUTPUT_LANES = 32, 16
"""Channels the input's transform reads and writes at a time, and the output's."""

INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
"""B'"""

FILTER = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 12]])
"""G, its rows times 24, 24, 24, 24, 24, 12."""

OUTPUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 2],
    ]
)
"""A', its last column times 2."""

ONE_POINT, ONE_FACTOR = SIDE + 1, 576
"""A constant k times ``ONE_FACTOR`` at this point, 1 in both directions, adds k to all sixteen outputs."""

_INVERSE_OF_9 = pow(9, -1, 1 << 32)
_PLACES_OF_64 = 6

_INT16_BYTES, _INT32_BYTES = 2, 4
_BYTES = vector(INT8, INPUT_LANES)
_VALUES = vector(INT16, INPUT_LANES)
_SUMS = vector(INT32, OUTPUT_LANES)


def transformed_filter(filters: NDArray[np.int16]) -> NDArray[np.int16] | None:
    """Filters OHWI, 3x3, at every point: ``[filter, POINTS, channel]``; None where that is not int16."""
    wide = filters.astype(np.int64)
    at_points: NDArray[np.int64] = np.einsum("iy,jx,oyxc->oijc", FILTER, FILTER, wide, optimize=True)
    if np.abs(at_points).max(initial=0) > np.iinfo(np.int16).max:
        return None
    return at_points.reshape(len(filters), POINTS, -1).astype(np.int16)


@intrinsic
def transform_input(
    _: Any, patch: Any, row_bytes: Any, column_bytes: Any, tiles: Any, values: Any, point_bytes: Any
) -> Any:
    """``B' d B`` of INPUT_LANES channels of ``tiles`` neighbouring tiles.

    ``patch``: the address of the first tile's first int8 value, SIDE rows ``row_bytes`` apart of
    ``TILE * tiles + TAPS - 1`` columns ``column_bytes`` apart. ``values``: where int16 values go, those of a
    point and of the next ``point_bytes`` apart, tiles one after the other.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        patch, row_bytes, column_bytes, tiles, values, point_bytes = arguments

        def column(first: Any, number: int) -> list[Any]:
            """A column at the vertical points."""
            at = builder.add(first, builder.mul(column_bytes, constant(number)))
            rows = [builder.add(at, builder.mul(row_bytes, constant(row))) for row in range(SIDE)]
            return _at_points(builder, [builder.sext(load(builder, row, _BYTES, 1), _VALUES) for row in rows])

        # The first columns of a tile are the last of the one before.
        shared = [[cgutils.alloca_once_value(builder, x) for x in column(patch, k)] for k in range(TAPS - 1)]
        tile_bytes = builder.mul(column_bytes, constant(TILE))
        with cgutils.for_range(builder, tiles) as tile:
            first = builder.add(patch, builder.mul(tile.index, tile_bytes))
            columns = [[builder.load(slot) for slot in slots] for slots in shared]
            columns += [column(first, number) for number in range(TAPS - 1, SIDE)]
            for slots, last in zip(shared, columns[TILE:], strict=True):
                for slot, value in zip(slots, last, strict=True):
                    builder.store(value, slot)
            target = builder.add(values, builder.mul(tile.index, builder.mul(point_bytes, constant(POINTS))))
            for y in range(SIDE):
                row = _at_points(builder, [column[y] for column in columns])
                for x, value in enumerate(row):
                    offset = builder.mul(point_bytes, constant(y * SIDE + x))
                    store(builder, value, builder.add(target, offset), _INT16_BYTES)

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def transform_output(
    _: Any, sums: Any, point_bytes: Any, tiles: Any, acc: Any, row_bytes: Any, column_bytes: Any
) -> Any:
    """Y of OUTPUT_LANES channels of ``tiles`` neighbouring tiles, from sums of products at every point.

    ``sums`` and ``acc`` are addresses of int32: the points of a tile ``point_bytes`` apart, tiles one after
    the other; and TILE rows ``row_bytes`` apart of ``TILE * tiles`` columns ``column_bytes`` apart.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        sums, point_bytes, tiles, acc, row_bytes, column_bytes = arguments
        inverse, places = (ir.Constant(_SUMS, [n] * OUTPUT_LANES) for n in (_INVERSE_OF_9, _PLACES_OF_64))
        tile_bytes = builder.mul(point_bytes, constant(POINTS))
        with cgutils.for_range(builder, tiles) as tile:
            first = builder.add(sums, builder.mul(tile.index, tile_bytes))

            def at_point(number: int) -> Any:
                at = builder.add(first, builder.mul(point_bytes, constant(number)))
                return load(builder, at, _SUMS, _INT32_BYTES)

            rows = [_of_points(builder, [at_point(y * SIDE + x) for x in range(SIDE)]) for y in range(SIDE)]
            target = builder.add(acc, builder.mul(tile.index, builder.mul(column_bytes, constant(TILE))))
            for x in range(TILE):
                column = _of_points(builder, [row[x] for row in rows])
                for y, value in enumerate(column):
                    result = builder.ashr(builder.mul(value, inverse), places)
                    offset = element(builder, builder.mul(row_bytes, constant(y)), column_bytes, x)
                    store(builder, result, builder.add(target, offset), _INT32_BYTES)

    return types.void(*[types.int64] * 6), codegen


def _at_points(builder: Any, d: Sequence[Any]) -> list[Any]:
    """B' times six vectors."""
    even = builder.sub(d[4], _times(builder, d[2], 2))
    odd = builder.sub(d[3], _times(builder, d[1], 2))
    near, far = builder.sub(d[4], d[2]), builder.sub(d[3], d[1])
    twice = _times(builder, far, 1)
    return [
        builder.add(_times(builder, builder.sub(d[0], d[2]), 2), near),
        builder.add(even, odd),
        builder.sub(even, odd),
        builder.add(near, twice),
        builder.sub(near, twice),
        builder.sub(builder.sub(d[5], d[3]), _times(builder, far, 2)),
    ]


def _of_points(builder: Any, m: Sequence[Any]) -> list[Any]:
    """A' times six vectors."""
    ones, twos = builder.add(m[1], m[2]), builder.add(m[3], m[4])
    one, two = builder.sub(m[1], m[2]), builder.sub(m[3], m[4])
    cubes = builder.add(_times(builder, two, 2), m[5])
    return [
        builder.add(builder.add(m[0], ones), twos),
        builder.add(one, _times(builder, two, 1)),
        builder.add(ones, _times(builder, twos, 2)),
        builder.add(one, _times(builder, cubes, 1)),
    ]


def _times(builder: Any, value: Any, places: int) -> Any:
    """``value * 2**places``."""
    return builder.shl(value, ir.Constant(value.type, [places] * value.type.count))
