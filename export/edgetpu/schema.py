"""Field positions of the Edge TPU's executable format, and its enums by name.

Positions follow the order of declaration in ``executable.fbs`` of
https://github.com/google-coral/libedgetpu (release Grouper), a FlatBuffers schema
with identifier ``DWN1``. A field the reader does not use has no line.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

CUSTOM_OP = "edgetpu-custom-op"
"""The custom op of a .tflite that stands for everything the compiler mapped."""

IDENTIFIER = b"DWN1"

PACKAGE_KEY = "4"
"""The key of the package in the custom op's FlexBuffer map."""

FURTHER_EXECUTABLES_KEY = "7"
"""The key of a vector of further executables; it is empty in every known file."""

OPTIONS: Mapping[str, str] = MappingProxyType({"1": "version", "5": "preference", "6": "chips"})
"""The other keys of that map, and what stands there."""


class PackageField(IntEnum):
    """Fields of ``table Package``."""

    MIN_RUNTIME_VERSION = 0
    SERIALIZED_MULTI_EXECUTABLE = 1
    SIGNATURE = 2
    KEYPAIR_VERSION = 3
    COMPILER_VERSION = 4
    VIRTUAL_CHIP_ID = 5
    MULTI_CHIP_PACKAGE = 6
    MODEL_IDENTIFIER = 7


class MultiExecutableField(IntEnum):
    """Fields of ``table MultiExecutable``."""

    SERIALIZED_EXECUTABLES = 0


class ExecutableField(IntEnum):
    """Fields of ``table Executable``."""

    VERSION = 0
    NAME = 1
    BATCH_SIZE = 3
    SCRATCH_SIZE_BYTES = 4
    INSTRUCTION_BITSTREAMS = 5
    PARAMETERS = 6
    DMA_HINTS = 7
    INPUT_LAYERS = 8
    OUTPUT_LAYERS = 9
    CHIP = 10
    ESTIMATED_CYCLES = 11
    USED_NARROW_MEMORY_BYTES_PER_TILE = 12
    TYPE = 13
    PARAMETER_CACHING_TOKEN = 14
    USE_TPU_DRAM_FOR_PARAMETERS = 15
    ESTIMATED_CYCLES_64BIT = 16


class InstructionBitstreamField(IntEnum):
    """Fields of ``table InstructionBitstream``."""

    BITSTREAM = 0
    FIELD_OFFSETS = 1


class FieldOffsetField(IntEnum):
    """Fields of ``table FieldOffset``: a place in a bitstream the driver writes an address to."""

    META = 0
    OFFSET_BIT = 1


class MetaField(IntEnum):
    """Fields of ``table Meta``: what an address or a transfer is of."""

    DESCRIPTION = 0
    BATCH = 1
    NAME = 2


class DmaHintsField(IntEnum):
    """Fields of ``table DmaHints``."""

    HINTS = 0
    FULLY_DETERMINISTIC = 1


class DmaHintField(IntEnum):
    """Fields of ``table DmaHint``: a union's kind and its table."""

    ANY_HINT_TYPE = 0
    ANY_HINT = 1


class DmaDescriptorHintField(IntEnum):
    """Fields of ``table DmaDescriptorHint``."""

    META = 0
    OFFSET_IN_BYTES = 1
    SIZE_IN_BYTES = 2


class LayerField(IntEnum):
    """Fields of ``table Layer``, an input or output of the executable."""

    NAME = 0
    SIZE_BYTES = 1
    Y_DIM = 2
    X_DIM = 3
    Z_DIM = 4
    NUMERICS = 5
    DATA_TYPE = 6
    ANY_LAYER_TYPE = 7
    ANY_LAYER = 8
    EXECUTION_COUNT_PER_INFERENCE = 9


class NumericsField(IntEnum):
    """Fields of ``table NumericsConstants``."""

    ZERO_POINT = 0
    DEQUANTIZATION_FACTOR = 1


class OutputLayerField(IntEnum):
    """Fields of ``table OutputLayer``."""

    LAYOUT = 0


class OutputLayoutField(IntEnum):
    """Fields of ``table OutputLayout``."""

    X_COORDINATE_TO_LINEAR_TILE_ID_MAP = 1
    LINEARIZED_TILE_BYTE_OFFSET = 2


OUTPUT_LAYER = 1
"""The union ``AnyLayer``'s kind of an output."""

DMA_DESCRIPTOR = 1
"""The union ``AnyHint``'s kind of a transfer."""

HINT_NAMES: Mapping[int, str] = MappingProxyType({1: "dma", 2: "instruction", 3: "interrupt", 4: "fence"})

EXECUTABLE_TYPES: Mapping[int, str] = MappingProxyType(
    {0: "STAND_ALONE", 1: "PARAMETER_CACHING", 2: "EXECUTION_ONLY"}
)

DESCRIPTION_NAMES: Mapping[int, str] = MappingProxyType(
    {0: "output", 1: "input", 2: "parameter", 3: "scratch"}
)

DATA_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0: "uint8",
        1: "uint16",
        2: "int32",
        3: "bfloat16",
        4: "float16",
        5: "float32",
        8: "int8",
        9: "int16",
    }
)
"""``enum DataType`` by NumPy's names: FIXED_POINT8 is uint8, SIGNED_FIXED_POINT8 int8, and so on."""

ZERO_POINT_OFFSET: Mapping[str, int] = MappingProxyType({"int8": 128, "int16": 32768})
"""What the compiler adds to a signed layer's zero point: the device computes unsigned."""
