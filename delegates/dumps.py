"""Arrays of a model's tensors in files that others wrote: ``.npz`` archives and folders of ``.npy``.

No file is trusted: nothing is unpickled, and an array's header is held against the tensor it is for before
any of its values are read.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array, Graph

LONGEST_HEADER = 4096
"""Bytes of an ``.npy`` header. NumPy writes 118 for any array of numbers of up to ten dimensions."""

_UNREADABLE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError,
)  # fmt: skip
"""What damaged archives raise: RuntimeError for encrypted ones, NotImplementedError for unknown methods."""


def read_npy(stream: IO[bytes], what: str, elements: int) -> Array:
    """The array in an ``.npy`` stream, in native byte order.

    ``what`` names it in messages. Raises FeedError for anything but a whole array of ``elements`` numbers or
    truth values.
    """
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or len(start) < 8:
        raise FeedError(f"{what}: not an .npy array")
    length = int.from_bytes(stream.read(2 if start[6] == 1 else 4), "little")
    if length > LONGEST_HEADER:
        raise FeedError(f"{what}: a header of {length} bytes; an array of numbers needs less than 200")
    shape, by_columns, dtype = _header(stream.read(length).decode("latin-1"), what)
    held = math.prod(shape)
    if held != elements:
        raise FeedError(f"{what}: holds {_counted(held)} {shape}, the tensor {_counted(elements)}")
    content = stream.read(elements * dtype.itemsize)
    if len(content) != elements * dtype.itemsize:
        raise FeedError(f"{what}: the file ends after {len(content)} of {elements * dtype.itemsize} bytes")
    flat = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False)
    return flat.reshape(shape, order="F" if by_columns else "C")


_TYPE = re.compile(r"'descr': *'([^']{1,8})'")
_NUMBERS = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
_ORDER = re.compile(r"'fortran_order': *(True|False)")
_SHAPE = re.compile(r"'shape': *\(([\d, ]{0,200})\)")


def _header(text: str, what: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and element type; nothing in the header is evaluated.

    Source: NumPy 2.4, ``numpy/lib/_format_impl.py``: a Python dictionary of these three keys.
    """
    type_, order, shape = _TYPE.search(text), _ORDER.search(text), _SHAPE.search(text)
    if order is None or shape is None:
        raise FeedError(f"{what}: not a readable .npy header: {text[:80]!r}")
    if type_ is None or not _NUMBERS.fullmatch(type_[1]):
        named = "records" if type_ is None else f"element type {type_[1]}"
        raise FeedError(f"{what}: holds {named}; save it as an array of numbers of up to 64 bits")
    sizes = tuple(int(size) for size in shape[1].split(",") if size.strip())
    return sizes, order[1] == "True", np.dtype(type_[1])


def _counted(values: int) -> str:
    return f"{values} value{'' if values == 1 else 's'}"


def read_npy_file(path: Path, elements: int) -> Array:
    """The array in an ``.npy`` file. Raises FeedError as :func:`read_npy` does."""
    with readable(path), path.open("rb") as stream:
        return read_npy(stream, str(path), elements)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into a FeedError that names it."""
    try:
        yield
    except _UNREADABLE as error:
        raise FeedError(f"{path}: cannot be read: {error}") from None


def read_npz(graph: Graph, path: Path) -> dict[int, Array]:
    """Arrays of an ``.npz`` by tensor; keys are indices or names. Raises FeedError."""
    found: dict[int, Array] = {}
    with readable(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for index, key in tensors_of(graph, members, str(path)).items():
            with archive.open(members[key]) as stream:
                found[index] = read_npy(stream, f"{path}[{key!r}]", math.prod(graph.tensors[index].shape))
    return found


def read_folder(graph: Graph, folder: Path) -> dict[int, Array]:
    """Arrays of a folder by tensor, one ``.npy`` each; the files' names are indices or names of tensors, with
    ``_`` for characters other than letters, digits, ``.``, ``-`` and ``_``. Raises FeedError."""
    paths = {path.name.removesuffix(".npy"): path for path in sorted(folder.glob("*.npy"))}
    return {
        index: read_npy_file(paths[key], math.prod(graph.tensors[index].shape))
        for index, key in tensors_of(graph, paths, str(folder)).items()
    }


_NUMBER = re.compile(r"(?:tensor_?)?(\d{1,10})")
_NO_VALUES = re.compile(r"acc_\d+")
"""Accumulators, which ``karat24 run --trace --accumulators`` writes beside tensors."""


def tensors_of(graph: Graph, keys: Mapping[str, object], what: str) -> dict[int, str]:
    """Which tensor each key means. Raises FeedError for a key that means none or two of them."""
    found: dict[int, str] = {}
    for key in keys:
        if _NO_VALUES.fullmatch(key):
            continue
        index = tensor_of(graph, key, what)
        if index in found:
            raise FeedError(f"{what}: {found[index]!r} and {key!r} both mean {graph.label(index)}")
        found[index] = key
    if not found:
        raise FeedError(f"{what}: holds no array of a tensor")
    return found


def tensor_of(graph: Graph, key: str, what: str) -> int:
    """The tensor with this name, as it is or as a file's name, or with this index. Raises FeedError."""
    meant = {t.index for t in graph.tensors if key in (t.name, as_file_name(t.name), f"{t.name}#{t.index}")}
    number = _NUMBER.fullmatch(key)
    if number and int(number[1]) < len(graph.tensors):
        meant.add(int(number[1]))
    if len(meant) > 1:
        listed = ", ".join(graph.label(index) for index in sorted(meant))
        raise FeedError(f"{what}: {key!r} means {listed}; name it by the index alone")
    if not meant:
        close = get_close_matches(key, [t.name for t in graph.tensors], 1)
        advice = f"; the closest name is {close[0]!r}" if close else ""
        raise FeedError(
            f"{what}: {key!r} is not a tensor of the model, with indices from 0 to {len(graph.tensors) - 1}"
            f"{advice}"
        )
    return meant.pop()


def as_file_name(name: str) -> str:
    """A tensor's name as a file can have it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
