"""TRANSPOSE: dimension k of the output is dimension ``permutation[k]`` of the input."""

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


def check_transpose(view: LayerView) -> None:
    """Inputs: data, permutation (int32 constant ``[rank]``; negative axes count from the back)."""
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    require_shape(view, output, (data.shape[axis] for axis in permutation(view)))


def permutation(view: LayerView) -> tuple[int, ...]:
    """The checked permutation, every axis counted from the front."""
    rank = len(view.input(0).shape)
    axes = constant_integers(view, 1, "the permutation", (rank,))
    axes = tuple(resolve_axis(view, axis, rank) for axis in axes)
    require(view, sorted(axes) == list(range(rank)), f"{axes} must be a permutation of {rank} axes")
    return axes


def transpose(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """TRANSPOSE."""
    return SpecResult((np.ascontiguousarray(np.transpose(operand(values, 0), permutation(view))),))
