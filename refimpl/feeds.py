"""Arrays that are fed to a graph, checked against what its tensors need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import DTYPES, Array, Graph, Tensor

Feeds: TypeAlias = Mapping[str, Array] | Mapping[int, Array] | Sequence[Array]
"""Arrays by input name or tensor index, or in input order."""


def resolve_feeds(graph: Graph, feeds: Feeds) -> dict[int, Array]:
    """Feeds by tensor index, checked against the graph's inputs.

    Raises FeedError naming the input that is missing, unknown, or of another
    shape or dtype than the graph says.
    """
    fed: dict[int, Array] = {}
    # Lists and tuples are tested first: a class is compared faster than a protocol.
    if isinstance(feeds, (list, tuple)) or not isinstance(feeds, Mapping):
        if len(feeds) != len(graph.inputs):
            raise FeedError(f"{len(feeds)} arrays given, the model has {len(graph.inputs)} inputs")
        for place, index in enumerate(graph.inputs):
            fed[index] = _fitting(graph.tensors[index], feeds[place])
        return fed
    given = _by_index(graph, feeds)
    for index in graph.inputs:
        fed[index] = _fitting(graph.tensors[index], given.get(index))
    return fed


def _fitting(tensor: Tensor, value: Any, role: str = "input") -> Array:
    """The value as an array the kernels can read, if it is what the tensor needs."""
    array: Array | None = value if value is None or type(value) is np.ndarray else np.asarray(value)
    if tensor.is_opaque:
        raise FeedError(
            f"{role} {tensor.name!r} (tensor {tensor.index}) is of element type {tensor.dtype}, "
            "which no array has"
        )
    if array is None or array.dtype != DTYPES[tensor.dtype] or array.shape != tensor.shape:
        raise FeedError(f"{role} {tensor.name!r} (tensor {tensor.index}): {_misfit(tensor, array)}")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _misfit(tensor: Tensor, value: Array | None) -> str:
    """What is wrong with a value that is not what the tensor needs."""
    if value is None:
        return f"no value given; the model needs {tensor.dtype} {tensor.shape}"
    if value.dtype != DTYPES[tensor.dtype]:
        return f"got {value.dtype}, the model needs {tensor.dtype}"
    dynamic = tensor.shape_signature is not None and -1 in tensor.shape_signature
    hint = (
        f"; karat24.resized makes a graph of other sizes, the model says {tensor.shape_signature}"
        if dynamic
        else ""
    )
    return f"got shape {value.shape}, the model needs {tensor.shape}{hint}"


def _by_index(graph: Graph, feeds: Mapping[str, Array] | Mapping[int, Array]) -> dict[int, Array]:
    names = {graph.tensors[index].name: index for index in graph.inputs}
    by_index: dict[int, Array] = {}
    for key, value in feeds.items():
        index = key if isinstance(key, int) else names.get(key)
        if index not in graph.inputs:
            raise FeedError(f"the model has no input {key!r}; it has {', '.join(map(repr, names))}")
        by_index[index] = value
    return by_index


def resolve_given(graph: Graph, given: Mapping[int, Array], missing: Mapping[int, str]) -> dict[int, Array]:
    """Values given for what layers write, by tensor, checked where a layer the oracle computes reads them.

    ``missing`` are the layers the oracle lacks, each with the reason; all they write must be given. A runtime
    may write other shapes than the file declares for an op that only the runtime knows.
    Raises FeedError for a value that is not there, does not fit, or is of no tensor that a layer writes.
    """
    written = {index for layer in graph.layers for index in layer.outputs}
    for index in given:
        if index not in written:
            raise FeedError(f"a value is given for tensor {index}, which no layer writes")
    for layer, reason in missing.items():
        for index in graph.layers[layer].outputs:
            if index not in given:
                raise FeedError(f"no value given for {graph.label(index)}: {reason}")
    computed = [layer for layer in graph.layers if layer.index not in missing]
    touched = {index for layer in computed for index in (*layer.inputs, *layer.outputs)}
    return {
        index: _fitting(graph.tensors[index], value, "the value given for")
        if index in touched
        else np.asarray(value)
        for index, value in given.items()
    }
