"""TILE: the input repeated along each axis."""

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
)


def check_tile(view: LayerView) -> None:
    """Inputs: data, multiples (int32 or int64 constant ``[rank]``, 0 or more)."""
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    require_shape(view, output, (n * k for n, k in zip(data.shape, _multiples(view), strict=True)))


def _multiples(view: LayerView) -> tuple[int, ...]:
    multiples = constant_integers(view, 1, "the list of multiples", (len(view.input(0).shape),))
    require(view, all(count >= 0 for count in multiples), f"multiples {multiples} hold a negative number")
    return multiples


def tile(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """``output[i, ...] = input[i % size, ...]``."""
    return SpecResult((np.tile(operand(values, 0), _multiples(view)),))
