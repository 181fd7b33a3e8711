"""Reading the FlexBuffer map that a custom op of a .tflite file carries as its options.

A FlexBuffer is read from its end: width and type of the root, then the root, which
points backwards to what it holds. Only what such a map holds is read: numbers,
strings, byte blobs, and vectors of numbers. Every offset and length is checked
before it is followed, nothing nests deeper than a vector in the map, and the number
of values is bounded, so that a broken file ends in a ModelError.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from karat24.refimpl.errors import ModelError

FlexValue: TypeAlias = int | float | bytes | list[int] | None

MAX_VALUES = 4096
"""Values in one map and its vectors; the ops read here have a dozen."""

_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_REAL = {2: "e", 4: "f", 8: "d"}

# The type numbers of flexbuffers.h (FlatBuffers 24.3).
_NULL, _INT, _UINT, _FLOAT, _KEY, _STRING, _MAP, _VECTOR = 0, 1, 2, 3, 4, 5, 9, 10
_VECTOR_INT, _VECTOR_UINT, _BLOB, _BOOL, _VECTOR_BOOL = 11, 12, 25, 26, 36
_TYPED_VECTORS = {_VECTOR_INT: _INT, _VECTOR_UINT: _UINT, _VECTOR_BOOL: _BOOL}


def read_flexbuffer_map(content: bytes) -> dict[str, FlexValue]:
    """The map in ``content``: strings and blobs as bytes, vectors as lists of whole numbers.

    Raises ModelError for anything that is not a sound map of those.
    """
    return _Reader(content).root()


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._values_left = MAX_VALUES

    def root(self) -> dict[str, FlexValue]:
        size = len(self._content)
        if size < 3:
            raise ModelError(f"{size} bytes are not a FlexBuffer")
        width, packed = self._content[-1], self._content[-2]
        if width not in _UNSIGNED or packed >> 2 != _MAP:
            raise ModelError("the FlexBuffer's root must be a map")
        return self._map(self._follow(size - 2 - width, width), 1 << (packed & 3))

    def _map(self, start: int, width: int) -> dict[str, FlexValue]:
        """A map is a vector of values; before its length stand where its keys are and how wide."""
        keys_width = self._unsigned(start - 2 * width, width)
        if keys_width not in _UNSIGNED:
            raise ModelError(f"the FlexBuffer's keys are {keys_width} bytes wide")
        keys = self._follow(start - 3 * width, width)
        length = self._length(start, width)
        found: dict[str, FlexValue] = {}
        for position in range(length):
            key = self._key(self._follow(keys + position * keys_width, keys_width))
            packed = self._unsigned(start + length * width + position, 1)
            found[key] = self._value(start + position * width, width, packed)
        return found

    def _value(self, position: int, parent_width: int, packed: int) -> FlexValue:
        kind, width = packed >> 2, 1 << (packed & 3)
        if kind == _NULL:
            return None
        if kind in (_INT, _UINT, _BOOL, _FLOAT):
            return self._number(position, parent_width, kind)
        start = self._follow(position, parent_width)
        if kind in (_STRING, _BLOB):
            size = self._unsigned(start - width, width)
            if size > len(self._content) - start:
                raise ModelError(f"a FlexBuffer blob of {size} bytes runs past the end")
            return self._content[start : start + size]
        if kind == _VECTOR or kind in _TYPED_VECTORS:
            return self._vector(start, width, _TYPED_VECTORS.get(kind))
        raise ModelError(f"a FlexBuffer value of type {kind}, which is not read")

    def _vector(self, start: int, width: int, kind: int | None) -> list[int]:
        """Whole numbers; an untyped vector stores each one's type behind the values."""
        length = self._length(start, width)
        values = []
        for position in range(length):
            own = self._unsigned(start + length * width + position, 1) >> 2 if kind is None else kind
            if own not in (_INT, _UINT, _BOOL):
                raise ModelError(f"a FlexBuffer vector holds a value of type {own}, no whole number")
            values.append(int(self._number(start + position * width, width, own)))
        return values

    def _length(self, start: int, width: int) -> int:
        """The length of the vector at ``start``, in values; all lengths together are bounded."""
        length = self._unsigned(start - width, width)
        self._values_left -= length
        if self._values_left < 0:
            raise ModelError(f"the FlexBuffer holds more than {MAX_VALUES} values")
        return length

    def _number(self, position: int, width: int, kind: int) -> int | float:
        code = (_SIGNED if kind == _INT else _REAL if kind == _FLOAT else _UNSIGNED).get(width)
        if code is None:
            raise ModelError(f"a FlexBuffer float of {width} bytes")
        value: int | float = self._unpack(position, code)
        return value

    def _unsigned(self, position: int, width: int) -> int:
        return int(self._unpack(position, _UNSIGNED[width]))

    def _unpack(self, position: int, code: str) -> int | float:
        if not 0 <= position <= len(self._content) - struct.calcsize(code):
            raise ModelError(f"the FlexBuffer refers to byte {position} of {len(self._content)}")
        value: int | float = struct.unpack_from("<" + code, self._content, position)[0]
        return value

    def _follow(self, position: int, width: int) -> int:
        """Where the offset at ``position`` leads; it counts backwards."""
        return position - self._unsigned(position, width)

    def _key(self, start: int) -> str:
        end = self._content.find(b"\0", start, start + 256) if 0 <= start < len(self._content) else -1
        if end < 0:
            raise ModelError("a FlexBuffer key has no end")
        return self._content[start:end].decode("utf-8", "backslashreplace")
