"""EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, of two broadcast tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import multiply_gemmlowp, quantize_multiplier
from karat24.refimpl.spec.shared.requirements import (
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
"""Bits that 8-bit values gain before they are scaled."""

MAX_SHIFT = 15
"""Scales are below 2^15, so that a negative shift leaves only the sign of a value."""

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
    """Two inputs of one element type, a bool output. 8-bit inputs need scales below 2^15."""
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
            if quantize_multiplier(tensor.scale)[1] > MAX_SHIFT:
                raise UnsupportedOp(
                    f"{view}: scale {tensor.scale} of tensor {tensor.index}; karat24 implements scales below "
                    f"2^{MAX_SHIFT}, and runtimes give right answers for scales below 1 only"
                )


def comparison(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - one formula
    """Compares real values: 8-bit ones as ``scale * (q - zero_point)`` in 1/256."""
    left, right = operand(values, 0), operand(values, 1)
    if left.dtype.name in QUANTIZED_8:
        left, right = _scaled(left, view.input(0)), _scaled(right, view.input(1))
    return SpecResult((np.asarray(RELATIONS[view.op](left, right)),))


def _scaled(data: Array, tensor: Tensor) -> Array:
    """Source: TFLite ``ComparisonWithScaling``.

    A scale of 1 or more makes a left shift, where gemmlowp's ``RoundingDivideByPOT`` shifts right by a
    negative count. C leaves that undefined; x86-64 takes the count modulo 64 for the mask and modulo 32
    for the value, which leaves 1 for a value from 0 on and -1 for a negative one.
    """
    raised = (data.astype(np.int64) - tensor.zero_point) << LEFT_SHIFT
    multiplier, shift = quantize_multiplier(tensor.scale)
    if shift > 0:
        return np.where(raised < 0, np.int64(-1), np.int64(1))
    return multiply_gemmlowp(raised, multiplier, shift)
