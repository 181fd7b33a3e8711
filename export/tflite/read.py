"""Reading a .tflite file, sound or not, as a graph."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from export.tflite.flatbuffer import Document, Table, Tables
from export.tflite.ops import BUILTINS, Builtin, Option
from export.tflite.schema import (
    BUILTIN_NAMES,
    CUSTOM,
    CUSTOM_OPTIONS,
    IDENTIFIER,
    OPTIONS_NAMES,
    SCHEMA_VERSION,
    TYPE_NAMES,
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
from refimpl.errors import ModelError, UnsupportedOp, UsageError
from refimpl.graph import DTYPES, Array, AttributeValue, Graph, Layer, Quantization, Signature, Tensor

MAX_RANK = 32
"""NumPy 1.26's limit; TFLite's kernels end at 8."""


def read_tflite(source: str | Path | bytes) -> Graph:
    """The graph in a .tflite file, given as a path or as its content.

    Tensors and layers keep the file's indices, options left out of the file have
    the schema's defaults. An op without a line in ``export/tflite/ops.py`` is kept
    without its options, a custom op is called ``CUSTOM:<name>``. Metadata, the ranges
    some converters leave next to scales, and signatures over tensors that are no graph
    inputs or outputs are not part of the graph.

    Raises UsageError when the file cannot be opened, and ModelError or
    UnsupportedOp, naming the file, when it is malformed or holds what a graph
    cannot: several subgraphs, unknown sizes, variables, sparse or packed tensors.
    """
    if isinstance(source, bytes):
        label, content = "model in memory", source
    else:
        label = str(source)
        try:
            content = Path(source).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"{label}: cannot be read ({reason})") from error
    try:
        return _Reader(content).graph()
    except ModelError as error:
        raise type(error)(f"{label}: {error}") from None


class _Code(NamedTuple):
    op: str
    version: int


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._model = Document(content).root(IDENTIFIER)
        self._buffers = self._model.tables(ModelField.BUFFERS)
        self._arrays: dict[tuple[int, str], Array] = {}

    def graph(self) -> Graph:
        version = self._model.integer(ModelField.VERSION, "I")
        if version != SCHEMA_VERSION:
            raise ModelError(f"schema version {version}; only version {SCHEMA_VERSION} exists in the wild")
        subgraphs = self._model.tables(ModelField.SUBGRAPHS)
        if len(subgraphs) != 1:
            raise UnsupportedOp(
                f"{len(subgraphs)} subgraphs; only models of one are supported (control flow has more)"
            )
        subgraph = subgraphs[0]
        inputs, outputs = _indices(subgraph, SubGraphField.INPUTS), _indices(subgraph, SubGraphField.OUTPUTS)
        layers = self._layers(subgraph.tables(SubGraphField.OPERATORS))
        valued = set(inputs).union(*(layer.outputs for layer in layers))
        tensors = tuple(
            self._tensor(index, table, valued)
            for index, table in enumerate(subgraph.tables(SubGraphField.TENSORS))
        )
        return Graph(
            tensors,
            layers,
            inputs,
            outputs,
            subgraph.text(SubGraphField.NAME),
            "tflite",
            self._signatures(inputs, outputs, len(tensors)),
            self._model.text(ModelField.DESCRIPTION),
        )

    def _signatures(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], tensor_count: int
    ) -> tuple[Signature, ...]:
        """The signatures over graph inputs and outputs.

        One that names another tensor is left out: tools that insert tensors and do not
        renumber signatures leave such files, and runtimes run them.
        """
        ends = frozenset(inputs), frozenset(outputs)
        kept = []
        for table in self._model.tables(ModelField.SIGNATURE_DEFS):
            signature = _signature(table)
            indices = set(signature.inputs.values()), set(signature.outputs.values())
            for index in indices[0] | indices[1]:
                if index >= tensor_count:
                    raise ModelError(
                        f"signature {signature.key!r} names tensor {index}; the graph has {tensor_count}"
                    )
            if indices[0] <= ends[0] and indices[1] <= ends[1]:
                kept.append(signature)
        return tuple(kept)

    def _tensor(self, index: int, table: Table, valued: set[int]) -> Tensor:
        name = table.text(TensorField.NAME)
        where = f"tensor {index} ({name!r})"
        code = table.integer(TensorField.TYPE, "b")
        dtype = TYPE_NAMES.get(code, f"number {code}")
        if dtype not in DTYPES:
            raise UnsupportedOp(f"{where}: element type {dtype} is not supported; supported are {[*DTYPES]}")
        for field, what in (
            (TensorField.SPARSITY, "is sparse"),
            (TensorField.VARIANT_TENSORS, "is a variant"),
        ):
            if field in table.present():
                raise UnsupportedOp(f"{where} {what}; only dense tensors are supported")
        if table.integer(TensorField.IS_VARIABLE, "B"):
            raise UnsupportedOp(
                f"{where} is a variable; models that keep state between runs are not supported"
            )
        if table.integer(TensorField.EXTERNAL_BUFFER, "I"):
            raise UnsupportedOp(f"{where} keeps its values in another file; merge them into the model")
        shape = table.integers(TensorField.SHAPE) or ()
        if len(shape) > MAX_RANK:
            raise ModelError(f"{where} has {len(shape)} dimensions; at most {MAX_RANK} make sense")
        if any(size < 0 for size in shape) or (0 in shape and index in valued):
            raise ModelError(
                f"{where}: shape {shape} has an unknown size; export the model with a fixed shape"
            )
        data = self._data(table.integer(TensorField.BUFFER, "I"), shape, dtype, where)
        if data is None and 0 in shape:
            data = np.zeros(shape, DTYPES[dtype])
        signature = table.integers(TensorField.SHAPE_SIGNATURE)
        if signature is not None and len(signature) > MAX_RANK:
            raise ModelError(f"{where}: its shape signature has {len(signature)} dimensions")
        return Tensor(
            index,
            name,
            shape,
            dtype,
            _quantization(table, where),
            data,
            signature if signature and signature != shape else None,
        )

    def _data(self, index: int, shape: tuple[int, ...], dtype: str, where: str) -> Array | None:
        """The constant values of a tensor; None where its buffer is empty or number 0, which means none."""
        if index == 0:
            return None
        if index >= len(self._buffers):
            raise ModelError(f"{where}: buffer {index}, but the file has {len(self._buffers)}")
        key = index, dtype
        if key not in self._arrays:
            raw = self._raw(self._buffers[index], where)
            item = DTYPES[dtype].itemsize
            if len(raw) != math.prod(shape) * item and len(raw):
                raise ModelError(_does_not_fit(index, len(raw), shape, dtype, where))
            if dtype == "bool" and raw.max(initial=0) > 1:
                raise ModelError(f"{where}: buffer {index} holds bytes other than 0 and 1 for a bool tensor")
            values = raw.view(DTYPES[dtype].newbyteorder("<")).astype(DTYPES[dtype], copy=False)
            # A file need not align its buffers; kernels rely on aligned arrays.
            self._arrays[key] = values if values.flags.aligned else values.copy()
        flat = self._arrays[key]
        if flat.size == 0:
            return None
        if flat.size != math.prod(shape):
            raise ModelError(_does_not_fit(index, flat.nbytes, shape, dtype, where))
        array = flat.reshape(shape)
        array.flags.writeable = False
        return array

    def _raw(self, buffer: Table, where: str) -> Array:
        """A buffer's bytes: inside the flatbuffer, or, in large files, behind it."""
        values = buffer.vector(BufferField.DATA, "u1")
        if values is not None and values.size:
            return values
        return self._behind(
            buffer.integer(BufferField.OFFSET, "Q"), buffer.integer(BufferField.SIZE, "Q"), where
        )

    def _behind(self, offset: int, size: int, where: str) -> Array:
        """Bytes the file stores outside the flatbuffer; offsets 0 and 1 mean there are none."""
        if offset <= 1 or size == 0:
            return np.empty(0, np.uint8)
        if offset + size > len(self._content):
            raise ModelError(
                f"{where}: bytes {offset} to {offset + size} of a file of {len(self._content)} bytes"
            )
        return np.frombuffer(self._content, np.uint8, size, offset)

    def _layers(self, operators: Tables) -> tuple[Layer, ...]:
        codes = [_code(table) for table in self._model.tables(ModelField.OPERATOR_CODES)]
        layers = []
        for index, table in enumerate(operators):
            position = table.integer(OperatorField.OPCODE_INDEX, "I")
            if position >= len(codes):
                raise ModelError(f"layer {index} names operator code {position}; the file has {len(codes)}")
            code = codes[position]
            where = f"layer {index} ({code.op})"
            attributes = (
                self._custom_options(table, where)
                if code.op.startswith(CUSTOM)
                else _options(table, BUILTINS.get(code.op), where)
            )
            inputs, outputs = _indices(table, OperatorField.INPUTS), _indices(table, OperatorField.OUTPUTS)
            layers.append(Layer(index, code.op, inputs, outputs, attributes, code.version))
        return tuple(layers)

    def _custom_options(self, table: Table, where: str) -> dict[str, AttributeValue]:
        data = table.data(OperatorField.CUSTOM_OPTIONS)
        if not data:
            offset = table.integer(OperatorField.LARGE_CUSTOM_OPTIONS_OFFSET, "Q")
            size = table.integer(OperatorField.LARGE_CUSTOM_OPTIONS_SIZE, "Q")
            data = self._behind(offset, size, where).tobytes()
        return {CUSTOM_OPTIONS: data} if data else {}


def _does_not_fit(index: int, size: int, shape: tuple[int, ...], dtype: str, where: str) -> str:
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    return f"{where}: buffer {index} holds {size} bytes; shape {shape} of {dtype} needs {needed}"


def _indices(table: Table, slot: int) -> tuple[int, ...]:
    return table.integers(slot) or ()


def _code(table: Table) -> _Code:
    """Codes up to 127 are in an 8-bit field, in older files only there; larger ones in a later field."""
    number = max(
        table.integer(OperatorCodeField.DEPRECATED_BUILTIN_CODE, "b"),
        table.integer(OperatorCodeField.BUILTIN_CODE),
    )
    name = BUILTIN_NAMES.get(number)
    if name is None:
        raise UnsupportedOp(f"operator code {number} is not one the installed ai-edge-litert knows")
    version = table.integer(OperatorCodeField.VERSION, default=1)
    if version < 1:
        raise ModelError(f"version {version} of op {name}; versions count from 1")
    if name == "CUSTOM":
        custom = table.text(OperatorCodeField.CUSTOM_CODE)
        if not custom.isprintable():
            raise ModelError(f"a custom op is called {custom!r}, which cannot be printed")
        name = CUSTOM + custom
    return _Code(name, version)


def _quantization(tensor: Table, where: str) -> Quantization | None:
    table = tensor.table(TensorField.QUANTIZATION)
    if table is None:
        return None
    if table.integer(QuantizationField.DETAILS_TYPE, "B"):
        raise UnsupportedOp(
            f"{where} has custom or blockwise quantization; only scales per tensor or axis are supported"
        )
    scale = table.vector(QuantizationField.SCALE, "<f4")
    if scale is None or not scale.size:
        return None
    zero_point = table.integers(QuantizationField.ZERO_POINT, "<i8") or (0,) * scale.size
    axis = table.integer(QuantizationField.QUANTIZED_DIMENSION)
    try:
        return Quantization(tuple(scale.tolist()), zero_point, axis)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


def _options(operator: Table, line: Builtin | None, where: str) -> dict[str, AttributeValue]:
    if line is None:
        return {}
    number = operator.integer(OperatorField.BUILTIN_OPTIONS_TYPE, "B")
    kind = OPTIONS_NAMES.get(number, f"number {number}")
    if kind not in ("NONE", line.options):
        raise ModelError(f"{where} has options of type {kind}, not {line.options or 'NONE'}")
    table = None if kind == "NONE" else operator.table(OperatorField.BUILTIN_OPTIONS)
    if table is not None:
        unknown = [slot for slot in table.present() if slot >= len(line.fields)]
        if unknown:
            raise UnsupportedOp(
                f"{where}: {line.options} stores fields {unknown}, which karat does not know: they come from a newer "
                "schema, or the file is damaged"
            )
    attributes: dict[str, AttributeValue] = {}
    for slot, option in enumerate(line.fields):
        if option is not None:
            value = None if table is None else _option(table, slot, option, where)
            if value is not None:
                attributes[option.name] = value
            elif option.kind != "ints":
                attributes[option.name] = option.default
    return attributes


def _option(table: Table, slot: int, option: Option, where: str) -> AttributeValue | None:
    """The value the table stores, None when it stores none."""
    if slot not in table.present():
        return None
    match option.kind:
        case "ints":
            return table.integers(slot)
        case "int":
            return table.integer(slot)
        case "bool":
            return bool(table.integer(slot, "B"))
        case "float":
            value = float(table.scalar(slot, "f", 0.0))
            if not math.isfinite(value):
                raise ModelError(f"{where}: option {option.name} is {value}")
            return value
    number = table.integer(slot, "b")
    if number not in option.names:
        raise ModelError(
            f"{where}: option {option.name} is number {number}; the schema has {dict(option.names)}"
        )
    return option.names[number]


def _signature(table: Table) -> Signature:
    key = table.text(SignatureField.SIGNATURE_KEY)
    if table.integer(SignatureField.SUBGRAPH_INDEX, "I"):
        raise ModelError(f"signature {key!r} is of a subgraph the file does not have")
    return Signature(
        key,
        _tensor_map(table.tables(SignatureField.INPUTS), key),
        _tensor_map(table.tables(SignatureField.OUTPUTS), key),
    )


def _tensor_map(tables: Tables, key: str) -> dict[str, int]:
    names: dict[str, int] = {}
    for table in tables:
        name = table.text(TensorMapField.NAME)
        if name in names:
            raise ModelError(f"signature {key!r} uses the name {name!r} twice")
        names[name] = table.integer(TensorMapField.TENSOR_INDEX, "I")
    return names
