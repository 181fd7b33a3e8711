"""Reading flatbuffers from untrusted sources.

Every offset and length is checked against the file before it is followed, so that a
broken file ends in a ModelError: nothing outside the file is read, and no length field
decides an allocation. Offsets only lead to data of a known kind, at a depth the
reader chooses, so they cannot make it loop. The amount that is read in all is bounded by the
size of the file, since many offsets may lead to one table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array

_UINT16, _INT32, _UINT32 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I")

REREAD = 4
"""The most bytes that are read, as a multiple of the file's: valid files share few strings and tables."""

MAX_TABLES = 200_000
"""The most tables that are read; the largest networks have some ten thousand layers and tensors."""


class Document:
    """The bytes of a flatbuffer, and the number of bytes and tables that may still be read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._bytes_left = REREAD * len(content) + 4096
        self._tables_left = MAX_TABLES

    def root(self, identifier: bytes) -> Table:
        """The outermost table. Raises ModelError when the file does not start with ``identifier``."""
        if len(self.content) < 8 or self.content[4:8] != identifier:
            raise ModelError(f"not a flatbuffer with identifier {identifier.decode()!r}")
        return Table(self, self.follow(0))

    def unpack(self, kind: struct.Struct, position: int) -> Any:
        """One scalar at ``position``. Raises ModelError outside the file."""
        if not 0 <= position <= len(self.content) - kind.size:
            raise ModelError(f"the file ends before byte {position + kind.size}, which it refers to")
        return kind.unpack_from(self.content, position)[0]

    def follow(self, position: int) -> int:
        """The position that the offset at ``position`` leads to."""
        return position + int(self.unpack(_UINT32, position))

    def vector(self, position: int, item_size: int) -> tuple[int, int]:
        """First byte and length in items of the vector at ``position``, which lies in the file."""
        length = int(self.unpack(_UINT32, position))
        if length * item_size > len(self.content) - position - 4:
            raise ModelError(f"a vector of {length} items at byte {position} runs past the end of the file")
        return position + 4, length

    def spend(self, size: int) -> None:
        """Counts bytes that are about to be copied out of the file."""
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise ModelError("the file refers to the same bytes over and over")

    def spend_table(self) -> None:
        """Counts a table that is about to be read."""
        self._tables_left -= 1
        if self._tables_left < 0:
            raise ModelError(f"the file has more than {MAX_TABLES} tables")


class Table:
    """One table: fields by position; an absent field has the default the caller gives."""

    def __init__(self, document: Document, position: int) -> None:
        document.spend_table()
        self._document, self._position = document, position
        vtable = position - int(document.unpack(_INT32, position))
        size = int(document.unpack(_UINT16, vtable))
        if size < 4 or size % 2 or vtable + size > len(document.content):
            raise ModelError(f"the table at byte {position} has a broken list of fields")
        self._offsets = struct.unpack_from(f"<{size // 2 - 2}H", document.content, vtable + 4)

    def _field(self, slot: int) -> int | None:
        offset = self._offsets[slot] if slot < len(self._offsets) else 0
        return self._position + offset if offset else None

    def present(self) -> list[int]:
        """Positions of the fields the table stores."""
        return [slot for slot, offset in enumerate(self._offsets) if offset]

    def scalar(self, slot: int, code: str, default: Any) -> Any:
        """A number; ``code`` is its ``struct`` letter."""
        position = self._field(slot)
        return default if position is None else self._document.unpack(struct.Struct("<" + code), position)

    def integer(self, slot: int, code: str = "i", default: int = 0) -> int:
        """A whole number; ``code`` is its ``struct`` letter."""
        return int(self.scalar(slot, code, default))

    def table(self, slot: int) -> Table | None:
        """A table that a field refers to."""
        position = self._field(slot)
        return None if position is None else Table(self._document, self._document.follow(position))

    def vector(self, slot: int, dtype: str) -> Array | None:
        """A vector of numbers, as a view of the file. It may be unaligned."""
        position = self._field(slot)
        if position is None:
            return None
        kind = np.dtype(dtype)
        first, length = self._document.vector(self._document.follow(position), kind.itemsize)
        return np.frombuffer(self._document.content, kind, length, first)

    def integers(self, slot: int, dtype: str = "<i4") -> tuple[int, ...] | None:
        """A vector of whole numbers, copied."""
        values = self.vector(slot, dtype)
        if values is None:
            return None
        self._document.spend(values.nbytes)
        return tuple(values.tolist())

    def data(self, slot: int) -> bytes | None:
        """A vector of bytes, copied."""
        values = self.vector(slot, "u1")
        if values is None:
            return None
        self._document.spend(values.nbytes)
        return values.tobytes()

    def blobs(self, slot: int) -> list[bytes]:
        """A vector of strings, as bytes, copied; empty when absent."""
        position = self._field(slot)
        if position is None:
            return []
        first, length = self._document.vector(self._document.follow(position), 4)
        found = []
        for index in range(length):
            self._document.spend_table()
            start, size = self._document.vector(self._document.follow(first + 4 * index), 1)
            self._document.spend(size)
            found.append(self._document.content[start : start + size])
        return found

    def text(self, slot: int) -> str:
        """A string, "" when absent; bytes that are not UTF-8 are written as escapes."""
        return (self.data(slot) or b"").decode("utf-8", "backslashreplace")

    def tables(self, slot: int) -> Tables:
        """A vector of tables, empty when absent."""
        position = self._field(slot)
        if position is None:
            return Tables(self._document, 0, 0)
        return Tables(self._document, *self._document.vector(self._document.follow(position), 4))


class Tables:
    """A vector of tables, each checked when it is asked for."""

    def __init__(self, document: Document, first: int, length: int) -> None:
        self._document, self._first, self._length = document, first, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Table]:
        return (self[index] for index in range(self._length))

    def __getitem__(self, index: int) -> Table:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return Table(self._document, self._document.follow(self._first + 4 * index))
