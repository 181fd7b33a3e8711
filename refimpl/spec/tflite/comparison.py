"""EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, of two broadcast tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from refimpl.contract import SpecResult, Values
from refimpl.errors import UnsupportedOp
from refimpl.graph import Array, LayerView, Tensor
from refimpl.profiles.rules import Rule
from refimpl.spec.shared.primitives import multiply_gemmlowp, quantize_multiplier
from refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    broadcast_shape,
    operand,
    require_arity,
    require_dtype,
    require_quantized,
    require_same_dtype,
    require_shape,
)

LEFT_SHIFT = 8
"""Bits 8-bit values gain before they are scaled."""

RELATIONS: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {
        "EQUAL": operator.eq,
        "NOT_EQUAL": operator.ne,
        "LESS": operator.lt,
        "LESS_EQUAL": operator.le,
        "GREATER": operator.gt,
        "GREATER_EQUAL": operator.ge,
    }
)


def check_comparison(view: LayerView) -> None:
    """Two inputs of one element type, a bool output. 8-bit inputs need scales below 1."""
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
    truth = ("bool",) if view.op in ("EQUAL", "NOT_EQUAL") else ()
    require_dtype(view, left, (*QUANTIZED_8, "int32", "int64", "float32", *truth))
    require_same_dtype(view, left, right)
    require_dtype(view, output, ("bool",))
    require_shape(view, output, broadcast_shape(view, left, right))
    if left.dtype in QUANTIZED_8:
        require_quantized(view, left, right)
        for tensor in (left, right):
            if quantize_multiplier(tensor.scale)[1] > 0:
                raise UnsupportedOp(
                    f"{view}: scale {tensor.scale} of tensor {tensor.index}; the runtimes demand less than 1"
                )


def comparison(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - one formula
    """Compares real values: 8-bit ones as ``scale * (q - zero_point)`` in 1/256."""
    left, right = operand(values, 0), operand(values, 1)
    if left.dtype.name in QUANTIZED_8:
        left, right = _scaled(left, view.input(0)), _scaled(right, view.input(1))
    return SpecResult((np.asarray(RELATIONS[view.op](left, right)),))


def _scaled(data: Array, tensor: Tensor) -> Array:
    """Source: TFLite ``ComparisonWithScaling``."""
    raised = (data.astype(np.int64) - tensor.zero_point) << LEFT_SHIFT
    return multiply_gemmlowp(raised, *quantize_multiplier(tensor.scale))
