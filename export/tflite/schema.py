"""The .tflite schema: field positions of its tables, and its enums by name.

Positions are those of TensorFlow's ``schema.fbs`` (version 3); enum values come
from the generated schema that ``ai-edge-litert`` ships, against which a test
checks every position.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from ai_edge_litert import schema_py_generated as generated

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3


class ModelField(IntEnum):
    """Fields of ``table Model``."""

    VERSION = 0
    OPERATOR_CODES = 1
    SUBGRAPHS = 2
    DESCRIPTION = 3
    BUFFERS = 4
    SIGNATURE_DEFS = 7


class OperatorCodeField(IntEnum):
    """Fields of ``table OperatorCode``."""

    DEPRECATED_BUILTIN_CODE = 0
    CUSTOM_CODE = 1
    VERSION = 2
    BUILTIN_CODE = 3


class SubGraphField(IntEnum):
    """Fields of ``table SubGraph``."""

    TENSORS = 0
    INPUTS = 1
    OUTPUTS = 2
    OPERATORS = 3
    NAME = 4


class TensorField(IntEnum):
    """Fields of ``table Tensor``."""

    SHAPE = 0
    TYPE = 1
    BUFFER = 2
    NAME = 3
    QUANTIZATION = 4
    IS_VARIABLE = 5
    SPARSITY = 6
    SHAPE_SIGNATURE = 7
    HAS_RANK = 8
    VARIANT_TENSORS = 9
    EXTERNAL_BUFFER = 10


class QuantizationField(IntEnum):
    """Fields of ``table QuantizationParameters``."""

    SCALE = 2
    ZERO_POINT = 3
    DETAILS_TYPE = 4
    QUANTIZED_DIMENSION = 6


class OperatorField(IntEnum):
    """Fields of ``table Operator``."""

    OPCODE_INDEX = 0
    INPUTS = 1
    OUTPUTS = 2
    BUILTIN_OPTIONS_TYPE = 3
    BUILTIN_OPTIONS = 4
    CUSTOM_OPTIONS = 5
    INTERMEDIATES = 8
    LARGE_CUSTOM_OPTIONS_OFFSET = 9
    LARGE_CUSTOM_OPTIONS_SIZE = 10


class BufferField(IntEnum):
    """Fields of ``table Buffer``."""

    DATA = 0
    OFFSET = 1
    SIZE = 2


class SignatureField(IntEnum):
    """Fields of ``table SignatureDef``."""

    INPUTS = 0
    OUTPUTS = 1
    SIGNATURE_KEY = 2
    SUBGRAPH_INDEX = 4


class TensorMapField(IntEnum):
    """Fields of ``table TensorMap``."""

    NAME = 0
    TENSOR_INDEX = 1


def enum_names(name: str) -> Mapping[int, str]:
    """Value to name of one of the schema's enums.

    Python adds attributes of its own to a class, among them integers (``__firstlineno__`` from 3.13 on).
    """
    members = vars(getattr(generated, name)).items()
    return MappingProxyType(
        {value: member for member, value in members if isinstance(value, int) and member[0] != "_"}
    )


BUILTIN_NAMES = enum_names("BuiltinOperator")
BUILTIN_CODES: Mapping[str, int] = MappingProxyType({name: code for code, name in BUILTIN_NAMES.items()})
OPTIONS_NAMES = enum_names("BuiltinOptions")
OPTIONS_CODES: Mapping[str, int] = MappingProxyType({name: code for code, name in OPTIONS_NAMES.items()})

TYPE_NAMES: Mapping[int, str] = MappingProxyType(
    {code: name.lower() for code, name in enum_names("TensorType").items()}
)
"""Element type codes to NumPy's names; a type NumPy lacks (``int4``) keeps the schema's, in lower case."""

TYPE_CODES: Mapping[str, int] = MappingProxyType({name: code for code, name in TYPE_NAMES.items()})

CUSTOM = "CUSTOM:"
"""The prefix of a custom op's name in the graph; the name in the file follows."""

UNKNOWN = "BUILTIN:"
"""The prefix of the name of an op newer than the installed schema; the number of its code follows."""

CUSTOM_OPTIONS = "custom_options"
"""The attribute that keeps a custom op's opaque bytes."""
