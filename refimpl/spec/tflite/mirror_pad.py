"""MIRROR_PAD: a border that repeats the input backwards, with (SYMMETRIC) or without (REFLECT) its edge."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.tflite.pad import paddings


def check_mirror_pad(view: LayerView) -> None:
    """Inputs: data, paddings (int32 or int64 constant ``[rank, 2]``). Attribute ``mode``."""
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    edge = _edge(view)
    for size, counts in zip(data.shape, paddings(view), strict=True):
        require(
            view,
            max(counts) <= max(size - edge, 0),
            f"padding {counts} of a dimension of size {size}: at most {max(size - edge, 0)} can be mirrored",
        )
    sizes = zip(data.shape, paddings(view), strict=True)
    require_shape(view, output, (before + size + after for size, (before, after) in sizes))


def _edge(view: LayerView) -> int:
    """1 where the outermost element is not repeated (REFLECT), else 0."""
    mode = view.text("mode")
    if mode not in ("REFLECT", "SYMMETRIC"):
        raise UnsupportedOp(f"{view}: mode {mode!r}; implemented are REFLECT, SYMMETRIC")
    return 1 if mode == "REFLECT" else 0


def mirror_pad(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """MIRROR_PAD."""
    output, edge = operand(values, 0), _edge(view)
    for axis, (before, after) in enumerate(paddings(view)):
        size = output.shape[axis]
        front = [edge + before - 1 - i for i in range(before)]
        back = [size - 1 - edge - i for i in range(after)]
        output = np.take(output, [*front, *range(size), *back], axis=axis)
    return SpecResult((output,))
