"""Reading the graph that ONNX Runtime writes before it runs a model.

A default session optimizes at ORT_ENABLE_ALL, whose last step changes layouts: an
integer convolution becomes ``com.microsoft:QLinearConv`` on channels-last data between two Transposes,
a float one works in blocks of channels (``com.microsoft.nchwc``). None of that changes which layers are
integer, and an integer layer gives equal bits in every layout, so layers are read at
ORT_ENABLE_EXTENDED, the level before, whose edges mean what the file's do. This is checked: when values are
captured, the outputs of the graph that shows them are compared with those of the unchanged file, in the
session asked for. Float convolutions in blocks of channels add in another order; there the comparison fails,
and values are captured from the graph of the last level, by the names of the edges both graphs have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from karat24.export.onnx import read_onnx
from karat24.export.onnx.numbering import numbered_like
from karat24.export.onnx.package import import_onnx
from karat24.export.onnx.schema import STANDARD_DOMAINS, TYPE_CODES
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Graph, Tensor

ELEMENT_TYPES: Mapping[str, str] = MappingProxyType({"float": "float32", "double": "float64"})
"""ONNX Runtime's names of element types where they are not the graph's."""


@dataclass(frozen=True)
class Edge:
    """An edge as the runtime describes it: sizes it does not know are -1, an unknown rank is None."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    @classmethod
    def described(cls, name: str, kind: str, sizes: Iterable[object]) -> Edge:
        """From what a session says of an output: ``tensor(float)`` and a list of sizes or symbols."""
        word = kind.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in sizes)
        return cls(name, ELEMENT_TYPES.get(word, word), shape or None)

    def fits(self, tensor: Tensor) -> bool:
        """False where type or sizes show that this is not the tensor of that name."""
        sizes = self.shape or tensor.shape
        return (
            self.dtype == tensor.dtype
            and len(sizes) == len(tensor.shape)
            and all(size in (-1, real) for size, real in zip(sizes, tensor.shape, strict=True))
        )


def largest_file(file: Graph) -> int:
    """The most bytes of an optimized file. Folded constants are larger than the constants they follow from,
    but a hostile model can ask for constants of any size."""
    stored = sum(tensor.data.nbytes for tensor in file.tensors if tensor.data is not None)
    return 8 * stored + (64 << 20)


def with_constants(content: bytes, folder: Path) -> bytes:
    """The model with all constants inside; ``folder`` holds the files with those of the original model.

    Raises ModelError where they cannot be read or are too many for one file.
    """
    onnx = import_onnx()
    model = onnx.ModelProto.FromString(content)
    if not any(proto.data_location == onnx.TensorProto.EXTERNAL for proto in model.graph.initializer):
        return content
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(folder))
        return bytes(model.SerializeToString(deterministic=True))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"constants beside the model: {error}") from None


def with_every_edge(content: bytes) -> bytes:
    """The model with all outputs of its nodes among its own; the runtime computes their types."""
    onnx = import_onnx()
    model = onnx.ModelProto.FromString(content)
    present = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in present:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
                present.add(name)
    return bytes(model.SerializeToString(deterministic=True))


def read_optimized(content: bytes, edges: Iterable[Edge], file: Graph) -> Graph:
    """The graph of an optimized file, in the tensor indices of ``file``, the file it was made of.

    ``edges`` are the runtime's descriptions of outputs of nodes in domains other than the standard one; with
    them an op is read for which no shape rule exists. Raises as :func:`read_onnx` does, and ModelError when
    inputs or outputs are not those of ``file``.
    """
    graph = numbered_like(read_onnx(_declared(content, {edge.name: edge for edge in edges})), file)
    for kind, ours, theirs in (
        ("inputs", file.inputs, graph.inputs),
        ("outputs", file.outputs, graph.outputs),
    ):
        if set(theirs) != set(ours):
            raise ModelError(f"the optimized model has other {kind} than the file")
    return replace(graph, inputs=file.inputs, outputs=file.outputs, signatures=file.signatures)


def _declared(content: bytes, edges: Mapping[str, Edge]) -> bytes:
    onnx = import_onnx()
    model = onnx.ModelProto.FromString(content)
    known = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    for node in model.graph.node:
        if node.domain in STANDARD_DOMAINS:
            continue
        for name in node.output:
            edge = edges.get(name)
            if edge is not None and edge.shape is not None and edge.dtype in TYPE_CODES and name not in known:
                model.graph.value_info.append(_value_info(onnx, edge))
    return bytes(model.SerializeToString(deterministic=True))


def _value_info(onnx: Any, edge: Edge) -> Any:
    sizes = [f"size{axis}" if size == -1 else size for axis, size in enumerate(edge.shape or ())]
    return onnx.helper.make_tensor_value_info(edge.name, TYPE_CODES[edge.dtype], sizes)
