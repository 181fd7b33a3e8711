"""The largest values of one window, channel by channel, in vector registers.

A loop over arrays would keep the largest value so far in the output, writing it for every tap and reading
it back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types
from numba.core import cgutils

from karat24.refimpl.kernels.jit.llvm_ir import INT8, constant, fields, intrinsic, load, splat, store, vector

BLOCKS = (64, 32, 16, 1)
"""Numbers of channels at a time; the widest that fits the channels left is taken."""


class ByteWindow(NamedTuple):
    """A window of an image of bytes."""

    address: int
    """Of its first row and column's first channel."""
    rows: int
    """Rows it has, at least one."""
    row_step: int
    """Bytes from a row to the next."""
    columns: int
    """Columns it has, at least one."""
    column_step: int
    """Bytes from a column to the next."""


@intrinsic
def largest_of_window(_: Any, window: Any, channels: Any, low: Any, high: Any, out: Any) -> Any:
    """``out[c] = min(max(largest of window[y, x, c], low), high)`` for every channel c.

    ``window`` is a ``ByteWindow``, ``out`` an address of bytes: int8 or uint8, as ``low`` and ``high`` are.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        read, channels, low, high, out = arguments
        at_first, rows, row_step, columns, column_step = fields(builder, read)
        compare = builder.icmp_signed if signature.args[2].signed else builder.icmp_unsigned

        def larger(a: Any, b: Any) -> Any:
            return builder.select(compare(">", a, b), a, b)

        def smaller(a: Any, b: Any) -> Any:
            return builder.select(compare("<", a, b), a, b)

        begin: Any = constant(0)
        for lanes in BLOCKS:
            kind, floor, ceiling = (
                vector(INT8, lanes),
                splat(builder, low, lanes),
                splat(builder, high, lanes),
            )
            end = builder.add(begin, builder.and_(builder.sub(channels, begin), constant(-lanes)))
            with cgutils.for_range_slice(builder, begin, end, constant(lanes)) as (channel, _count):
                found = cgutils.alloca_once_value(builder, floor)
                first = builder.add(at_first, channel)
                with cgutils.for_range(builder, rows) as row:
                    at = builder.add(first, builder.mul(row.index, row_step))
                    with cgutils.for_range(builder, columns) as column:
                        tap = builder.add(at, builder.mul(column.index, column_step))
                        values = load(builder, tap, kind, 1)
                        builder.store(larger(builder.load(found), values), found)
                store(builder, smaller(builder.load(found), ceiling), builder.add(out, channel), 1)
            begin = end

    count, bound = types.int64, types.int8 if low.signed else types.uint8
    signature = types.void(window, count, bound, bound, count)
    return signature, codegen
