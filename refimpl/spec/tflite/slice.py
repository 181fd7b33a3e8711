"""SLICE: a box of the input, ``output[i] = input[begin + i]``."""

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


def check_slice(view: LayerView) -> None:
    """Inputs: data, begin, size (int32 or int64 constants ``[rank]``; a size of -1 takes the rest)."""
    require_arity(view, 3)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    require_shape(view, output, (stop - start for start, stop in box(view)))


def box(view: LayerView) -> tuple[tuple[int, int], ...]:
    """First index and the one after the last, per dimension; checked to lie in the input."""
    shape = view.input(0).shape
    begin = constant_integers(view, 1, "begin", (len(shape),))
    size = constant_integers(view, 2, "size", (len(shape),))
    bounds = []
    for axis, (start, count, available) in enumerate(zip(begin, size, shape, strict=True)):
        stop = available if count == -1 else start + count
        require(
            view,
            0 <= start <= stop <= available and count >= -1,
            f"begin {start}, size {count} lie outside dimension {axis}, which has size {available}",
        )
        bounds.append((start, stop))
    return tuple(bounds)


def slice_(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """SLICE."""
    where = tuple(slice(start, stop) for start, stop in box(view))
    return SpecResult((np.array(operand(values, 0)[where]),))
