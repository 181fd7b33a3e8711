"""What a model file lists, for files that no graph can be made of: operations and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_TEXT = 120
"""Characters of a name or attribute that are kept."""


@dataclass(frozen=True)
class Edge:
    """One tensor: its name, its element type in words, its shape (-1 where unknown, None without a rank),
    and the bytes the file stores for it."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    stored: int = 0


@dataclass(frozen=True)
class Operation:
    """One layer: its op, its attributes as texts, and its tensors."""

    index: int
    op: str
    version: int
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outline:
    """A file's inputs, outputs and operations, none of which has been checked."""

    format: str
    description: str
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    operations: tuple[Operation, ...]


def printable(text: str | bytes) -> str:
    """A name from an untrusted file, as one short line of text."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    return text if text.isprintable() else ascii(text)[1:-1]
