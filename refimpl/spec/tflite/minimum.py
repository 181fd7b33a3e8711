"""MINIMUM and MAXIMUM of two tensors, broadcast, compared as stored."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    broadcast_shape,
    operand,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_shape,
)


def check_minimum(view: LayerView) -> None:
    """Two inputs of one element type. Their quantization is not looked at, as in the runtimes."""
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
    require_dtype(view, output, ("int8", "uint8", "int16", "int32", "int64", "float32"))
    require_same_dtype(view, output, left, right)
    require_shape(view, output, broadcast_shape(view, left, right))


def minimum(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - the op's signature
    """``a if a < b else b``, or by ``signed_zeros``."""
    left, right = operand(values, 0), operand(values, 1)
    if rule.method == "signed_zeros":
        return SpecResult((-_larger(-left, -right),))
    return SpecResult((np.where(left < right, left, right),))


def maximum(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - the op's signature
    """``a if a > b else b``, or by ``signed_zeros``."""
    left, right = operand(values, 0), operand(values, 1)
    if rule.method == "signed_zeros":
        return SpecResult((_larger(left, right),))
    return SpecResult((np.where(left > right, left, right),))


def _larger(left: Array, right: Array) -> Array:
    """Arm's ``fmax``: zeros of different signs give 0, and a NaN is passed on, the first of two."""
    larger = np.where((left > right) | np.isnan(left), left, right)
    with np.errstate(invalid="ignore"):
        return np.where((left == 0) & (right == 0), left + right, larger)
