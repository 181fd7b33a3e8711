"""Arguments in memory as compiled code reads them, written without compiling anything.

Numba keeps a tuple as a C structure of its members' value types, and an array as one of seven fields
(``numba/np/arrayobj.py``, ``ArrayModel`` of ``numba/core/datamodel/models.py``, Numba 0.61 to 0.66).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numba import types
from numba.core.registry import cpu_target

from karat24.refimpl.kernels.jit.callee import Callee, CalleeType

_WORD = "q" if struct.calcsize("P") == struct.calcsize("q") else "i"
_POINTER = _WORD.upper()
_CODES: Mapping[str, str] = MappingProxyType(
    {
        "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "float32": "f", "float64": "d",
        "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
    }
)  # fmt: skip
"""Numba's name of a number's type to the code of ``struct``."""


class Packing:
    """How a tuple of arguments of one Numba type lies in memory."""

    def __init__(self, kind: Any) -> None:
        codes, self.size, _ = _laid_out(kind, 0)
        self._format = struct.Struct("=" + "".join(codes))
        expected = _size_of(kind)
        if self.size != expected:
            raise TypeError(f"{kind} takes {expected} bytes in Numba, {self.size} were expected")

    def pack_into(self, memory: Any, offset: int, arguments: tuple[Any, ...]) -> None:
        """Writes the arguments to the bytes of ``memory`` from ``offset`` on.

        Of arrays, neither the owner nor the parent is written: references from this memory are not counted.
        """
        self._format.pack_into(memory, offset, *_members(arguments))


def _size_of(kind: Any) -> int:
    context = cpu_target.target_context
    size: int = context.get_abi_sizeof(context.get_value_type(kind))
    return size


def _laid_out(kind: Any, start: int) -> tuple[list[str], int, int]:
    """The codes of ``struct`` for a value at ``start``, its end and its alignment, in bytes."""
    if isinstance(kind, types.Array):
        codes = [_POINTER, _POINTER, _WORD, _WORD, _POINTER, *_WORD * (2 * kind.ndim)]
        return _structure(codes, start)
    if isinstance(kind, types.BaseTuple):
        return _structure(list(kind), start)  # type: ignore[call-overload]
    return _structure([_code(kind)], start)


def _structure(members: list[Any], start: int) -> tuple[list[str], int, int]:
    """As for :func:`_laid_out`; members are codes or Numba types. A structure's end is aligned, too."""
    alignment = max((_alignment(member) for member in members), default=1)
    codes, at = _padding(start, alignment)
    for member in members:
        if isinstance(member, str):
            padding, at = _padding(at, struct.calcsize("=" + member))
            inner, end = [member], at + struct.calcsize("=" + member)
        else:
            padding, at = _padding(at, _alignment(member))
            inner, end, _ = _laid_out(member, at)
        codes += [*padding, *inner]
        at = end
    padding, at = _padding(at, alignment)
    return [*codes, *padding], at, alignment


def _alignment(member: Any) -> int:
    if isinstance(member, str):
        return struct.calcsize("=" + member)
    if isinstance(member, types.Array):
        return struct.calcsize("P")
    if isinstance(member, types.BaseTuple):
        inner: Any = member
        return max((_alignment(one) for one in inner), default=1)
    return struct.calcsize("=" + _code(member))


def _padding(at: int, alignment: int) -> tuple[list[str], int]:
    """The bytes up to a multiple of ``alignment``, and that multiple."""
    aligned = -(-at // alignment) * alignment
    return (["x"] * (aligned - at)), aligned


def _code(kind: Any) -> str:
    if isinstance(kind, CalleeType):
        return _CODES["int64"]
    try:
        return _CODES[types.unliteral(kind).name]
    except KeyError:
        raise TypeError(f"no argument of type {kind} can be kept in memory") from None


def _members(value: Any) -> Iterator[Any]:
    """What the codes stand for, in their order."""
    if isinstance(value, tuple):
        for member in value:
            yield from _members(member)
    elif isinstance(value, np.ndarray):
        yield from (0, 0, value.size, value.itemsize, value.__array_interface__["data"][0])
        yield from value.shape
        yield from value.strides
    else:
        yield value.code.address if isinstance(value, Callee) else value
