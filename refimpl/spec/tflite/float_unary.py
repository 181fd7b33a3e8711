"""ABS, NEG, SQUARE, SQRT, FLOOR and CEIL of float32, ROUND: one correctly rounded IEEE operation each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.tflite.fixed_unary import check_fixed_unary, fixed_unary

FUNCTIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "ABS": np.abs,
        "CEIL": np.ceil,
        "FLOOR": np.floor,
        "NEG": np.negative,
        "SQRT": np.sqrt,
        "SQUARE": np.square,
    }
)


def check_unary(view: LayerView) -> None:
    """float32, or int8 (``fixed_unary``)."""
    if view.output().dtype == "int8":
        check_fixed_unary(view)
    else:
        check_float_unary(view)


def unary(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """ABS, NEG or SQRT of float32 or int8."""
    return (fixed_unary if view.output().dtype == "int8" else float_unary)(view, values, rule)


def check_float_unary(view: LayerView) -> None:
    """One float32 input. Functions that need a maths library (EXP, SIN, ...) have no entry: their
    last bit depends on which library the runtime was linked with."""
    require_arity(view, 1)
    require_dtype(view, view.output(), ("float32",))
    require_same_dtype(view, view.output(), view.input(0))
    require_shape(view, view.output(), view.input(0).shape)


def round_half_even(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001
    """ROUND, ties to even. ``reference`` computes from the floor, so that -0.25 gives +0.0 where IEEE 754
    (``exact``) gives -0.0."""
    data = operand(values, 0)
    rounded = np.rint(data)
    if rule.method == "reference":
        rounded = np.where((rounded == 0) & (data != 0), np.float32(0.0), rounded)
    return SpecResult((np.asarray(rounded, np.float32),))


def float_unary(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """The function the op names.

    XNNPACK's NEG is ``0 - x``, which is +0.0 for +0.0. By ``optimized``, CEIL and FLOOR give +0.0 in place
    of -0.0.
    """
    data = operand(values, 0)
    if view.op == "NEG" and rule.method == "xnnpack":
        return SpecResult((np.float32(0.0) - data,))
    with np.errstate(all="ignore"):
        result = np.asarray(FUNCTIONS[view.op](data), np.float32)
    if rule.method == "optimized":
        result = result + np.float32(0.0)  # -0.0 + 0.0 is +0.0
    return SpecResult((result,))
