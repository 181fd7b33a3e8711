"""Ops of single values that are exact: one IEEE operation each, or a few in a known order."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.float32_functions import logistic, nearest_logistic
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.requirements import (
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
    """Inputs: data, optional bounds, single values of its type."""
    require_arity(view, 1, optional=2)
    require_dtype(view, view.output(), NUMBERS)
    require_same_dtype(view, view.output(), view.input(0))
    require_shape(view, view.output(), view.input(0).shape)
    for position in (1, 2):
        bound = view.optional_input(position)
        if bound is not None:
            require_same_dtype(view, view.output(), bound)
            require(view, math.prod(bound.shape) == 1, f"a bound of shape {bound.shape}")


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


def prelu(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """``slope * x`` below zero."""
    data, slope = operand(values, 0), operand(values, 1)
    with np.errstate(all="ignore"):
        return SpecResult((np.where(data < 0, data * slope, data).astype(np.float32),))


def check_prelu(view: LayerView) -> None:
    """float32 data and slopes that broadcast to its shape."""
    require_arity(view, 2)
    require_dtype(view, view.output(), ("float32",))
    require_same_dtype(view, view.output(), view.input(0), view.input(1))
    require_shape(view, view.output(), view.input(0).shape)
    fits = broadcast_shape(view, view.input(0), view.input(1)) == view.input(0).shape
    require(view, fits, f"slopes of shape {view.input(1).shape} for {view.input(0).shape}")


ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "Ceil": np.ceil,
    "Floor": np.floor,
    "Round": np.rint,
    "Sqrt": np.sqrt,
}


def rounding(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """One IEEE operation; Round takes ties to even."""
    with np.errstate(all="ignore"):
        return SpecResult((ROUNDINGS[view.op](operand(values, 0)),))


def reciprocal(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``1 / x``, one IEEE operation; by ``optimized_fused`` :func:`_refined` of all whole vectors of four."""
    del view
    data = operand(values, 0)
    with np.errstate(all="ignore"):
        result = np.float32(1) / data
    if rule.method == "optimized_fused":
        fours = data.size // 4 * 4
        flat = result.reshape(-1)
        flat[:fours] = _refined(data.reshape(-1)[:fours])
        result = flat.reshape(data.shape)
    return SpecResult((result,))


def _refined(x: Array) -> Array:
    """``r = r * fma(-x, r, 2)``, twice, from an estimate r of eight bits: that of 64-bit Arm's FRECPE.

    Source: Arm Architecture Reference Manual, RecipEstimate and FPRecipStepFused, where 0 times infinity
    gives 2; that Eigen takes two steps was found by running ONNX Runtime 1.32.0.
    """
    two = np.float32(2)
    with np.errstate(all="ignore"):
        fraction, exponent = np.frexp(np.abs(x).astype(np.float64))
        odd = 2 * np.floor(np.where(np.isfinite(x) & (x != 0), fraction, 0.5) * 512).astype(np.int64) + 1
        estimate = np.ldexp(((1 << 19) // odd + 1) // 2 / 256, -exponent)
        estimate = np.where(x == 0, np.inf, np.where(np.isinf(x), 0, np.where(np.isnan(x), x, estimate)))
        r = np.copysign(estimate, x).astype(np.float32)
        for _ in range(2):
            undefined = (x == 0) & np.isinf(r) | np.isinf(x) & (r == 0)
            r = r * np.where(undefined, two, fused_multiply_add(-x, r, np.full_like(x, two)))
    return np.asarray(r)


def hard_sigmoid(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``max(0, min(1, alpha * x + beta))``, each step rounded to float32, by ``reference_fused`` the product
    and the sum at once."""
    alpha, beta = view.real("alpha", 0.2), view.real("beta", 0.5)
    return SpecResult((_hard_sigmoid(operand(values, 0), alpha, beta, rule),))


def hard_swish(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``x * hard_sigmoid(x)`` with alpha 1/6 and beta 1/2, rounded as that."""
    del view
    data = operand(values, 0)
    with np.errstate(all="ignore"):
        return SpecResult((data * _hard_sigmoid(data, 1 / 6, 0.5, rule),))


def _hard_sigmoid(data: Array, alpha: float, beta: float, rule: Rule) -> Array:
    with np.errstate(all="ignore"):
        if rule.method == "reference_fused":
            line = fused_multiply_add(np.float32(alpha), data, np.float32(beta))
        else:
            line = np.float32(alpha) * data + np.float32(beta)
    return np.asarray(np.maximum(np.minimum(line, np.float32(1)), np.float32(0)))


def sigmoid(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """MLAS's form of the logistic function (``float32_fused``); else the nearest float32."""
    data = operand(values, 0)
    if rule.method == "float32_fused":
        return SpecResult((logistic(data),))
    if rule.method == "unspecified":
        return SpecResult((nearest_logistic(data),))
    raise UnsupportedOp(f"{view}: a logistic function by {rule.method!r} is not defined")
