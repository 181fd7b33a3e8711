"""Writing a graph as a .tflite file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import flatbuffers
import numpy as np

from karat24.export.tflite.ops import Builtin, Option, builtin
from karat24.export.tflite.schema import (
    BUILTIN_CODES,
    CUSTOM,
    CUSTOM_OPTIONS,
    IDENTIFIER,
    OPTIONS_CODES,
    SCHEMA_VERSION,
    TYPE_CODES,
    BufferField,
    ModelField,
    OperatorCodeField,
    OperatorField,
    QuantizationField,
    SignatureField,
    SubGraphField,
    TensorField,
    TensorMapField,
)
from karat24.refimpl.cost import WEIGHTED
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Array, AttributeValue, Graph, Layer, LayerView, Signature, Tensor
from karat24.refimpl.spec.shared.variables import VARIABLE

ALIGNMENT = 16
"""Constant data starts at multiples of this many bytes, which LiteRT asks of ``Buffer.data``."""

MAX_BYTES = 2**31 - 2**20
"""A flatbuffer addresses 2 GiB; the difference to that is left for everything but the constants."""

PLACEHOLDER_CODE = 127
"""The value of the 8-bit operator code where the real code is larger and in a later field."""


def write_tflite(graph: Graph) -> bytes:
    """The graph as the bytes of a .tflite file; equal graphs give equal bytes.

    Op versions are written as the layers carry them (``with_lowest_versions``
    sets them). Raises UnsupportedOp for an op without a line in
    ``export/tflite/ops.py`` or a filter of 16 bits, and ModelError for an attribute its options lack.
    """
    if graph.format != "tflite":
        raise ModelError(f"a graph in {graph.format} layout cannot be written as .tflite")
    size = sum(tensor.data.nbytes for tensor in graph.tensors if tensor.data is not None)
    if size > MAX_BYTES:
        raise ModelError(f"{size} bytes of constants; a .tflite file holds at most {MAX_BYTES}")
    for view in graph.views():
        _check_filter(view)
    return _Writer(graph, size).content()


def _check_filter(view: LayerView) -> None:
    """Raises UnsupportedOp for an int16 filter: two layers of a .tflite file round before their sum."""
    weighted = WEIGHTED.get(view.op)
    filter_ = view.optional_input(weighted.filter) if weighted else None
    if filter_ is not None and filter_.is_constant and filter_.dtype == "int16":
        raise UnsupportedOp(
            f"{view}: a .tflite file cannot hold the int16 filter {filter_.name!r}; "
            "write ONNX of the flavour qoperator, or quantize with max_span=6"
        )


class _Writer:
    """Fills one flatbuffer from its end: tables and vectors are written before the offsets to them."""

    def __init__(self, graph: Graph, size: int) -> None:
        self._graph = graph
        # Large enough that the builder does not have to double and copy a large model.
        self._builder = flatbuffers.Builder(size + 2**16 + 2**10 * (len(graph.tensors) + len(graph.layers)))
        self._buffers: list[Array | None] = [None]
        self._buffer_of: dict[bytes, int] = {}
        self._codes: dict[tuple[str, int], int] = {}

    def content(self) -> bytes:
        builder, graph = self._builder, self._graph
        tensors = self._references([self._tensor(tensor) for tensor in graph.tensors])
        operators = self._references([self._operator(graph.view(layer)) for layer in graph.layers])
        name = self._text(graph.name)
        inputs, outputs = self._integers(graph.inputs), self._integers(graph.outputs)
        builder.StartObject(len(SubGraphField))
        self._refer(SubGraphField.TENSORS, tensors)
        self._refer(SubGraphField.INPUTS, inputs)
        self._refer(SubGraphField.OUTPUTS, outputs)
        self._refer(SubGraphField.OPERATORS, operators)
        self._refer(SubGraphField.NAME, name)
        subgraphs = self._references([builder.EndObject()])
        codes = self._references([self._operator_code(op, version) for op, version in self._codes])
        signatures = self._references([self._signature(signature) for signature in graph.signatures])
        description = self._text(graph.description)
        buffers = self._references([self._buffer(data) for data in self._buffers])
        builder.StartObject(ModelField.SIGNATURE_DEFS + 1)
        builder.PrependUint32Slot(ModelField.VERSION, SCHEMA_VERSION, 0)
        self._refer(ModelField.OPERATOR_CODES, codes)
        self._refer(ModelField.SUBGRAPHS, subgraphs)
        self._refer(ModelField.DESCRIPTION, description)
        self._refer(ModelField.BUFFERS, buffers)
        if graph.signatures:
            self._refer(ModelField.SIGNATURE_DEFS, signatures)
        builder.Finish(builder.EndObject(), file_identifier=IDENTIFIER)
        return bytes(memoryview(builder.Bytes)[builder.Head() :])

    def _tensor(self, tensor: Tensor) -> int:
        builder, dtype = self._builder, tensor.dtype.removeprefix(VARIABLE)
        if dtype not in TYPE_CODES:
            raise UnsupportedOp(
                f"tensor {tensor.index} ({tensor.name!r}) is of element type {tensor.dtype}, "
                "which is not written"
            )
        buffer = self._buffer_number(tensor.data)
        name, shape = self._text(tensor.name), self._integers(tensor.shape)
        signature = None if tensor.shape_signature is None else self._integers(tensor.shape_signature)
        quantization = self._quantization(tensor)
        builder.StartObject(TensorField.HAS_RANK + 1)
        self._refer(TensorField.SHAPE, shape)
        builder.PrependInt8Slot(TensorField.TYPE, TYPE_CODES[dtype], 0)
        builder.PrependUint32Slot(TensorField.BUFFER, buffer, 0)
        self._refer(TensorField.NAME, name)
        self._refer(TensorField.QUANTIZATION, quantization)
        builder.PrependBoolSlot(TensorField.IS_VARIABLE, dtype != tensor.dtype, False)
        self._refer(TensorField.SHAPE_SIGNATURE, signature)
        builder.PrependBoolSlot(TensorField.HAS_RANK, True, False)
        return int(builder.EndObject())

    def _buffer_number(self, data: Array | None) -> int:
        """Equal constants share a buffer; number 0 is the empty one."""
        if data is None or data.size == 0:
            return 0
        content = data.reshape(-1).view(np.uint8)
        key = hashlib.sha256(content.data).digest()
        if key not in self._buffer_of:
            self._buffer_of[key] = len(self._buffers)
            self._buffers.append(content)
        return self._buffer_of[key]

    def _quantization(self, tensor: Tensor) -> int | None:
        if tensor.quantization is None:
            return None
        builder = self._builder
        scale = self._vector(np.array(tensor.quantization.scale, np.float32))
        zero_point = self._vector(np.array(tensor.quantization.zero_point, np.int64))
        builder.StartObject(QuantizationField.QUANTIZED_DIMENSION + 1)
        self._refer(QuantizationField.SCALE, scale)
        self._refer(QuantizationField.ZERO_POINT, zero_point)
        builder.PrependInt32Slot(QuantizationField.QUANTIZED_DIMENSION, tensor.quantization.axis, 0)
        return int(builder.EndObject())

    def _operator(self, view: LayerView) -> int:
        builder, layer = self._builder, view.layer
        code = self._codes.setdefault((layer.op, layer.version), len(self._codes))
        inputs, outputs = self._integers(layer.inputs), self._integers(layer.outputs)
        inside = self._integers(layer.intermediates) if layer.intermediates else None
        kind, options, custom = 0, None, None
        if layer.op.startswith(CUSTOM):
            custom = self._custom_options(layer)
        else:
            line = builtin(view)
            if _has_options(line, layer):
                kind, options = OPTIONS_CODES[line.options], self._options(view, line)
        builder.StartObject(OperatorField.INTERMEDIATES + 1)
        builder.PrependUint32Slot(OperatorField.OPCODE_INDEX, code, 0)
        self._refer(OperatorField.INPUTS, inputs)
        self._refer(OperatorField.OUTPUTS, outputs)
        builder.PrependUint8Slot(OperatorField.BUILTIN_OPTIONS_TYPE, kind, 0)
        self._refer(OperatorField.BUILTIN_OPTIONS, options)
        self._refer(OperatorField.CUSTOM_OPTIONS, custom)
        self._refer(OperatorField.INTERMEDIATES, inside)
        return int(builder.EndObject())

    def _custom_options(self, layer: Layer) -> int | None:
        data = layer.attributes.get(CUSTOM_OPTIONS, b"")
        if set(layer.attributes) - {CUSTOM_OPTIONS} or not isinstance(data, bytes):
            raise ModelError(f"layer {layer.index} ({layer.op}) may only have the bytes {CUSTOM_OPTIONS!r}")
        return self._aligned(np.frombuffer(data, np.uint8)) if data else None

    def _options(self, view: LayerView, line: Builtin) -> int:
        builder = self._builder
        known = {field.name for field in line.fields if field is not None}
        for name in view.layer.attributes:
            if name not in known:
                raise ModelError(f"{view}: {line.options} has no field {name!r}; it has {sorted(known)}")
        values = [None if field is None else _option(view, field) for field in line.fields]
        vectors = {
            slot: self._vector(np.array(value, np.int32))
            for slot, value in enumerate(values)
            if isinstance(value, tuple)
        }
        builder.StartObject(len(line.fields))
        for slot, (field, value) in enumerate(zip(line.fields, values, strict=True)):
            if field is None:
                continue
            match field.kind:
                case "ints":
                    self._refer(slot, vectors.get(slot))
                case "int":
                    builder.PrependInt32Slot(slot, value, field.default)
                case "float":
                    builder.PrependFloat32Slot(slot, value, field.default)
                case "bool":
                    builder.PrependBoolSlot(slot, value, field.default)
                case "enum":
                    builder.PrependInt8Slot(slot, value, 0)
        return int(builder.EndObject())

    def _operator_code(self, op: str, version: int) -> int:
        builder = self._builder
        custom = self._text(op.removeprefix(CUSTOM)) if op.startswith(CUSTOM) else None
        code = BUILTIN_CODES["CUSTOM" if custom is not None else op]
        builder.StartObject(len(OperatorCodeField))
        deprecated = min(code, PLACEHOLDER_CODE)
        builder.PrependInt8Slot(OperatorCodeField.DEPRECATED_BUILTIN_CODE, deprecated, 0)
        self._refer(OperatorCodeField.CUSTOM_CODE, custom)
        builder.PrependInt32Slot(OperatorCodeField.VERSION, version, 1)
        builder.PrependInt32Slot(OperatorCodeField.BUILTIN_CODE, code, 0)
        return int(builder.EndObject())

    def _signature(self, signature: Signature) -> int:
        builder = self._builder
        key = self._text(signature.key)
        inputs, outputs = (
            self._references([self._tensor_map(name, index) for name, index in names.items()])
            for names in (signature.inputs, signature.outputs)
        )
        builder.StartObject(SignatureField.SUBGRAPH_INDEX + 1)
        self._refer(SignatureField.INPUTS, inputs)
        self._refer(SignatureField.OUTPUTS, outputs)
        self._refer(SignatureField.SIGNATURE_KEY, key)
        return int(builder.EndObject())

    def _tensor_map(self, name: str, index: int) -> int:
        text = self._text(name)
        self._builder.StartObject(len(TensorMapField))
        self._refer(TensorMapField.NAME, text)
        self._builder.PrependUint32Slot(TensorMapField.TENSOR_INDEX, index, 0)
        return int(self._builder.EndObject())

    def _buffer(self, data: Array | None) -> int:
        vector = None if data is None else self._aligned(data)
        self._builder.StartObject(len(BufferField))
        self._refer(BufferField.DATA, vector)
        return int(self._builder.EndObject())

    def _aligned(self, data: Array) -> int:
        """A vector of uint8 whose first byte lies on a multiple of ALIGNMENT."""
        builder = self._builder
        builder.StartVector(1, len(data), ALIGNMENT)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data.data
        return int(builder.EndVector())

    def _text(self, value: str) -> int:
        return int(self._builder.CreateString(value))

    def _integers(self, values: Sequence[int]) -> int:
        return self._vector(np.array(values, np.int32))

    def _vector(self, values: Array) -> int:
        return int(self._builder.CreateNumpyVector(values))

    def _references(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _refer(self, slot: int, offset: int | None) -> None:
        if offset is not None:
            self._builder.PrependUOffsetTRelativeSlot(slot, offset, 0)


def _has_options(line: Builtin, layer: Layer) -> bool:
    """No table where the op has none, or where it holds vectors only and the layer sets none."""
    vectors_only = bool(line.fields) and all(
        field is not None and field.kind == "ints" for field in line.fields
    )
    return bool(line.options) and not (vectors_only and not layer.attributes)


def _option(view: LayerView, field: Option) -> AttributeValue | None:
    """The field's value as stored (enums as codes), the schema's default where the layer has none."""
    if field.kind == "ints":
        return view.integers(field.name) if field.name in view.layer.attributes else None
    if field.name not in view.layer.attributes:
        if field.kind == "enum":
            return next(code for code, name in field.names.items() if name == field.default)
        return field.default
    match field.kind:
        case "int":
            value = view.integer(field.name)
            if not -(2**31) <= value < 2**31:
                raise ModelError(f"{view}: attribute {field.name!r} is {value}, which is not an int32")
            return value
        case "float":
            return view.real(field.name)
        case "bool":
            return view.flag(field.name)
    word = view.text(field.name)
    for code, name in field.names.items():
        if name == word:
            return code
    raise ModelError(
        f"{view}: attribute {field.name!r} is {word!r}; the schema has {sorted(field.names.values())}"
    )
