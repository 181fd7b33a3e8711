"""REDUCE_MAX, REDUCE_MIN, REDUCE_ANY, REDUCE_ALL and SUM over any axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    QUANTIZED_8,
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
from karat24.refimpl.spec.tflite.quantized_sum import quantized_sum, require_quantized_sum

FUNCTIONS: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "REDUCE_ALL": np.all,
        "REDUCE_ANY": np.any,
        "REDUCE_MAX": np.max,
        "REDUCE_MIN": np.min,
        "SUM": np.sum,
    }
)

ELEMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "REDUCE_ALL": ("bool",),
        "REDUCE_ANY": ("bool",),
        "REDUCE_MAX": (*QUANTIZED, "int32", "float32"),
        "REDUCE_MIN": (*QUANTIZED, "int32", "float32"),
        "SUM": (*QUANTIZED_8, "int32"),
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
    if output.dtype in QUANTIZED_8 and view.op == "SUM":
        require_quantized_sum(view, axes)
    elif output.dtype in QUANTIZED:
        require_same_quantization(view, data, output)
        require_symmetric(view, data)


def reduce(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """The reduction the op names; SUM of int32 wraps as int32 does."""
    data = operand(values, 0)
    if view.op == "SUM" and view.output().dtype in QUANTIZED_8:
        return quantized_sum(view, values, rule)
    result = FUNCTIONS[view.op](data.astype(np.int64) if view.op == "SUM" else data, axis=reduced_axes(view))
    return SpecResult((np.asarray(result).astype(data.dtype).reshape(view.output().shape),))
