"""Loads, calls and address arithmetic in LLVM's language, where Numba's intrinsics build their code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils

intrinsic: Any = extending.intrinsic
"""Numba's decorator; its own type asks callers for the typing context, too."""

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def constant(value: int) -> Any:
    """An int64 constant."""
    return ir.Constant(INT64, value)


def element(builder: Any, base: Any, index: Any, size: int) -> Any:
    """The address ``base + index * size``."""
    return builder.add(base, builder.mul(index, constant(size)))


def pointer(builder: Any, address: Any, kind: Any) -> Any:
    """An int64 address as a pointer to ``kind``."""
    return builder.inttoptr(address, kind.as_pointer())


def load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    """The value of type ``kind`` at an address that is a multiple of ``align`` bytes."""
    return builder.load(pointer(builder, address, kind), align=align)


def store(builder: Any, value: Any, address: Any, align: int) -> None:
    """Writes a value to an address that is a multiple of ``align`` bytes."""
    builder.store(value, pointer(builder, address, value.type), align=align)


def fields(builder: Any, record: Any) -> list[Any]:
    """The fields of a named tuple that compiled code hands over."""
    return [builder.extract_value(record, index) for index in range(len(record.type))]


def vector(kind: Any, lanes: int) -> Any:
    """The type of ``lanes`` values of type ``kind`` in one register (or several)."""
    return ir.VectorType(kind, lanes)


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """``value`` in every lane."""
    kind = vector(value.type, lanes)
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(vector(INT32, lanes), [0] * lanes))


def call(builder: Any, name: str, result: Any, operands: Sequence[Any]) -> Any:
    """Calls LLVM's function ``name``, which returns a ``result``."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)
