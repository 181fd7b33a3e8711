"""Finished slices, one file each, so that an interruption costs at most the slice that was being written."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from karat24.refimpl.graph import Array


class SliceStore(Protocol):
    """Files of slices, by their number within the chosen ones. ``root`` is the folder they lie in or
    below."""

    root: Path

    def prepare(self) -> None:
        """Makes folders and writes what describes the whole; repeating it changes nothing."""

    def path(self, index: int) -> Path:
        """The file of a slice."""

    def content(self, values: Array) -> bytes:
        """The bytes of a slice's file."""

    def read(self, index: int) -> Array:
        """Slice ``[y, x]`` back from its file. Raises FeedError when it is damaged."""
