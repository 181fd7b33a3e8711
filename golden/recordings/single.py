"""A dump of one tensor in a file without shape: raw bytes, or numbers as C code or a console prints them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from karat24.delegates.dumps import readable
from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import DTYPES, Array, Tensor

RAW_SUFFIXES = frozenset({".bin", ".raw", ".dat"})
TEXT_SUFFIXES = frozenset({".c", ".cc", ".cpp", ".h", ".hpp", ".inc", ".txt"})

LONGEST_NUMBER = 64
"""Characters that one value may take in a text, spaces and comments included."""

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|#[^\n]*", re.DOTALL)
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F]{1,16}|(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,4})?)"
    r"(?:[uU]?[lL]{0,2}|[fF])"
)
_BETWEEN = re.compile(r"[\s,;{}\[\]()|]+")
_DEFINITION = re.compile(r"=\s*\{")


def read_raw(path: Path, tensor: Tensor) -> Array:
    """The bytes of a file as a flat array of the tensor's element type, little-endian.

    Raises FeedError for a file of another length.
    """
    dtype = DTYPES[tensor.dtype].newbyteorder("<")
    wanted = math.prod(tensor.shape) * dtype.itemsize
    with readable(path), path.open("rb") as stream:
        content = stream.read(wanted + 1)
        if len(content) != wanted:
            raise FeedError(
                f"{path}: holds {path.stat().st_size} bytes; {tensor.name!r}, {tensor.dtype} {tensor.shape}, "
                f"has {wanted}"
            )
    return np.frombuffer(content, dtype).astype(DTYPES[tensor.dtype])


def read_text(path: Path, tensor: Tensor) -> Array:
    """The numbers of the one array in a C source, or of a text that is nothing but numbers: flat int64, or
    float64 where one has a fraction.

    Raises FeedError for another number of values, for more than one array, and for text between the numbers.
    """
    elements = math.prod(tensor.shape)
    longest = LONGEST_NUMBER * elements + (1 << 16)
    with readable(path), path.open("rb") as stream:
        content = stream.read(longest + 1)
    if len(content) > longest:
        raise FeedError(f"{path}: longer than {longest} bytes, and {tensor.name!r} has {elements} values")
    words = [word for word in _BETWEEN.split(_array_text(content, path)) if word]
    for word in words:
        if not _NUMBER.fullmatch(word):
            raise FeedError(f"{path}: {word[:40]!r} is not a number; give the values of one array alone")
    if len(words) != elements:
        raise FeedError(f"{path}: holds {len(words)} values; {tensor.name!r}, {tensor.shape}, has {elements}")
    numbers = [_number(word) for word in words]
    if any(isinstance(number, float) for number in numbers):
        return np.array(numbers, np.float64)
    if any(abs(number) >= 2**63 for number in numbers):
        raise FeedError(f"{path}: holds integers of more than 63 bits")
    return np.array(numbers, np.int64)


def _array_text(content: bytes, path: Path) -> str:
    """What stands between the braces of the array, or the whole text where there are none."""
    text = _COMMENT.sub(" ", content.decode("latin-1"))
    starts = list(_DEFINITION.finditer(text))
    if len(starts) > 1:
        raise FeedError(f"{path}: defines {len(starts)} arrays; give a file with one")
    if not starts:
        return text
    end = text.find(";", starts[0].end())
    return text[starts[0].end() : len(text) if end < 0 else end]


def _number(word: str) -> int | float:
    plain = word.lower()
    if "0x" in plain:
        return int(plain.rstrip("ul"), 16)
    plain = plain.rstrip("ulf")
    return float(plain) if "." in plain or "e" in plain or word[-1] in "fF" else int(plain)
