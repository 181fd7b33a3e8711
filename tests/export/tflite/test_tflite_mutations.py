"""Mutated files end in a graph or in one clear line: no traceback, no hang, no huge allocation."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable

import flatbuffers
import pytest

from karat24.export.tflite import flatbuffer, read_tflite, write_tflite
from karat24.export.tflite.flatbuffer import MAX_TABLES
from karat24.export.tflite.schema import IDENTIFIER, SCHEMA_VERSION, ModelField, OperatorField, SubGraphField
from karat24.refimpl.errors import KaratError, ModelError
from karat24.refimpl.graph import Graph
from tests.shared_models import MODELS
from tests.support.byte_mutations import (
    KINDS,
    flip_bit,
)
from tests.support.tflite_samples import every_feature

MUTATIONS = 8000
SMALL_MODELS = (
    "coral/model_invoking_error.tflite",
    "litert/single_add_default_a8w8_recipe_quantized.tflite",
    "tinymaix/mnist_arduino_q.tflite",
    "cfu/model_magic_wand.tflite",
)


def sound_files() -> list[bytes]:
    """A written model of every feature, and small public ones where they are."""
    public = [path.read_bytes() for name in SMALL_MODELS if (path := MODELS / name).is_file()]
    return [write_tflite(every_feature()), *public]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_mutated_files(kind: Callable[[bytearray, random.Random], None]) -> None:
    files, rng, outcomes = sound_files(), random.Random(kind.__name__), Counter[str]()
    for number in range(MUTATIONS // len(KINDS)):
        data = bytearray(files[number % len(files)])
        kind(data, rng)
        try:
            graph = read_tflite(bytes(data))
        except KaratError as error:
            outcomes["refused"] += 1
            message = str(error)
            assert message.startswith("model in memory: ")
            assert message.isprintable()
        else:
            outcomes["read"] += 1
            assert isinstance(graph, Graph)
    assert outcomes["refused"] > 10, outcomes


def test_what_is_read_from_a_mutated_file_can_be_written() -> None:
    """A graph is a graph, whatever file it came from."""
    rng, written = random.Random(3), 0
    content = write_tflite(every_feature())
    for _ in range(1000):
        data = bytearray(content)
        flip_bit(data, rng)
        try:
            graph = read_tflite(bytes(data))
            again = write_tflite(graph)
        except KaratError:
            continue
        assert read_tflite(again) == graph
        written += 1
    assert written > 100


@pytest.mark.parametrize(
    "data",
    [b"", b"TFL3", b"\0" * 7, b"\0" * 64, b"\x1c\0\0\0TFL3", b"\x08\0\0\0TFL3\0\0\0\0", b"PK\x03\x04" * 9],
)
def test_files_that_are_no_flatbuffer(data: bytes) -> None:
    with pytest.raises(ModelError, match="model in memory"):
        read_tflite(data)


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFF, 0x40000000])
def test_vector_lengths_nobody_can_allocate(length: int) -> None:
    """Every length field in turn claims gigabytes; what is allocated stays in proportion to the file."""
    content = write_tflite(every_feature())
    tracemalloc.start()
    try:
        for position in range(0, len(content) - 4, 4):
            data = bytearray(content)
            data[position : position + 4] = struct.pack("<I", length)
            try:
                read_tflite(bytes(data))
            except KaratError:
                continue
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def one_subgraph(builder: flatbuffers.Builder, slot: int, vector: int, codes: int | None = None) -> bytes:
    """A model whose only subgraph holds ``vector`` in field ``slot`` and nothing else."""
    builder.StartObject(len(SubGraphField))
    builder.PrependUOffsetTRelativeSlot(slot, vector, 0)
    subgraphs = repeated(builder, builder.EndObject(), 1)
    builder.StartObject(len(ModelField))
    builder.PrependUint32Slot(ModelField.VERSION, SCHEMA_VERSION, 0)
    if codes is not None:
        builder.PrependUOffsetTRelativeSlot(ModelField.OPERATOR_CODES, codes, 0)
    builder.PrependUOffsetTRelativeSlot(ModelField.SUBGRAPHS, subgraphs, 0)
    builder.Finish(builder.EndObject(), IDENTIFIER)
    return bytes(builder.Output())


def repeated(builder: flatbuffers.Builder, table: int, count: int) -> int:
    """A vector that refers ``count`` times to one and the same table."""
    builder.StartVector(4, count, 4)
    for _ in range(count):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def test_many_references_to_one_table_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bytes a reference must not buy a Python object each."""
    allowed = MAX_TABLES // 10
    monkeypatch.setattr(flatbuffer, "MAX_TABLES", allowed)
    builder = flatbuffers.Builder()
    builder.StartObject(1)
    tensors = repeated(builder, builder.EndObject(), 3 * allowed)
    content = one_subgraph(builder, SubGraphField.TENSORS, tensors)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="tables"):
            read_tflite(content)
        assert tracemalloc.get_traced_memory()[1] < 250 * allowed  # bytes
    finally:
        tracemalloc.stop()


def test_one_long_vector_referred_to_many_times() -> None:
    """A hundred layers that share one list of 100,000 inputs must not become 10 million integers."""
    builder = flatbuffers.Builder()
    builder.StartObject(1)
    codes = repeated(builder, builder.EndObject(), 1)
    builder.StartVector(4, 100_000, 4)
    for _ in range(100_000):
        builder.PrependInt32(0)
    inputs = builder.EndVector()
    builder.StartObject(OperatorField.INPUTS + 1)
    builder.PrependUOffsetTRelativeSlot(OperatorField.INPUTS, inputs, 0)
    operators = repeated(builder, builder.EndObject(), 100)
    content = one_subgraph(builder, SubGraphField.OPERATORS, operators, codes)
    with pytest.raises(ModelError, match="over and over"):
        read_tflite(content)
