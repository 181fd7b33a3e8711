"""Copying input bytes to patches, borders included; shared by the compiled convolutions.

A patch is what one tile of output pixels reads: int16, uint8 or int8 ``[filter_y, column,
in_channel]``, as the instruction set multiplies them. Its layouts are described in
``refimpl.kernels.tiling``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from refimpl.graph import Array, Tensor
from refimpl.kernels.addresses import INT8, INT32, call, pointer
from refimpl.kernels.inner_loop import inner_loop

CACHE_LINE = 64
"""Bytes :func:`prefetch` brings at least."""

_intrinsic: Any = intrinsic  # Numba's own type asks callers for the context, too


class Widening(NamedTuple):
    """How an input byte becomes a value of the patch: ``(byte ^ flip) - offset``.

    Borders get ``border``, the patch's value that stands for 0. To int16, int8 flips
    the sign bit and takes 128 off, uint8 does nothing, so one compiled function
    serves both. To a byte of the other sign flipping is all: the values move by 128,
    and so does what stands for 0.
    """

    flip: int
    offset: int
    border: int


def widening_for(tensor: Tensor, element: type[Any] = np.int16) -> Widening:
    """The widening of an int8 or uint8 tensor to a patch of that element type."""
    signed = tensor.dtype == "int8"
    if element is np.int16:
        flip = 128 if signed else 0
        return Widening(flip, flip, tensor.zero_point)
    if signed == (element is np.int8):
        return Widening(0, 0, tensor.zero_point)
    return Widening(128, 0, tensor.zero_point + (128 if signed else -128))


def as_bytes(values: Array) -> NDArray[np.uint8]:
    """A C-contiguous array's bytes, flat and read-only (so that every caller has one Numba type)."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    flat.flags.writeable = False
    return flat


def writable_bytes(values: Array) -> NDArray[np.uint8]:
    """An output's bytes, flat, sharing its memory; the output must be C-contiguous."""
    assert values.flags.c_contiguous
    return values.reshape(-1).view(np.uint8)


def flat_accumulator(accumulator: Array | None) -> NDArray[np.int32]:
    """The accumulators asked for, flat; an empty array when nobody did."""
    if accumulator is None:
        return np.empty(0, np.int32)
    assert accumulator.flags.c_contiguous
    return accumulator.reshape(-1)


@inner_loop
def _widen(source: Array, flip: np.uint8, offset: np.int16, target: Array) -> None:
    if target.itemsize == 1:  # a byte has no offset
        for i in range(target.size):
            target[i] = source[i] ^ flip
    else:
        for i in range(target.size):
            target[i] = np.int16(np.int16(source[i] ^ flip) - offset)


@_intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """Asks for the cache line of an address, which will be read soon; it need not be anybody's."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        _prefetch(builder, arguments[0], 0)

    return types.void(types.int64), codegen


@_intrinsic
def prefetch_to_write(_: Any, address: Any) -> Any:
    """The same for what will be written."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        _prefetch(builder, arguments[0], 1)

    return types.void(types.int64), codegen


def _prefetch(builder: Any, address: Any, write: int) -> None:
    write, second_level, data = (ir.Constant(INT32, number) for number in (write, 2, 1))
    operands = [pointer(builder, address, INT8), write, second_level, data]
    call(builder, "llvm.prefetch.p0", ir.VoidType(), operands)


class Reading(NamedTuple):
    """What the tiles of one phase read, and how their patch is laid out.

    ``copies`` repeats every channel, for depthwise filters with a multiplier.
    """

    in_height: int
    in_width: int
    in_channels: int
    copies: int
    tap_y_step: int
    taps_y: int
    in_x_step: int
    tap_x_step: int
    taps_x: int
    patch_columns: int
    gathered: int


@inner_loop
def fill_patch(
    image: Array,
    widening: Widening,
    r: Reading,
    batch: int,
    in_y: int,
    in_x: int,
    pixels: int,
    patch: Array,
) -> None:
    """Fills ``patch`` for ``pixels`` outputs, the first of which starts at ``in_y``, ``in_x``.

    ``image`` is the whole input's bytes, NHWC. Positions outside it get the border.
    """
    row_size = r.patch_columns * r.in_channels
    pitch = row_size * r.copies
    for tap_y in range(r.taps_y):
        y = in_y + tap_y * r.tap_y_step
        start = -1
        if 0 <= y < r.in_height:
            start = (batch * r.in_height + y) * r.in_width * r.in_channels
        row = patch[tap_y * pitch : (tap_y + 1) * pitch]
        if r.gathered:
            for pixel in range(pixels):
                for tap_x in range(r.taps_x):
                    column = pixel * r.taps_x + tap_x
                    target = row[column * r.in_channels : (column + 1) * r.in_channels]
                    x = in_x + pixel * r.in_x_step + tap_x * r.tap_x_step
                    _widen_columns(image, widening, start, r.in_width, r.in_channels, x, 1, target)
        else:
            target = row[:row_size]
            _widen_columns(image, widening, start, r.in_width, r.in_channels, in_x, r.patch_columns, target)
        if r.copies > 1:
            _repeat_in_place(row, row_size, r.copies)


@inner_loop
def _repeat_in_place(row: Array, size: int, copies: int) -> None:
    """Each of the first ``size`` elements ``copies`` times; from the end, so none is lost."""
    for i in range(size - 1, -1, -1):
        value = row[i]
        for copy in range(copies):
            row[i * copies + copy] = value


@inner_loop
def _widen_columns(
    image: Array,
    widening: Widening,
    start: int,
    width: int,
    channels: int,
    first: int,
    columns: int,
    target: Array,
) -> None:
    """Fills ``target`` ([columns * channels]) with ``columns`` columns of a row from ``first`` on.

    The row's bytes begin at ``image[start]`` and hold ``width`` columns; with
    ``start < 0`` there is no such row. Columns outside the row get the border.
    """
    border = np.int16(widening.border)
    left, right = columns, columns
    if start >= 0:
        left = min(max(-first, 0), columns)
        right = max(min(width - first, columns), left)
    target[: left * channels] = border
    if right > left:
        begin = start + (first + left) * channels
        source = image[begin : begin + (right - left) * channels]
        inner = target[left * channels : right * channels]
        _widen(source, np.uint8(widening.flip), np.int16(widening.offset), inner)
    target[right * channels : columns * channels] = border
