"""Reading a .tflite file, valid or not, as a graph."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from karat24.export.tflite.calls import Call, calls
from karat24.export.tflite.flatbuffer import Document, Table, Tables
from karat24.export.tflite.read_operator import code_of, options_of
from karat24.export.tflite.schema import (
    CUSTOM,
    CUSTOM_OPTIONS,
    IDENTIFIER,
    SCHEMA_VERSION,
    TYPE_NAMES,
    BufferField,
    ModelField,
    OperatorField,
    QuantizationField,
    SignatureField,
    SubGraphField,
    TensorField,
    TensorMapField,
)
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import (
    DTYPES,
    OPAQUE_TYPES,
    Array,
    AttributeValue,
    Graph,
    Layer,
    Quantization,
    Signature,
    Tensor,
)
from karat24.refimpl.settling import settled

MAX_RANK = 32
"""NumPy 1.26's limit; TFLite's kernels end at 8."""


class Subgraph(NamedTuple):
    """One of a file's graphs: its number, its name, and the signatures and layers that enter it."""

    number: int
    name: str
    signatures: tuple[str, ...]
    callers: tuple[Call, ...] = ()

    def called(self, subgraph: int | str | None) -> bool:
        """Whether ``choice`` is this graph's number, its name or one of its signatures."""
        return subgraph is not None and subgraph in (self.number, self.name, *self.signatures)


def read_tflite(source: str | Path | bytes, subgraph: int | str | None = None) -> Graph:
    """The graph in a .tflite file, given as a path or as its content.

    ``subgraph`` is a number, a name or the name of a signature. It may be left out where graph 0 is the only
    one that no layer enters (layers of control flow enter others).
    Shapes of layer outputs are those the layers compute (``karat24.refimpl.settling``).
    Tensors and layers keep the file's indices, options left out of the file have
    the schema's defaults. An op without a line in ``export/tflite/ops.py`` is kept without its options. A
    custom op is called ``CUSTOM:<name>``, an op newer than the schema ``BUILTIN:<code>``. Tensors that are
    sparse, variables, quantized by blocks or kept in another file have an opaque element type that says so.
    Metadata, the ranges that some converters store beside scales, and signatures over tensors that are not
    graph inputs or outputs are not part of the graph.

    Raises UsageError when the file cannot be opened or does not have that subgraph, and ModelError or
    UnsupportedOp, naming the file, when it is malformed or holds what a graph
    cannot: unknown sizes, element types without a name.
    """
    label, reader = _opened(source)
    try:
        return settled(reader.graph(reader.chosen(subgraph)))
    except (ModelError, UsageError) as error:
        raise type(error)(f"{label}: {error}") from None


def tflite_subgraphs(source: str | Path | bytes) -> tuple[Subgraph, ...]:
    """The graphs of a .tflite file, each of which :func:`read_tflite` reads by its number.

    Raises UsageError when the file cannot be opened and ModelError when it is malformed.
    """
    label, reader = _opened(source)
    try:
        return reader.called_subgraphs()
    except ModelError as error:
        raise type(error)(f"{label}: {error}") from None


def _opened(source: str | Path | bytes) -> tuple[str, _Reader]:
    """The file's name, for messages, and its reader."""
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
        return label, _Reader(content)
    except ModelError as error:
        raise type(error)(f"{label}: {error}") from None


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._model = Document(content).root(IDENTIFIER)
        self._buffers = self._model.tables(ModelField.BUFFERS)
        self._arrays: dict[tuple[int, str], Array] = {}

        version = self._model.integer(ModelField.VERSION, "I")
        if version != SCHEMA_VERSION:
            raise ModelError(f"schema version {version}; only version {SCHEMA_VERSION} exists in the wild")
        self._subgraphs = self._model.tables(ModelField.SUBGRAPHS)
        if not len(self._subgraphs):
            raise ModelError("the file has no subgraph")

    def subgraphs(self) -> tuple[Subgraph, ...]:
        """All graphs of the file."""
        keys: list[list[str]] = [[] for _ in range(len(self._subgraphs))]
        for table in self._model.tables(ModelField.SIGNATURE_DEFS):
            key, index = table.text(SignatureField.SIGNATURE_KEY), self._entered(table)
            keys[index].append(key)
        return tuple(
            Subgraph(index, table.text(SubGraphField.NAME), tuple(keys[index]))
            for index, table in enumerate(self._subgraphs)
        )

    def called_subgraphs(self) -> tuple[Subgraph, ...]:
        """All graphs of the file, and the layers that enter them."""
        known = self.subgraphs()
        if len(known) == 1:
            return known
        found = tuple(calls(self._model))
        return tuple(
            graph._replace(callers=tuple(call for call in found if call.entered == graph.number))
            for graph in known
        )

    def _entered(self, signature: Table) -> int:
        index = signature.integer(SignatureField.SUBGRAPH_INDEX, "I")
        if index >= len(self._subgraphs):
            key = signature.text(SignatureField.SIGNATURE_KEY)
            raise ModelError(f"signature {key!r} is of subgraph {index}; the file has {len(self._subgraphs)}")
        return index

    def chosen(self, subgraph: int | str | None) -> int:
        """The number of the subgraph asked for. Raises UsageError where there is none, or more than one."""
        if len(self._subgraphs) == 1 and subgraph in (None, 0):
            return 0
        known = self.subgraphs()
        fitting = [graph.number for graph in known if graph.called(subgraph)]
        if subgraph is None:
            fitting = [graph.number for graph in known if graph.signatures] or [0]
        if len(fitting) == 1:
            return fitting[0]
        listed = ", ".join(
            f"{graph.number} ({', '.join(map(repr, graph.signatures or (graph.name,)))})" for graph in known
        )
        asked = "there are several" if subgraph is None else f"{subgraph!r} names {len(fitting)} of them"
        raise UsageError(
            f"choose one of the file's subgraphs by number, name or signature, {asked}: {listed}"
        )

    def graph(self, number: int) -> Graph:
        """Subgraph ``number``."""
        subgraph = self._subgraphs[number]
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
            self._signatures(number, inputs, outputs, len(tensors)),
            self._model.text(ModelField.DESCRIPTION),
        )

    def _signatures(
        self, number: int, inputs: tuple[int, ...], outputs: tuple[int, ...], tensor_count: int
    ) -> tuple[Signature, ...]:
        """The signatures of the subgraph over its inputs and outputs.

        One that names another tensor is left out: tools that insert tensors and do not
        renumber signatures leave such files, and runtimes run them.
        """
        ends = frozenset(inputs), frozenset(outputs)
        kept = []
        for table in self._model.tables(ModelField.SIGNATURE_DEFS):
            if self._entered(table) != number:
                continue
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
        if code not in TYPE_NAMES:
            raise UnsupportedOp(f"{where}: element type number {code} is newer than the installed schema")
        dtype = _storage(table) + TYPE_NAMES[code]
        opaque = dtype in OPAQUE_TYPES
        shape = table.integers(TensorField.SHAPE) or ()
        if len(shape) > MAX_RANK:
            raise ModelError(f"{where} has {len(shape)} dimensions; at most {MAX_RANK} are supported")
        if any(size < 0 for size in shape) or (0 in shape and index in valued):
            raise ModelError(
                f"{where}: shape {shape} has an unknown size; export the model with a fixed shape"
            )
        data = self._data(table.integer(TensorField.BUFFER, "I"), shape, dtype, where)
        if data is None and opaque and index not in valued and dtype.startswith(("variable", "external")):
            data = np.empty(0, np.uint8)  # the tensor has a value, but not in this file
        if data is None and 0 in shape and not opaque:
            data = np.zeros(shape, DTYPES[dtype])
        signature = table.integers(TensorField.SHAPE_SIGNATURE)
        if signature is not None and len(signature) > MAX_RANK:
            raise ModelError(f"{where}: its shape signature has {len(signature)} dimensions")
        return Tensor(
            index,
            name,
            shape,
            dtype,
            None if dtype.startswith("blockwise") else _quantization(table, where),
            data,
            signature if signature and signature != shape else None,
        )

    def _data(self, index: int, shape: tuple[int, ...], dtype: str, where: str) -> Array | None:
        """The constant values of a tensor; None where it has none: its buffer is empty or number 0."""
        if index == 0:
            return None
        if index >= len(self._buffers):
            raise ModelError(f"{where}: buffer {index}, but the file has {len(self._buffers)}")
        key = index, dtype
        if key not in self._arrays:
            raw = self._raw(self._buffers[index], where)
            if dtype in OPAQUE_TYPES:
                return raw if raw.size else None
            item = DTYPES[dtype].itemsize
            if len(raw) != math.prod(shape) * item and len(raw):
                raise ModelError(_does_not_fit(index, len(raw), shape, dtype, where))
            if dtype == "bool" and raw.max(initial=0) > 1:
                raise ModelError(f"{where}: buffer {index} holds bytes other than 0 and 1 for a bool tensor")
            values = raw.view(DTYPES[dtype].newbyteorder("<")).astype(DTYPES[dtype], copy=False)
            # A file may have unaligned buffers; kernels need aligned arrays.
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
        codes = [code_of(table) for table in self._model.tables(ModelField.OPERATOR_CODES)]
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
                else options_of(table, code.op, where)
            )
            inputs, outputs = _indices(table, OperatorField.INPUTS), _indices(table, OperatorField.OUTPUTS)
            inside = _indices(table, OperatorField.INTERMEDIATES)
            layers.append(Layer(index, code.op, inputs, outputs, attributes, code.version, inside))
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


def _storage(tensor: Table) -> str:
    """The prefix of an opaque element type: how its values are stored; "" where the buffer holds them."""
    quantization = tensor.table(TensorField.QUANTIZATION)
    if TensorField.SPARSITY in tensor.present():
        return "sparse "
    if quantization is not None and quantization.integer(QuantizationField.DETAILS_TYPE, "B"):
        return "blockwise "
    if tensor.integer(TensorField.IS_VARIABLE, "B"):
        return "variable "
    return "external " if tensor.integer(TensorField.EXTERNAL_BUFFER, "I") else ""


def _quantization(tensor: Table, where: str) -> Quantization | None:
    table = tensor.table(TensorField.QUANTIZATION)
    if table is None:
        return None
    scale = table.vector(QuantizationField.SCALE, "<f4")
    if scale is None or not scale.size:
        return None
    zero_point = table.integers(QuantizationField.ZERO_POINT, "<i8") or (0,) * scale.size
    axis = table.integer(QuantizationField.QUANTIZED_DIMENSION)
    try:
        return Quantization(tuple(scale.tolist()), zero_point, axis)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


def _signature(table: Table) -> Signature:
    key = table.text(SignatureField.SIGNATURE_KEY)
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
