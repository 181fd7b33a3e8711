"""Element types of tensors: those that are computed with, those that are only named, and their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        name: np.dtype(name)
        for name in (
            "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
            "float16", "float32", "float64",
        )
    }
)  # fmt: skip
"""Element types a tensor can have and be computed with, by the name NumPy gives them."""

UNCOMPUTED_TYPES = (
    "int2", "uint2", "int4", "uint4", "float4_e2m1", "float6_e2m3", "float6_e3m2", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0", "bfloat16", "complex64", "complex128",
    "string", "resource", "variant",
)  # fmt: skip
"""Element types of model files that NumPy lacks or nothing here computes with."""

STORAGES = ("sparse", "blockwise", "variable", "external")
"""What a word before an element type says: values are packed, quantized by blocks, kept from run to run,
or in another file."""

OPAQUE_TYPES = frozenset(UNCOMPUTED_TYPES) | {
    f"{storage} {name}" for storage in STORAGES for name in (*DTYPES, *UNCOMPUTED_TYPES)
}
"""Element types that are only named: a layer that touches one can be shown, and not computed."""

QUANTIZED_RANGE: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "int8": (-128, 127),
        "uint8": (0, 255),
        "int16": (-32768, 32767),
        "uint16": (0, 65535),
        "int32": (-(2**31), 2**31 - 1),
    }
)
"""``(qmin, qmax)`` of each quantized element type."""

MAX_ELEMENTS = 2**31 - 1
"""No runtime judged here indexes a tensor of more elements; a larger shape is a broken file."""
