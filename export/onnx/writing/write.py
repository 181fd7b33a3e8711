"""Writing graphs in ONNX layout as .onnx files."""

from __future__ import annotations

from typing import Any

import numpy as np

from karat24.export.onnx.layout import onnx_names
from karat24.export.onnx.package import import_onnx
from karat24.export.onnx.schema import MAX_BYTES, TYPE_CODES, split_op
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import AttributeValue, Graph, Layer, Tensor
from karat24.refimpl.spec.shared.packed import PACKED

LEAST_OPSET = 17
"""Version of the standard operator set of a file whose layers name none."""


def write_onnx(graph: Graph) -> bytes:
    """The graph as the bytes of a checked .onnx file; equal graphs give equal bytes.

    Constants become initializers, the types of inner edges are declared, and each node is named after
    its first output. A size of -1 in a ``shape_signature`` becomes a symbol, a graph without a name is
    called main. Tensors that nothing writes and no layer reads are left out.

    Raises ModelError when the graph is not in ONNX layout, mixes versions of an operator set, is too
    large for one file or fails the onnx package's checker; UsageError when that package is missing.
    """
    onnx = import_onnx()
    if graph.format != "onnx":
        raise ModelError(f"graph {graph.name!r} is in {graph.format} layout; quantize or convert it first")
    size = sum(tensor.data.nbytes for tensor in graph.tensors if tensor.data is not None)
    if size > MAX_BYTES // 2:
        raise ModelError(f"{size} bytes of constants; files of more than {MAX_BYTES // 2} are not written")
    model = _Writer(graph, onnx).model()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"graph {graph.name!r} is not valid ONNX: {reason}") from None
    return bytes(model.SerializeToString(deterministic=True))


class _Writer:
    def __init__(self, graph: Graph, onnx: Any) -> None:
        self._graph, self._onnx = graph, onnx
        self._names = onnx_names(graph)

    def model(self) -> Any:
        graph, helper = self._graph, self._onnx.helper
        ends = {*graph.inputs, *graph.outputs}
        written = [index for layer in graph.layers for index in layer.outputs]
        versions = [helper.make_opsetid(*pair) for pair in sorted(_versions(graph).items())]
        return helper.make_model(
            helper.make_graph(
                [self._node(layer) for layer in graph.layers],
                graph.name or "main",
                [self._value_info(index) for index in graph.inputs],
                [self._value_info(index) for index in graph.outputs],
                initializer=[self._initializer(t) for t in graph.tensors if t.data is not None],
                value_info=[self._value_info(index) for index in written if index not in ends],
            ),
            producer_name="karat24",
            ir_version=helper.find_min_ir_version_for(versions, ignore_unknown=True),
            opset_imports=versions,
            doc_string=graph.description,
        )

    def _node(self, layer: Layer) -> Any:
        domain, op_type = split_op(layer.op)
        node = self._onnx.helper.make_node(
            op_type,
            ["" if index == -1 else self._names[index] for index in layer.inputs],
            [self._names[index] for index in layer.outputs],
            name=self._names[layer.outputs[0]],
            domain=domain,
        )
        for name, value in layer.attributes.items():
            node.attribute.append(self._attribute(layer, name, value))
        return node

    def _attribute(self, layer: Layer, name: str, value: AttributeValue) -> Any:
        kinds = self._onnx.AttributeProto
        if isinstance(value, bytes):
            raise ModelError(
                f"layer {layer.index} ({layer.op}): ONNX has no attributes of bytes like {name!r}"
            )
        if isinstance(value, tuple):
            kind = kinds.FLOATS if any(isinstance(entry, float) for entry in value) else kinds.INTS
        else:
            kind = {str: kinds.STRING, float: kinds.FLOAT}.get(type(value), kinds.INT)
        return self._onnx.helper.make_attribute(name, value, attr_type=kind)

    def _value_info(self, index: int) -> Any:
        tensor = self._graph.tensors[index]
        sizes = [
            _symbol(axis) if size == -1 else size
            for axis, size in enumerate(tensor.shape_signature or tensor.shape)
        ]
        helper = self._onnx.helper
        return helper.make_tensor_value_info(self._names[index], TYPE_CODES[tensor.dtype], sizes)

    def _initializer(self, tensor: Tensor) -> Any:
        assert tensor.data is not None
        proto = self._onnx.TensorProto()
        proto.name = self._names[tensor.index]
        if tensor.is_opaque and tensor.dtype not in PACKED:
            raise UnsupportedOp(
                f"constant {tensor.name!r} is of element type {tensor.dtype}, which is not written"
            )
        proto.data_type = TYPE_CODES[tensor.dtype]
        proto.dims.extend(tensor.shape)
        proto.raw_data = (
            np.ascontiguousarray(tensor.data)
            .astype(tensor.data.dtype.newbyteorder("<"), copy=False)
            .tobytes()
        )
        return proto


def _symbol(axis: int) -> str:
    return "batch" if axis == 0 else f"size{axis}"


def _versions(graph: Graph) -> dict[str, int]:
    """The version of each domain's operator set; all layers of a domain must agree."""
    versions: dict[str, int] = {}
    for layer in graph.layers:
        domain, _ = split_op(layer.op)
        known = versions.setdefault(domain, layer.version)
        if known != layer.version:
            raise ModelError(
                f"layer {layer.index} ({layer.op}) is of version {layer.version}, "
                f"another of the same operator set of version {known}"
            )
    return {"": LEAST_OPSET, **versions}
