"""LOGICAL_AND, LOGICAL_OR, LOGICAL_NOT and SELECT, which use the results of comparisons."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    broadcast_shape,
    operand,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_shape,
)


def check_logical_pair(view: LayerView) -> None:
    """Two bool inputs, broadcast."""
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
    require_dtype(view, output, ("bool",))
    require_same_dtype(view, output, left, right)
    require_shape(view, output, broadcast_shape(view, left, right))


def logical_and(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001
    """LOGICAL_AND."""
    return SpecResult((np.asarray(operand(values, 0) & operand(values, 1)),))


def logical_or(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001
    """LOGICAL_OR."""
    return SpecResult((np.asarray(operand(values, 0) | operand(values, 1)),))


def check_logical_not(view: LayerView) -> None:
    """One bool input."""
    require_arity(view, 1)
    require_dtype(view, view.output(), ("bool",))
    require_same_dtype(view, view.output(), view.input(0))
    require_shape(view, view.output(), view.input(0).shape)


def logical_not(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001
    """LOGICAL_NOT."""
    return SpecResult((~operand(values, 0),))


def check_select_v2(view: LayerView) -> None:
    """Inputs: condition (bool), value where true, value where false; all three broadcast."""
    require_arity(view, 3)
    condition, left, right, output = view.input(0), view.input(1), view.input(2), view.output()
    require_dtype(view, condition, ("bool",))
    require_same_dtype(view, output, left, right)
    try:
        shape = np.broadcast_shapes(condition.shape, left.shape, right.shape)
    except ValueError:
        raise ModelError(
            f"{view}: shapes {condition.shape}, {left.shape} and {right.shape} do not broadcast together"
        ) from None
    require_shape(view, output, shape)


def check_select(view: LayerView) -> None:
    """As SELECT_V2, but both values have the output's shape, and the condition has that shape, is a scalar,
    or has only the first dimension and then selects whole slices."""
    require_arity(view, 3)
    condition, output = view.input(0), view.output()
    require_dtype(view, condition, ("bool",))
    for position in (1, 2):
        require_same_dtype(view, output, view.input(position))
        require_shape(view, view.input(position), output.shape)
    if condition.shape not in ((), output.shape[:1]):
        require_shape(view, condition, output.shape)


def select(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """SELECT and SELECT_V2."""
    condition, shape = operand(values, 0), view.output().shape
    if view.op == "SELECT" and condition.ndim == 1:
        condition = condition.reshape(-1, *(1,) * (len(shape) - 1))
    chosen = np.where(condition, operand(values, 1), operand(values, 2))
    return SpecResult((np.array(np.broadcast_to(chosen, shape)),))
