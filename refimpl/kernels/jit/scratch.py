"""Memory for one call of a compiled loop, from Numba's allocator, without reference counts.

A function that makes an array counts references to every array it was given, at every call: for the twenty
arrays of a convolution that takes longer than some layers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.np.arrayobj import populate_array

from karat24.refimpl.kernels.jit.llvm_ir import INT8, INT64, call, constant, intrinsic, pointer
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_inlined

ALIGNMENT = 64
"""Pieces start at a multiple of this, and packed weights: no vector of them straddles two cache lines."""


@intrinsic
def _allocate(_: Any, size: Any) -> Any:
    """The address of ``size`` bytes, or 0 where there is no memory left."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.ptrtoint(call(builder, "NRT_Allocate", INT8.as_pointer(), arguments), INT64)

    return types.int64(types.int64), codegen


@intrinsic
def release(_: Any, memory: Any) -> Any:
    """Gives back what :func:`allocate` gave."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        call(builder, "NRT_Free", ir.VoidType(), [pointer(builder, arguments[0], INT8)])

    return types.void(types.int64), codegen


@no_refcount_inlined
def allocate(size: int) -> int:
    """The address of memory for pieces of ``size`` bytes in all, to be released. Raises MemoryError."""
    memory: int = _allocate(size + ALIGNMENT)
    if memory == 0:
        raise MemoryError("no memory for what a layer's tile needs")
    return memory


@no_refcount_inlined
def piece_size(count: int, itemsize: int) -> int:
    """Bytes that a piece of ``count`` elements takes."""
    return (count * itemsize + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@intrinsic
def piece(_: Any, memory: Any, offset: Any, count: Any, dtype: Any) -> Any:
    """``count`` uninitialized elements of the memory from ``offset`` on, a sum of sizes of pieces."""
    kind = types.Array(dtype.dtype, 1, "C")

    def codegen(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        memory, offset, count, _ = arguments
        past = builder.add(memory, constant(ALIGNMENT - 1))
        start = builder.add(builder.and_(past, constant(-ALIGNMENT)), offset)
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        array = context.make_array(kind)(context, builder)
        data = builder.inttoptr(start, array.data.type)
        populate_array(
            array, data=data, shape=[count], strides=[constant(size)], itemsize=constant(size), meminfo=None
        )
        return array._getvalue()

    return kind(types.int64, types.int64, types.int64, dtype), codegen
