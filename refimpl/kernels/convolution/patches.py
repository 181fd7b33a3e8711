"""Copying input bytes to patches, borders included; shared by the compiled convolutions.

A patch is what one tile of output pixels reads: int16, uint8 or int8 ``[filter_y, column,
in_channel]``, as the instruction set multiplies them. Its layouts are described in
``karat24.refimpl.kernels.convolution.tiling``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types

from karat24.refimpl.graph import Array, Tensor
from karat24.refimpl.kernels.jit.llvm_ir import INT8, INT32, call, intrinsic, pointer
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_inside

CACHE_LINE = 64
"""Bytes :func:`prefetch` brings at least."""


class ByteToElement(NamedTuple):
    """How an input byte becomes a value of the patch: ``(byte ^ flip) - offset``.

    Borders get ``border``, the patch's value that stands for 0. Conversion to int16 flips the sign bit of an
    int8 byte and subtracts 128, and leaves a uint8 byte as it is, so one compiled function serves both.
    Conversion between int8 and uint8 only flips the sign bit: values move by 128, and so does ``border``.
    """

    flip: int
    offset: int
    border: int


def byte_to_element(tensor: Tensor, element: type[Any] = np.int16) -> ByteToElement:
    """The conversion of an int8 or uint8 tensor to a patch of that element type."""
    signed = tensor.dtype == "int8"
    if element is np.int16:
        flip = 128 if signed else 0
        return ByteToElement(flip, flip, tensor.zero_point)
    if signed == (element is np.int8):
        return ByteToElement(0, 0, tensor.zero_point)
    return ByteToElement(128, 0, tensor.zero_point + (128 if signed else -128))


@no_refcount_inside
def _widen(source: Array, flip: np.uint8, offset: np.int16, target: Array) -> None:
    if target.itemsize == 1:  # between int8 and uint8 only the sign bit changes
        for i in range(target.size):
            target[i] = source[i] ^ flip
    else:
        for i in range(target.size):
            target[i] = np.int16(np.int16(source[i] ^ flip) - offset)


@intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """Fetches the cache line of an address that will be read soon; the address need not be valid."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        _prefetch(builder, arguments[0], 0)

    return types.void(types.int64), codegen


@intrinsic
def prefetch_to_write(_: Any, address: Any) -> Any:
    """Fetches the cache line of an address that will be written soon; the address need not be valid."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        _prefetch(builder, arguments[0], 1)

    return types.void(types.int64), codegen


def _prefetch(builder: Any, address: Any, write: int) -> None:
    write, second_level, data = (ir.Constant(INT32, number) for number in (write, 2, 1))
    operands = [pointer(builder, address, INT8), write, second_level, data]
    call(builder, "llvm.prefetch.p0", ir.VoidType(), operands)


class PatchSource(NamedTuple):
    """The part of the input that the tiles of one phase read, and the layout of their patch.

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


@no_refcount_inside
def fill_patch(
    image: Array,
    conversion: ByteToElement,
    r: PatchSource,
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
    one: Any = np.int64(1)  # Numba would compile another version of a function for a literal
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
                    _widen_columns(image, conversion, start, r.in_width, r.in_channels, x, one, target)
        else:
            target = row[:row_size]
            _widen_columns(image, conversion, start, r.in_width, r.in_channels, in_x, r.patch_columns, target)
        if r.copies > 1:
            _repeat_in_place(row, row_size, r.copies)


@no_refcount_inside
def _repeat_in_place(row: Array, size: int, copies: int) -> None:
    """Repeats each of the first ``size`` elements ``copies`` times, from the end so that none is lost."""
    for i in range(size - 1, -1, -1):
        value = row[i]
        for copy in range(copies):
            row[i * copies + copy] = value


@no_refcount_inside
def _widen_columns(
    image: Array,
    conversion: ByteToElement,
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
    border = np.int16(conversion.border)
    left, right = columns, columns
    if start >= 0:
        left = min(max(-first, 0), columns)
        right = max(min(width - first, columns), left)
    target[: left * channels] = border
    if right > left:
        begin = start + (first + left) * channels
        source = image[begin : begin + (right - left) * channels]
        inner = target[left * channels : right * channels]
        _widen(source, np.uint8(conversion.flip), np.int16(conversion.offset), inner)
    target[right * channels : columns * channels] = border
