"""A row of outputs of depthwise 3x3 filters, DEPTHWISE_CHANNELS channels at a time, in vector registers.

The instructions add up the products of the values in a 32-bit word, and a depthwise convolution adds values
of one channel: a word holds the values of a column, one above the other (two words where values are int16). A
column is read once, as bytes; its words are made in registers and multiplied for every pixel that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

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
from karat24.refimpl.kernels.microkernel.microkernel import (
    DEPTHWISE_CHANNELS,
    DEPTHWISE_PIXELS,
    Microkernel,
    kernel_of,
)
from karat24.refimpl.kernels.microkernel.operands import flat
from karat24.refimpl.kernels.microkernel.vector_blocks import WORD_BYTES, ChannelBlock

TAPS = 3
"""Rows and columns of the filters."""

STRIDES = 1, 2
"""Strides along x that there is code for."""


@intrinsic
def multiply_columns(
    _: Any, blocking: Any, stride: Any, pixels: Any, columns: Any, weights: Any, sums: Any
) -> Any:
    """``target[p, c] = initial[c] + sum of value(y, stride * p + x, c) * weight(y, x, c)`` over TAPS y and x.

    For p < ``pixels``, c < DEPTHWISE_CHANNELS and a ``stride`` of STRIDES. ``columns`` are ``ByteColumns``,
    ``sums`` ``Sums``; ``weights`` are ``ChannelWeights`` whose rows are [row of words, x]. Sums wrap at 32
    bits. Reads what is named above and nothing else.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        kernel = kernel_of(blocking)
        numbers = flat(builder, *arguments[2:])
        for along_x in STRIDES:
            with builder.if_then(builder.icmp_signed("==", arguments[1], constant(along_x))):
                emit_row(builder, kernel, along_x, numbers)

    return types.void(blocking, types.int64, types.int64, columns, weights, sums), codegen


def emit_row(builder: Any, kernel: Microkernel, stride: int, arguments: Sequence[Any]) -> None:
    """Writes the code of :func:`multiply_columns` for one stride; ``arguments`` from ``pixels`` on."""
    pixels, patch, row_bytes, column_bytes, weights, weight_stride, initial, acc, acc_stride = arguments
    word = constant(WORD_BYTES)
    weight_bytes, acc_bytes = builder.mul(weight_stride, word), builder.mul(acc_stride, word)
    block, per_word = kernel.channelwise, kernel.values_per_word
    values = vector(INT8 if per_word == WORD_BYTES else INT16, DEPTHWISE_CHANNELS)
    sums = vector(INT32, block.lanes)
    word_rows = -(-TAPS // per_word)

    def vectors(address: Any) -> list[Any]:
        places = [constant(number * block.lanes * WORD_BYTES) for number in range(block.vectors)]
        return [load(builder, builder.add(address, place), sums, WORD_BYTES) for place in places]

    def column_at(address: Any) -> list[list[Any]]:
        rows = [load(builder, element(builder, address, row_bytes, y), values, 1) for y in range(TAPS)]
        rows += [ir.Constant(values, None)] * (-TAPS % per_word)
        return [_words(builder, block, rows[first : first + per_word]) for first in range(0, TAPS, per_word)]

    starts = vectors(initial)
    factors = [
        [vectors(element(builder, weights, weight_bytes, row * TAPS + x)) for row in range(word_rows)]
        for x in range(TAPS)
    ]
    # The first columns of a pixel are the last of the one before.
    shared = [
        [
            [cgutils.alloca_once_value(builder, word) for word in words]
            for words in column_at(element(builder, patch, column_bytes, number))
        ]
        for number in range(TAPS - stride)
    ]
    next_column = cgutils.alloca_once_value(builder, element(builder, patch, column_bytes, TAPS - stride))
    target = cgutils.alloca_once_value(builder, acc)

    def multiply(count: int) -> None:
        first, row = builder.load(next_column), builder.load(target)
        columns = [[[builder.load(slot) for slot in slots] for slots in of_column] for of_column in shared]
        columns += [column_at(element(builder, first, column_bytes, k)) for k in range(count * stride)]
        for pixel in range(count):
            totals = starts
            for x in range(TAPS):
                for words, of_row in zip(columns[pixel * stride + x], factors[x], strict=True):
                    totals = [block.dot(builder, *three) for three in zip(totals, words, of_row, strict=True)]
            for number, total in enumerate(totals):
                at = builder.add(row, constant(number * block.lanes * WORD_BYTES))
                store(builder, total, element(builder, at, acc_bytes, pixel), WORD_BYTES)
        for of_column, column in zip(shared, columns[count * stride :], strict=True):
            for slots, words in zip(of_column, column, strict=True):
                for slot, word in zip(slots, words, strict=True):
                    builder.store(word, slot)
        builder.store(element(builder, first, column_bytes, count * stride), next_column)
        builder.store(element(builder, row, acc_bytes, count), target)

    with cgutils.for_range(builder, builder.sdiv(pixels, constant(DEPTHWISE_PIXELS))):
        multiply(DEPTHWISE_PIXELS)
    with cgutils.for_range(builder, builder.srem(pixels, constant(DEPTHWISE_PIXELS))):
        multiply(1)


def _words(builder: Any, block: ChannelBlock, rows: Sequence[Any]) -> list[Any]:
    """The values of two rows or four, DEPTHWISE_CHANNELS each, as words: vectors of the block's lanes."""
    while len(rows) > 2:
        order = ir.Constant(vector(INT32, 2 * rows[0].type.count), list(range(2 * rows[0].type.count)))
        rows = [builder.shuffle_vector(*rows[at : at + 2], order) for at in range(0, len(rows), 2)]
    per_word = sum(row.type.count for row in rows) // DEPTHWISE_CHANNELS
    results = []
    for first in range(0, DEPTHWISE_CHANNELS, block.lanes):
        lanes = range(first, first + block.lanes)
        order = [row * DEPTHWISE_CHANNELS + lane for lane in lanes for row in range(per_word)]
        joined = builder.shuffle_vector(*rows, ir.Constant(vector(INT32, len(order)), order))
        results.append(builder.bitcast(joined, vector(INT32, block.lanes)))
    return results
