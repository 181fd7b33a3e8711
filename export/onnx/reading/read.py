"""Reading .onnx files into graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from karat24.export.onnx.package import import_onnx
from karat24.export.onnx.reading.constants import array_of, element_type
from karat24.export.onnx.reading.messages import (
    Declared,
    attributes_of,
    check_texts,
    declared_of,
    outputs_of,
    where_of,
)
from karat24.export.onnx.reading.parameters import input_quantizations, output_quantization
from karat24.export.onnx.reading.quant_nodes import with_pairs
from karat24.export.onnx.reading.shapes import fold, infer
from karat24.export.onnx.reading.shapes_types import Type
from karat24.export.onnx.schema import (
    IR_VERSIONS,
    MAX_BYTES,
    MAX_RANK,
    STANDARD_DOMAINS,
    op_name,
)
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import (
    OPAQUE_TYPES,
    Array,
    Graph,
    Layer,
    LayerView,
    Quantization,
    Signature,
    Tensor,
)
from karat24.refimpl.spec.onnx.versions import OPSETS, why_unknown


def read_onnx(source: str | Path | bytes) -> Graph:
    """The graph in an .onnx file, given as a path or as its content.

    Tensors are the graph's inputs, then its constants (initializers, then the values of Constant nodes,
    which are not layers), then the outputs of each node, in the file's order, with the file's names and
    layouts. A layer's op is its op type, or ``domain:type`` in domains other than the standard one; its
    version is that of its domain's operator set; its attributes are those the file stores. Scales and
    zero points are constants, as in the file, and also :attr:`Tensor.quantization`
    (``parameters.py``). Names of nodes, metadata and annotations are not part of the graph.

    ``Quant`` of Brevitas, FINN and QONNX is read as a pair of standard nodes (``quant_nodes.py``).

    Shapes are computed from those of the inputs (``shapes.py``). A batch of unknown size (the first axis, or
    an axis with a name of a batch) is read as a batch of one, with -1 in ``shape_signature``. Values in other
    files are only read from inside the folder of the model.

    Raises UsageError when the file cannot be opened or the onnx package is missing. Raises ModelError, which
    names the file, when it is malformed, and UnsupportedOp when it holds what a graph cannot: control flow,
    functions, sparse tensors, unknown sizes, operator sets other than 9 to 28. An op in a version that is
    not implemented (``refimpl/spec/onnx/versions.py``) is read where the file declares its shape, and
    refused when it is to run.
    """
    onnx = import_onnx()
    from google.protobuf.message import DecodeError

    if isinstance(source, bytes):
        label, content, folder = "model in memory", source, None
    else:
        label, folder = str(source), Path(source).parent
        content = _content(Path(source))
    try:
        if len(content) > MAX_BYTES:
            raise ModelError(f"{len(content)} bytes; an ONNX file has at most {MAX_BYTES}")
        model = onnx.ModelProto.FromString(content)
        check_texts(model)
        return _Reader(with_pairs(model, folder), folder).graph()
    except DecodeError:
        raise ModelError(f"{label}: not an ONNX file, or a damaged one") from None
    except UnicodeDecodeError:
        raise ModelError(f"{label}: a textual attribute is not UTF-8; the file is damaged") from None
    except ModelError as error:
        # Names in a damaged file can be as long as the file.
        raise type(error)(f"{label}: {str(error)[:MAX_MESSAGE]}") from None


BATCH_NAMES = frozenset({"b", "batch", "batch_size", "batchsize", "bs", "n"})
"""Names that exporters give to the size of the batch, which is read as 1 on any axis."""

MAX_MESSAGE = 1000
"""The most characters of a message; the rest is cut off."""


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: more than {MAX_BYTES} bytes; keep the constants in files beside it")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path}: cannot be read ({reason})") from error


class _Reader:
    def __init__(self, model: Any, folder: Path | None) -> None:
        self._model, self._folder = model, folder
        self._tensors: list[Tensor] = []
        self._index: dict[str, int] = {}
        self._folded: dict[int, Array] = {}
        self._declared: dict[str, Declared] = {}

    def graph(self) -> Graph:
        graph = self._model.graph
        versions = self._versions()
        for kind, found in (
            ("functions of its own", self._model.functions),
            ("sparse constants", graph.sparse_initializer),
        ):
            if found:
                raise UnsupportedOp(f"the model has {len(found)} {kind}, which are not supported")
        self._declared = {
            value.name: declared_of(value) for value in (*graph.input, *graph.output, *graph.value_info)
        }
        stored = {proto.name for proto in graph.initializer}
        inputs = tuple(self._input(value) for value in graph.input if value.name not in stored)
        for proto in graph.initializer:
            where = f"constant {proto.name!r}"
            self._add_constant(proto.name, proto, where)
        nodes = []
        for position, node in enumerate(graph.node):
            where = where_of(position, node)
            if op_name(node.domain, node.op_type) == "Constant":
                (name,) = outputs_of(node, where)
                self._add_node(name, node, where)
            else:
                nodes.append((node, where))
        layers = tuple(
            self._layer(number, node, where, versions) for number, (node, where) in enumerate(nodes)
        )
        outputs = tuple(self._output(value.name) for value in graph.output)
        return Graph(
            self._with_input_parameters(layers),
            layers,
            inputs,
            outputs,
            graph.name,
            "onnx",
            (self._signature(inputs, outputs),),
            self._model.doc_string,
        )

    def _versions(self) -> dict[str, int]:
        """Operator set version by domain, "" being the standard one."""
        installed = int(import_onnx().IR_VERSION)
        if self._model.ir_version not in IR_VERSIONS:
            raise UnsupportedOp(
                f"format version {self._model.ir_version}; "
                f"{IR_VERSIONS[0]} to {IR_VERSIONS[-1]} are supported"
            )
        if self._model.ir_version > installed:
            raise UnsupportedOp(
                f"format version {self._model.ir_version}; the installed onnx package knows those up to "
                f"{installed} and would lose what is newer: pip install -U onnx"
            )
        versions: dict[str, int] = {}
        for entry in self._model.opset_import:
            domain = "" if entry.domain in STANDARD_DOMAINS else entry.domain
            if versions.setdefault(domain, entry.version) != entry.version:
                raise ModelError(f"operator set {domain!r} in two versions")
            if not 0 < entry.version < 2**31:
                raise ModelError(f"version {entry.version} of operator set {domain!r}")
        if versions.get("") is None:
            raise ModelError("the model does not say which operator set it uses")
        if versions[""] not in OPSETS:
            raise UnsupportedOp(
                f"operator set {versions['']}; {OPSETS[0]} to {OPSETS[-1]} are supported: "
                "convert the model with onnx.version_converter"
            )
        return versions

    def _input(self, value: Any) -> int:
        declared = self._declared[value.name]
        where = f"input {value.name!r}"
        if declared.sizes is None or declared.dtype is None:
            raise UnsupportedOp(f"{where} has no shape; export the model with a fixed one")
        sizes = declared.sizes
        for axis, size in enumerate(sizes):
            symbol = value.type.tensor_type.shape.dim[axis].dim_param
            if size < 0 and axis > 0 and symbol.lower() not in BATCH_NAMES:
                raise UnsupportedOp(
                    f"{where}: only the batch may be of unknown size, not axis {axis} ({symbol or -1!r}) of "
                    f"{sizes}; fix it with python -m onnxruntime.tools.make_dynamic_shape_fixed"
                )
        if 0 in sizes:
            raise ModelError(f"{where}: shape {sizes} holds no values")
        shape = tuple(abs(size) for size in sizes)
        return self._add(value.name, Type(shape, declared.dtype), sizes if -1 in sizes else None)

    def _add(
        self,
        name: str,
        value: Array | Type,
        signature: tuple[int, ...] | None = None,
        quantization: Quantization | None = None,
    ) -> int:
        """Adds a tensor; returns its index. Raises ModelError when the name is taken already."""
        if not name:
            raise ModelError("a constant or input has no name")
        if name in self._index:
            raise ModelError(f"{name!r} gets a value twice; every name in an ONNX graph is written once")
        index = self._index[name] = len(self._tensors)
        data = None if isinstance(value, Type) else value
        dtype = value.dtype if isinstance(value, Type) else value.dtype.name
        self._tensors.append(Tensor(index, name, value.shape, dtype, quantization, data, signature))
        return index

    def _add_constant(self, name: str, proto: Any, where: str) -> None:
        """Adds a TensorProto's values as a tensor; the data of an opaque element type is its bytes."""
        values, dtype = array_of(proto, where, self._folder), element_type(proto.data_type, where)
        if dtype not in OPAQUE_TYPES:
            self._add(name, values)
            return
        index = self._add(name, Type(tuple(proto.dims), dtype))
        self._tensors[index] = dataclasses.replace(self._tensors[index], data=values)

    def _add_node(self, name: str, node: Any, where: str) -> None:
        """Adds the values of a Constant node as a tensor."""
        if len(node.attribute) == 1 and node.attribute[0].name == "value":
            self._add_constant(name, node.attribute[0].t, where)
        else:
            self._add(name, self._constant_value(node, where))

    def _constant_value(self, node: Any, where: str) -> Array:
        """The values of a Constant node that holds no tensor."""
        if len(node.attribute) != 1:
            raise ModelError(f"{where} has {len(node.attribute)} values, not one")
        attribute = node.attribute[0]
        match attribute.name:
            case "value_int":
                return np.array(attribute.i, np.int64)
            case "value_ints":
                return np.array(attribute.ints, np.int64)
            case "value_float":
                return np.array(attribute.f, np.float32)
            case "value_floats":
                return np.array(attribute.floats, np.float32)
        raise UnsupportedOp(f"{where}: a value of the kind {attribute.name!r} is not supported")

    def _layer(self, number: int, node: Any, where: str, versions: dict[str, int]) -> Layer:
        op = op_name(node.domain, node.op_type)
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        if domain not in versions:
            raise ModelError(f"{where} is of the operator set {domain!r}, which the model does not import")
        attributes = attributes_of(node, where)
        inputs = tuple(self._read(name, where) for name in node.input)
        names = outputs_of(node, where)
        # Types are not known yet; the rules that compute them need the names, for messages.
        untyped = tuple(Tensor(len(self._tensors) + i, name, (), "bool") for i, name in enumerate(names))
        layer = Layer(number, op, inputs, tuple(t.index for t in untyped), attributes, versions[domain])
        view = LayerView(layer, tuple(None if i == -1 else self._valued(i) for i in inputs), untyped)
        for name, type_ in zip(names, self._types(view, where), strict=True):
            self._check_declared(name, type_, where)
            self._add(name, type_, self._signature_of(name))
        outputs = tuple(self._tensors[index] for index in layer.outputs)
        view = dataclasses.replace(view, outputs=outputs)
        quantization = output_quantization(view)
        if quantization is not None:
            for tensor in outputs:
                if tensor.dtype == outputs[0].dtype:
                    self._tensors[tensor.index] = dataclasses.replace(tensor, quantization=quantization)
        values = fold(view)
        if values is not None and (values.shape, values.dtype.name) == (outputs[0].shape, outputs[0].dtype):
            self._folded[outputs[0].index] = values
        return layer

    def _read(self, name: str, where: str) -> int:
        if not name:
            return -1
        if name not in self._index:
            raise ModelError(f"{where} reads {name!r}, which nothing before it writes")
        return self._index[name]

    def _valued(self, index: int) -> Tensor:
        """The tensor, with its values as ``data`` where they follow from constants."""
        tensor = self._tensors[index]
        if index in self._folded:
            return dataclasses.replace(tensor, data=self._folded[index])
        return tensor

    def _types(self, view: LayerView, where: str) -> list[Type]:
        """The computed types of a node's outputs, or those the file declares where no rule is known."""
        types = infer(view)
        if types is None:
            types = []
            for tensor in view.outputs:
                declared = self._declared.get(tensor.name, Declared(None, None))
                if declared.sizes is None or declared.dtype is None:
                    reason = why_unknown(view) or f"no shape rule for {view.op}"
                    raise UnsupportedOp(
                        f"{where}: {reason}, and no shape in the file; run onnx.shape_inference over it"
                    )
                types.append(Type(tuple(1 if n == -1 else n for n in declared.sizes), declared.dtype))
        for type_ in types:
            if len(type_.shape) > MAX_RANK or any(size < 1 for size in type_.shape):
                raise ModelError(f"{where} gives values of shape {type_.shape[: MAX_RANK + 1]}")
        return types

    def _check_declared(self, name: str, found: Type, where: str) -> None:
        """Raises ModelError where the file declares another type for an output than the computed one."""
        declared = self._declared.get(name, Declared(None, None))
        agree = declared.dtype in (None, found.dtype) and (
            declared.sizes is None
            or (
                len(declared.sizes) == len(found.shape)
                and all(size in (-1, real) for size, real in zip(declared.sizes, found.shape, strict=True))
            )
        )
        if not agree:
            raise ModelError(
                f"{where} gives {found.dtype} of shape {found.shape}; "
                f"the file declares {declared.dtype} of shape {declared.sizes} for {name!r}"
            )

    def _signature_of(self, name: str) -> tuple[int, ...] | None:
        """The declared sizes if some of them are symbolic, else None."""
        sizes = self._declared.get(name, Declared(None, None)).sizes
        return sizes if sizes is not None and -1 in sizes else None

    def _output(self, name: str) -> int:
        if name not in self._index:
            raise ModelError(f"graph output {name!r} is written by no node")
        return self._index[name]

    def _with_input_parameters(self, layers: Iterable[Layer]) -> tuple[Tensor, ...]:
        """All tensors; those whose writers give no quantization parameters have their readers'."""
        read: dict[int, set[Quantization]] = {}
        for layer in layers:
            view = LayerView(
                layer,
                tuple(None if i == -1 else self._tensors[i] for i in layer.inputs),
                tuple(self._tensors[i] for i in layer.outputs),
            )
            for index, quantization in input_quantizations(view):
                read.setdefault(index, set()).add(quantization)
        tensors = list(self._tensors)
        for index, found in read.items():
            if tensors[index].quantization is None and len(found) == 1:
                tensors[index] = dataclasses.replace(tensors[index], quantization=found.pop())
        return tuple(tensors)

    def _signature(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Signature:
        return Signature(
            "serving_default",
            {self._tensors[index].name: index for index in inputs},
            {self._tensors[index].name: index for index in outputs},
        )
