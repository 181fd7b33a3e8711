"""Sums of two tensors' bytes, LANES at a time, in vector registers.

Numba has no vector type, and a loop that LLVM vectorizes cannot stop at a sum that needs another look. LLVM
chooses the instructions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from karat24.refimpl.kernels.jit.llvm_ir import (
    INT8,
    INT32,
    call,
    constant,
    fields,
    intrinsic,
    load,
    splat,
    store,
    vector,
)

LANES = 16
"""Sums at a time."""

PLACES = 13
"""A float32 from 1024 to 2048 is a multiple of 2**-PLACES; its bits end in that fraction."""

_BYTES, _WHOLE, _REAL = (vector(kind, LANES) for kind in (INT8, INT32, ir.FloatType()))


@intrinsic
def add_until_doubt(
    _: Any, left: Any, right: Any, flips: Any, approximate: Any, certain: Any, out: Any, count: Any
) -> Any:
    """``out[i] = (left[i] ^ flips[0]) * a + (right[i] ^ flips[1]) * b + start`` of an ``ApproximateSum``.

    Bounded by ``low`` and ``high`` and added to ``offset``, a float32 from 1024 on, a sum ends in the
    fraction that 2**-PLACES counts; above it stands the result. Goes on in blocks of LANES until one of a
    block's fractions has none of the bits ``certain``, or less than a block is left of ``count``. Returns the
    number of elements done before; up to LANES more may have been written, to be written again. ``left``,
    ``right`` and ``out`` are addresses of bytes, ``flips`` is a pair of bytes.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        left, right, flipped, constants, certain, out, count = arguments
        left_flip, right_flip = fields(builder, flipped)
        numbers = fields(builder, constants)
        flips = [splat(builder, flip, LANES) for flip in (left_flip, right_flip)]
        left_scale, right_scale, start, low, high, offset = (splat(builder, x, LANES) for x in numbers)
        certain, places = splat(builder, certain, LANES), ir.Constant(_WHOLE, [PLACES] * LANES)
        blocks = builder.sdiv(count, constant(LANES))
        done = cgutils.alloca_once_value(builder, blocks)

        def real(address: Any, flip: Any) -> Any:
            return builder.uitofp(builder.xor(load(builder, address, _BYTES, 1), flip), _REAL)

        with cgutils.for_range(builder, blocks) as block:
            at = builder.mul(block.index, constant(LANES))
            addresses = builder.add(left, at), builder.add(right, at)
            first, second = (real(address, flip) for address, flip in zip(addresses, flips, strict=True))
            total = _fused(builder, second, right_scale, start)
            total = _fused(builder, first, left_scale, total)
            total = builder.select(builder.fcmp_ordered(">", total, low), total, low)
            total = builder.select(builder.fcmp_ordered("<", total, high), total, high)
            steps = builder.bitcast(builder.fadd(total, offset), _WHOLE)
            store(builder, builder.trunc(builder.ashr(steps, places), _BYTES), builder.add(out, at), 1)
            doubts = builder.icmp_signed("==", builder.and_(steps, certain), ir.Constant(_WHOLE, None))
            doubts = builder.bitcast(doubts, ir.IntType(LANES))
            with builder.if_then(builder.icmp_unsigned("!=", doubts, doubts.type(0)), likely=False):
                builder.store(block.index, done)
                block.do_break()
        return builder.mul(builder.load(done), constant(LANES))

    address, size = types.int64, types.int64
    return types.int64(address, address, flips, approximate, types.int32, address, size), codegen


def _fused(builder: Any, value: Any, factor: Any, addend: Any) -> Any:
    return call(builder, f"llvm.fmuladd.v{LANES}f32", _REAL, [value, factor, addend])
