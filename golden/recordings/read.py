"""Recordings by tensor, from whichever form they have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from karat24.delegates.dumps import read_folder, read_npy_file, read_npz, tensor_of, tensors_of
from karat24.golden.recordings.readings import Recorded
from karat24.golden.recordings.single import RAW_SUFFIXES, TEXT_SUFFIXES, read_raw, read_text
from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array, Graph

Dump: TypeAlias = Path | Mapping[str, Array] | Mapping[int, Array]
"""A file or folder (see :func:`read_dump`), or arrays by tensor name or index."""


def read_dump(graph: Graph, dump: Dump, tensor: str | None = None) -> dict[int, Recorded]:
    """What was recorded, by tensor index.

    An ``.npz`` holds arrays by tensor index or name, a folder one ``.npy`` per tensor. An ``.npy``, raw bytes
    and C or console text hold one tensor: ``tensor`` (its name or index), else the one the file is named
    after, else the model's only output.

    Raises FeedError for a file that cannot be read or does not fit, UsageError where it is not clear which
    tensor a file holds.
    """
    if not isinstance(dump, Path):
        return _from_mapping(graph, dump)
    if not dump.exists():
        raise FeedError(f"{dump}: no such file or folder")
    suffix = dump.suffix.lower()
    if dump.is_dir() or suffix == ".npz":
        if tensor is not None:
            raise UsageError(
                f"{dump}: names its tensors itself; --recorded-tensor is for files of one tensor"
            )
        arrays = read_folder(graph, dump) if dump.is_dir() else read_npz(graph, dump)
        return {index: Recorded(array) for index, array in arrays.items()}
    if suffix not in {".npy", *RAW_SUFFIXES, *TEXT_SUFFIXES}:
        known = ", ".join(sorted({".npz", ".npy", *RAW_SUFFIXES, *TEXT_SUFFIXES}))
        raise UsageError(f"{dump}: not a recording; give a folder of .npy files or one of {known}")
    index = _only_tensor(graph, dump, tensor)
    meant = graph.tensors[index]
    if meant.is_opaque:
        raise FeedError(f"{dump}: {graph.label(index)} is of element type {meant.dtype}, which no array has")
    if suffix == ".npy":
        return {index: Recorded(read_npy_file(dump, math.prod(meant.shape)))}
    read = read_raw if suffix in RAW_SUFFIXES else read_text
    return {index: Recorded(read(dump, meant), formed=False)}


def _from_mapping(graph: Graph, dump: Mapping[str, Array] | Mapping[int, Array]) -> dict[int, Recorded]:
    arrays = {str(key): np.asarray(value) for key, value in dump.items()}
    for key, value in arrays.items():
        if value.dtype.kind not in "biuf":
            raise FeedError(f"the recording of {key!r} holds {value.dtype}; give an array of numbers")
    keys = tensors_of(graph, arrays, "the recording")
    return {index: Recorded(_native(arrays[key])) for index, key in keys.items()}


def _native(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _only_tensor(graph: Graph, path: Path, tensor: str | None) -> int:
    if tensor is not None:
        return tensor_of(graph, tensor, "--recorded-tensor")
    try:
        return tensor_of(graph, path.stem, str(path))
    except FeedError:
        if len(graph.outputs) == 1:
            return graph.outputs[0]
    names = ", ".join(graph.label(index) for index in graph.outputs)
    raise UsageError(f"{path}: name the tensor it holds with --recorded-tensor; outputs are {names}")
