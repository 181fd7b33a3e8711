"""DIV of float32 and FLOOR_DIV, FLOOR_MOD of int32."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import ACTIVATION_BOUNDS, wrap32
from karat24.refimpl.spec.shared.requirements import (
    broadcast_shape,
    operand,
    require,
    require_activation,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.tflite.binary import plain


def check_div(view: LayerView) -> None:
    """Two float32 inputs, broadcast. Attribute ``fused_activation_function``."""
    _check_pair(view, "float32")
    require_activation(view, ACTIVATION_BOUNDS)


def div(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - IEEE 754
    """DIV."""
    return plain(view, values, np.divide)


def check_floor_div(view: LayerView) -> None:
    """Two int32 inputs, broadcast; a constant divisor without zeros."""
    _check_pair(view, "int32")
    if view.input(1).data is not None:
        _check_divisor(view, view.input(1).data)


def floor_div(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - integers
    """Quotient rounded toward minus infinity. Raises ModelError for a divisor of 0."""
    left, right = _integers(view, values)
    return SpecResult((wrap32(left // right).astype(np.int32),))


def floor_mod(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - integers
    """What FLOOR_DIV leaves: it has the divisor's sign. Raises ModelError for a divisor of 0."""
    left, right = _integers(view, values)
    return SpecResult((np.asarray(left % right, np.int32),))


def _check_pair(view: LayerView, dtype: str) -> None:
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
    require_dtype(view, output, (dtype,))
    require_same_dtype(view, output, left, right)
    require_shape(view, output, broadcast_shape(view, left, right))


def _check_divisor(view: LayerView, divisor: Array | None) -> None:
    require(view, divisor is None or bool(np.all(divisor != 0)), "division by 0")


def _integers(view: LayerView, values: Values) -> tuple[Array, Array]:
    _check_divisor(view, operand(values, 1))
    return operand(values, 0).astype(np.int64), operand(values, 1).astype(np.int64)
