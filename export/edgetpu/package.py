"""The package an Edge TPU custom op carries: executables, parameters, instructions, inputs and outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from karat24.export.edgetpu.schema import (
    DATA_TYPES,
    DESCRIPTION_NAMES,
    DMA_DESCRIPTOR,
    EXECUTABLE_TYPES,
    HINT_NAMES,
    IDENTIFIER,
    OUTPUT_LAYER,
    DmaDescriptorHintField,
    DmaHintField,
    DmaHintsField,
    ExecutableField,
    FieldOffsetField,
    InstructionBitstreamField,
    LayerField,
    MetaField,
    MultiExecutableField,
    NumericsField,
    OutputLayerField,
    OutputLayoutField,
    PackageField,
)
from karat24.export.tflite.flatbuffer import Document, Table
from karat24.refimpl.errors import ModelError, UnsupportedOp

MAX_EXECUTABLES = 16
"""libedgetpu accepts one executable, or a pair of one that caches parameters and one that executes."""


@dataclass(frozen=True)
class IoLayer:
    """An input or output of an executable.

    ``shape`` is ``(y, x, channel)``. ``zero_point`` is the unsigned one the device uses: an int8
    tensor's plus 128. ``tiles`` counts the on-chip memories an output is gathered from, 0 for inputs.
    """

    name: str
    shape: tuple[int, int, int]
    size_bytes: int
    dtype: str
    zero_point: int | None
    scale: float | None
    executions: int
    tiles: int


@dataclass(frozen=True)
class Executable:
    """One program for the device.

    ``instructions`` are its bitstreams, ``parameters`` the bytes it streams to the device or, for
    type ``PARAMETER_CACHING``, leaves there. ``relocations`` counts by kind the addresses the driver
    fills in; ``dma_bytes`` sums what is transferred by kind; ``dma_hints`` counts the hints.
    """

    version: int
    name: str
    type: str
    chip: str
    batch_size: int
    scratch_bytes: int
    narrow_memory_bytes_per_tile: int
    caching_token: int
    instructions: tuple[bytes, ...]
    parameters: bytes
    inputs: tuple[IoLayer, ...]
    outputs: tuple[IoLayer, ...]
    relocations: Mapping[str, int]
    dma_bytes: Mapping[str, int]
    dma_hints: Mapping[str, int]
    dma_fully_deterministic: bool
    estimated_cycles: int
    uses_dram: bool


@dataclass(frozen=True)
class Package:
    """What the compiler made of one run of operations."""

    min_runtime_version: int
    compiler_version: str
    model_identifier: str
    signature_bytes: int
    keypair_version: int
    virtual_chip_id: int
    executables: tuple[Executable, ...]

    @property
    def main(self) -> Executable:
        """The executable that computes; the other one of a pair only stores parameters on the device."""
        return next(e for e in self.executables if e.type != "PARAMETER_CACHING")

    @property
    def caching_tokens(self) -> frozenset[int]:
        """Equal for all models compiled together; 0 stands for none."""
        return frozenset(e.caching_token for e in self.executables)


def read_package(content: bytes) -> Package:
    """The package in ``content``.

    Raises ModelError when it is malformed, and UnsupportedOp for what this reader and libedgetpu's
    single-chip driver do not know: another type of executable, another pair, several chips.
    """
    table = Document(content).root(IDENTIFIER)
    serialized = table.data(PackageField.SERIALIZED_MULTI_EXECUTABLE)
    if serialized is None:
        raise ModelError("the package holds no executables")
    if len(table.tables(PackageField.MULTI_CHIP_PACKAGE)):
        raise UnsupportedOp("the package is for several chips; compile the model for one")
    document = Document(serialized)
    blobs = Table(document, document.follow(0)).blobs(MultiExecutableField.SERIALIZED_EXECUTABLES)
    if len(blobs) > MAX_EXECUTABLES:
        raise ModelError(f"the package holds {len(blobs)} executables; at most {MAX_EXECUTABLES} are read")
    executables = tuple(_executable(blob) for blob in blobs)
    kinds = sorted(executable.type for executable in executables)
    if kinds not in (["STAND_ALONE"], ["EXECUTION_ONLY"], ["EXECUTION_ONLY", "PARAMETER_CACHING"]):
        raise UnsupportedOp(f"executables of types {kinds}; the driver knows one, or one and its cache")
    return Package(
        table.integer(PackageField.MIN_RUNTIME_VERSION),
        table.text(PackageField.COMPILER_VERSION),
        table.text(PackageField.MODEL_IDENTIFIER),
        len(table.data(PackageField.SIGNATURE) or b""),
        table.integer(PackageField.KEYPAIR_VERSION),
        table.integer(PackageField.VIRTUAL_CHIP_ID),
        executables,
    )


def _executable(content: bytes) -> Executable:
    document = Document(content)
    table = Table(document, document.follow(0))
    number = table.integer(ExecutableField.TYPE, "h")
    if number not in EXECUTABLE_TYPES:
        raise UnsupportedOp(f"an executable of type number {number}; known are {dict(EXECUTABLE_TYPES)}")
    bitstreams = []
    relocations: Counter[str] = Counter()
    for bitstream in table.tables(ExecutableField.INSTRUCTION_BITSTREAMS):
        bitstreams.append(bitstream.data(InstructionBitstreamField.BITSTREAM) or b"")
        for place in bitstream.tables(InstructionBitstreamField.FIELD_OFFSETS):
            relocations[_meta(place.table(FieldOffsetField.META))] += 1
    moved, hints, deterministic = _dma(table.table(ExecutableField.DMA_HINTS))
    return Executable(
        version=table.integer(ExecutableField.VERSION),
        name=table.text(ExecutableField.NAME),
        type=EXECUTABLE_TYPES[number],
        chip=table.text(ExecutableField.CHIP),
        batch_size=table.integer(ExecutableField.BATCH_SIZE),
        scratch_bytes=table.integer(ExecutableField.SCRATCH_SIZE_BYTES),
        narrow_memory_bytes_per_tile=table.integer(ExecutableField.USED_NARROW_MEMORY_BYTES_PER_TILE),
        caching_token=table.integer(ExecutableField.PARAMETER_CACHING_TOKEN, "Q"),
        instructions=tuple(bitstreams),
        parameters=table.data(ExecutableField.PARAMETERS) or b"",
        inputs=tuple(_layer(item) for item in table.tables(ExecutableField.INPUT_LAYERS)),
        outputs=tuple(_layer(item) for item in table.tables(ExecutableField.OUTPUT_LAYERS)),
        relocations=MappingProxyType(dict(relocations)),
        dma_bytes=moved,
        dma_hints=hints,
        dma_fully_deterministic=deterministic,
        estimated_cycles=table.integer(ExecutableField.ESTIMATED_CYCLES_64BIT, "q")
        or table.integer(ExecutableField.ESTIMATED_CYCLES),
        uses_dram=bool(table.integer(ExecutableField.USE_TPU_DRAM_FOR_PARAMETERS, "B")),
    )


def _meta(table: Table | None) -> str:
    number = -1 if table is None else table.integer(MetaField.DESCRIPTION, "h")
    return DESCRIPTION_NAMES.get(number, f"number {number}")


def _dma(table: Table | None) -> tuple[Mapping[str, int], Mapping[str, int], bool]:
    """Bytes moved by kind, hints by kind, and whether the order of transfers is fixed."""
    moved: Counter[str] = Counter()
    hints: Counter[str] = Counter()
    if table is None:
        return MappingProxyType({}), MappingProxyType({}), False
    for hint in table.tables(DmaHintsField.HINTS):
        number = hint.integer(DmaHintField.ANY_HINT_TYPE, "B")
        hints[HINT_NAMES.get(number, f"number {number}")] += 1
        descriptor = hint.table(DmaHintField.ANY_HINT) if number == DMA_DESCRIPTOR else None
        if descriptor is not None:
            kind = _meta(descriptor.table(DmaDescriptorHintField.META))
            moved[kind] += descriptor.integer(DmaDescriptorHintField.SIZE_IN_BYTES)
    deterministic = bool(table.integer(DmaHintsField.FULLY_DETERMINISTIC, "B"))
    return MappingProxyType(dict(moved)), MappingProxyType(dict(hints)), deterministic


def _layer(table: Table) -> IoLayer:
    number = table.integer(LayerField.DATA_TYPE, "h")
    numerics = table.table(LayerField.NUMERICS)
    scale = (
        None if numerics is None else float(numerics.scalar(NumericsField.DEQUANTIZATION_FACTOR, "f", 0.0))
    )
    tiles = 0
    if table.integer(LayerField.ANY_LAYER_TYPE, "B") == OUTPUT_LAYER:
        output = table.table(LayerField.ANY_LAYER)
        layout = None if output is None else output.table(OutputLayerField.LAYOUT)
        offsets = (
            None if layout is None else layout.vector(OutputLayoutField.LINEARIZED_TILE_BYTE_OFFSET, "<i4")
        )
        tiles = 0 if offsets is None else offsets.size
    return IoLayer(
        table.text(LayerField.NAME),
        (table.integer(LayerField.Y_DIM), table.integer(LayerField.X_DIM), table.integer(LayerField.Z_DIM)),
        table.integer(LayerField.SIZE_BYTES),
        DATA_TYPES.get(number, f"number {number}"),
        None if numerics is None else numerics.integer(NumericsField.ZERO_POINT),
        scale,
        table.integer(LayerField.EXECUTION_COUNT_PER_INFERENCE, default=1),
        tiles,
    )
