"""REVERSE_V2: the order of the elements reversed along the given axes."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    constant_integers,
    operand,
    require,
    require_arity,
    require_same_dtype,
    require_shape,
    resolve_axis,
)


def check_reverse_v2(view: LayerView) -> None:
    """Inputs: data, axes (int32 constant, no axis twice)."""
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    require_shape(view, output, data.shape)
    _axes(view)


def _axes(view: LayerView) -> tuple[int, ...]:
    given = constant_integers(view, 1, "the list of axes")
    axes = tuple(resolve_axis(view, axis, len(view.input(0).shape)) for axis in given)
    require(view, len(set(axes)) == len(axes), f"axes {given} name one axis twice")
    return axes


def reverse_v2(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """REVERSE_V2."""
    return SpecResult((np.array(np.flip(operand(values, 0), axis=_axes(view))),))
