"""Numbers and names of the ONNX format: element types, versions, domains."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TYPE_NAMES: Mapping[int, str] = MappingProxyType(
    {
        1: "float32",
        2: "uint8",
        3: "int8",
        4: "uint16",
        5: "int16",
        6: "int32",
        7: "int64",
        8: "string",
        9: "bool",
        10: "float16",
        11: "float64",
        12: "uint32",
        13: "uint64",
        14: "complex64",
        15: "complex128",
        16: "bfloat16",
        17: "float8_e4m3fn",
        18: "float8_e4m3fnuz",
        19: "float8_e5m2",
        20: "float8_e5m2fnuz",
        21: "uint4",
        22: "int4",
        23: "float4_e2m1",
        24: "float8_e8m0",
        25: "uint2",
        26: "int2",
        27: "float6_e2m3",
        28: "float6_e3m2",
    }
)
"""``TensorProto.DataType`` numbers to NumPy's type names, or to those of the opaque types."""


def type_label(code: int) -> str:
    """The name of an element type; a type without one here is called, for instance, ``type 99``."""
    return TYPE_NAMES.get(code, f"type {code}")


TYPE_CODES: Mapping[str, int] = MappingProxyType({name: code for code, name in TYPE_NAMES.items()})
"""NumPy type name to ``TensorProto.DataType`` number."""

TYPED_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "float32": "float_data",
        "float64": "double_data",
        "int64": "int64_data",
        "uint64": "uint64_data",
        "uint32": "uint64_data",
        **dict.fromkeys(("bool", "int8", "uint8", "int16", "uint16", "int32", "float16"), "int32_data"),
    }
)
"""The ``TensorProto`` field that holds values of a type when they are not in ``raw_data``."""

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own ops."""

IR_VERSIONS = range(3, 15)
"""Versions of the file format whose fields are known: those of onnx 1.23."""

MAX_BYTES = 2**31 - 1
"""A protobuf message is smaller than this; larger models keep their constants in files beside it."""

MAX_RANK = 32
"""NumPy 1.26's limit."""


def op_name(domain: str, op_type: str) -> str:
    """A layer's op: the op type, with ``domain:`` in front unless the domain is the standard one.

    The domain belongs to the name because some names are taken twice with different meanings:
    ``com.microsoft:QuantizeLinear`` is not ``QuantizeLinear``.
    """
    return op_type if domain in STANDARD_DOMAINS else f"{domain}:{op_type}"


def split_op(op: str) -> tuple[str, str]:
    """``(domain, op type)`` of a layer's op; the standard domain is empty."""
    domain, _, op_type = op.rpartition(":")
    return domain, op_type


STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
"""Two spellings of the standard domain."""
