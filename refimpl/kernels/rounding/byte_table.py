"""Bytes looked up in a table of 256, many at a time where the processor can.

AVX512-VBMI picks 64 bytes from 128 with one instruction; two of them and a choice by the index's highest
bit are the whole table: about 64 bytes in the time a loop takes for four. The choice depends on
the processor that Numba compiles for, so one loop serves every instruction set of the convolutions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from karat24.refimpl.kernels.jit.isa import compiles_for
from karat24.refimpl.kernels.jit.llvm_ir import (
    INT8,
    INT32,
    call,
    constant,
    intrinsic,
    load,
    pointer,
    splat,
    store,
    vector,
)

FEATURE = "avx512vbmi"

_LANES = 64
_BYTES = vector(INT8, _LANES)


@intrinsic
def look_up_bytes(_: Any, table: Any, source: Any, target: Any, rows: Any, step: Any, width: Any) -> Any:
    """``target[r * step + i] = table[source[r * step + i]]`` for r < rows, i < width; addresses of bytes.

    ``target`` may be ``source``, but not overlap it otherwise. Touches nothing between the rows.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        emit = _permuted if compiles_for(FEATURE) else _one_by_one
        emit(builder, *arguments)

    return types.void(*[types.int64] * 6), codegen


def _one_by_one(builder: Any, table: Any, source: Any, target: Any, rows: Any, step: Any, width: Any) -> None:
    with cgutils.for_range(builder, rows) as row:
        begin = builder.mul(row.index, step)
        with cgutils.for_range(builder, width) as column:
            at = builder.add(begin, column.index)
            index = builder.zext(load(builder, builder.add(source, at), INT8, 1), table.type)
            value = load(builder, builder.add(table, index), INT8, 1)
            store(builder, value, builder.add(target, at), 1)


def _permuted(builder: Any, table: Any, source: Any, target: Any, rows: Any, step: Any, width: Any) -> None:
    quarters = [load(builder, builder.add(table, constant(at)), _BYTES, 1) for at in range(0, 256, _LANES)]
    nothing = ir.Constant(_BYTES, None)
    order = ir.Constant(_BYTES, list(range(_LANES)))
    whole = builder.and_(width, constant(-_LANES))
    rest = builder.sub(width, whole)
    mask = builder.icmp_unsigned("<", order, splat(builder, builder.trunc(rest, INT8), _LANES))

    def found(index: Any) -> Any:
        low, high = (
            call(builder, "llvm.x86.avx512.vpermi2var.qi.512", _BYTES, [first, index, second])
            for first, second in (quarters[:2], quarters[2:])
        )
        return builder.select(builder.icmp_signed("<", index, nothing), high, low)

    with cgutils.for_range(builder, rows) as row:
        begin = builder.mul(row.index, step)
        with cgutils.for_range_slice(builder, constant(0), whole, constant(_LANES)) as (column, _):
            at = builder.add(begin, column)
            index = load(builder, builder.add(source, at), _BYTES, 1)
            store(builder, found(index), builder.add(target, at), 1)
        with builder.if_then(builder.icmp_signed(">", rest, constant(0))):
            at = builder.add(begin, whole)
            align = ir.Constant(INT32, 1)
            read = pointer(builder, builder.add(source, at), _BYTES)
            write = pointer(builder, builder.add(target, at), _BYTES)
            index = call(builder, "llvm.masked.load.v64i8.p0", _BYTES, [read, align, mask, nothing])
            call(builder, "llvm.masked.store.v64i8.p0", ir.VoidType(), [found(index), write, align, mask])
