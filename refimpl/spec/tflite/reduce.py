"""REDUCE_MAX, REDUCE_MIN, REDUCE_PROD, REDUCE_ANY, REDUCE_ALL and SUM over any axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    INDEX,
    QUANTIZED,
    operand,
    require,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_same_quantization,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.tflite.mean import reduced_axes, reduced_shape
from karat24.refimpl.spec.tflite.quantized_product import quantized_product, require_quantized_product
from karat24.refimpl.spec.tflite.quantized_sum import quantized_sum, require_quantized_sum

FUNCTIONS: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "REDUCE_ALL": np.all,
        "REDUCE_ANY": np.any,
        "REDUCE_MAX": np.max,
        "REDUCE_MIN": np.min,
        "REDUCE_PROD": np.prod,
        "SUM": np.sum,
    }
)

ELEMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "REDUCE_ALL": ("bool",),
        "REDUCE_ANY": ("bool",),
        "REDUCE_MAX": (*QUANTIZED, "int32", "float32"),
        "REDUCE_MIN": (*QUANTIZED, "int32", "float32"),
        "REDUCE_PROD": ("int8", "int16", *INDEX),
        "SUM": (*QUANTIZED, *INDEX),
    }
)


def check_reduce(view: LayerView) -> None:
    """Inputs: data, axes (int32 constant). Attribute ``keep_dims``. Quantized data keeps its parameters."""
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_dtype(view, output, ELEMENTS[view.op])
    require_same_dtype(view, data, output)
    axes = reduced_axes(view)
    require_shape(view, output, reduced_shape(view, axes))
    require(view, math.prod(data.shape[axis] for axis in axes) > 0, f"nothing to reduce in {data.shape}")
    if output.dtype in QUANTIZED and view.op == "SUM":
        require_quantized_sum(view, axes)
    elif output.dtype in QUANTIZED and view.op == "REDUCE_PROD":
        require_quantized_product(view, axes)
    elif output.dtype in QUANTIZED:
        require_same_quantization(view, data, output)
        require_symmetric(view, data)


def reduce(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """The reduction that the op names; sums and products of int32 and int64 wrap."""
    data = operand(values, 0)
    if view.op == "SUM" and view.output().dtype in QUANTIZED:
        return quantized_sum(view, values, rule)
    if view.op == "REDUCE_PROD" and view.output().dtype in QUANTIZED:
        return quantized_product(view, values, rule)
    wide = data.astype(np.int64) if view.op in ("SUM", "REDUCE_PROD") else data
    result = FUNCTIONS[view.op](wide, axis=reduced_axes(view))
    return SpecResult((np.asarray(result).astype(data.dtype).reshape(view.output().shape),))
