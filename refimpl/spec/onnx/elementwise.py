"""Ops of single values that are exact: Relu, Clip, Min, Max, Add, Sub, Mul, Div, Neg, Abs, Sigmoid."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np

from refimpl.contract import SpecResult, Values
from refimpl.errors import UnsupportedOp
from refimpl.graph import DTYPES, Array, LayerView
from refimpl.profiles.rules import Rule
from refimpl.spec.onnx.float32_functions import logistic
from refimpl.spec.onnx.parameters import constant
from refimpl.spec.requirements import (
    broadcast_shape,
    operand,
    require,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_shape,
)

NUMBERS = ("int8", "uint8", "int32", "int64", "float32")

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "Min": np.minimum,
    "Max": np.maximum,
}


def check_binary(view: LayerView) -> None:
    """Two broadcasting inputs of one type; Div of float32 only."""
    require_arity(view, 2)
    require_dtype(view, view.output(), ("float32",) if view.op == "Div" else NUMBERS)
    require_same_dtype(view, view.output(), view.input(0), view.input(1))
    require_shape(view, view.output(), broadcast_shape(view, view.input(0), view.input(1)))


def binary(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """One IEEE operation, or one integer operation modulo the type's size."""
    with np.errstate(all="ignore"):
        return SpecResult((BINARY[view.op](operand(values, 0), operand(values, 1)),))


def check_unary(view: LayerView) -> None:
    """One input, an output of its type and shape."""
    require_arity(view, 1)
    require_dtype(view, view.output(), NUMBERS)
    require_same_dtype(view, view.output(), view.input(0))
    require_shape(view, view.output(), view.input(0).shape)


def relu(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """0 where the stored value is less; -0 and what is not a number stay."""
    data = operand(values, 0)
    zero = data.dtype.type(0)
    return SpecResult((np.where(data < zero, zero, data),))


def neg(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """Neg."""
    return SpecResult((-operand(values, 0),))


def abs_(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """Abs."""
    return SpecResult((np.abs(operand(values, 0)),))


def check_clip(view: LayerView) -> None:
    """Inputs: data, optional constant bounds, single values of its type."""
    require_arity(view, 1, optional=2)
    require_dtype(view, view.output(), NUMBERS)
    require_same_dtype(view, view.output(), view.input(0))
    require_shape(view, view.output(), view.input(0).shape)
    for position in (1, 2):
        bound = view.optional_input(position)
        if bound is not None:
            require_same_dtype(view, view.output(), bound)
            require(view, constant(view, position).size == 1, f"a bound of shape {bound.shape}")


def clip(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """The bound where a value lies beyond it; what is not a number stays."""
    data = operand(values, 0)
    for position, beyond in ((1, np.less), (2, np.greater)):
        if view.optional_input(position) is not None:
            bound = operand(values, position).reshape(())
            data = np.where(beyond(data, bound), bound, data)
    return SpecResult((data.astype(DTYPES[view.output().dtype]),))


def check_float_unary(view: LayerView) -> None:
    """float32 only."""
    check_unary(view)
    require_dtype(view, view.output(), ("float32",))


def leaky_relu(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """``alpha * x`` below zero."""
    data = operand(values, 0)
    return SpecResult((np.where(data >= 0, data, np.float32(view.real("alpha", 0.01)) * data),))


def sigmoid(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """MLAS's form of the logistic function (``float32_fused``); else the nearest float32."""
    data = operand(values, 0)
    if rule.method == "float32_fused":
        return SpecResult((logistic(data),))
    if rule.method == "unspecified":
        with np.errstate(over="ignore"):
            return SpecResult(((1.0 / (1.0 + np.exp(-data.astype(np.float64)))).astype(np.float32),))
    raise UnsupportedOp(f"{view}: a logistic function by {rule.method!r} is not defined")
