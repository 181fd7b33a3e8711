"""STRIDED_SLICE with all its masks, as TensorFlow Lite reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
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


@dataclass(frozen=True)
class SlicedAxis:
    """One dimension of the input, or an inserted one of ``size`` 1: the indices that are taken, and
    whether the dimension disappears from the output."""

    size: int
    indices: range
    shrunk: bool = False


def check_strided_slice(view: LayerView) -> None:
    """Inputs: data, begin, end, strides (int32 constants of equal length).

    Attributes: ``begin_mask``, ``end_mask``, ``ellipsis_mask``, ``new_axis_mask``,
    ``shrink_axis_mask`` (bit i belongs to position i of begin) and ``offset``
    (end counts from begin).
    """
    require_arity(view, 4)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    require_shape(view, output, (len(axis.indices) for axis in sliced_axes(view) if not axis.shrunk))


def sliced_axes(view: LayerView) -> tuple[SlicedAxis, ...]:
    """The checked slice of each dimension of the input and of the inserted ones."""
    shape = view.input(0).shape
    begin = constant_integers(view, 1, "begin")
    end = constant_integers(view, 2, "end", (len(begin),))
    strides = constant_integers(view, 3, "strides", (len(begin),))
    require(view, len(view.input(1).shape) == 1, "begin is a scalar, not a list")
    ellipsis_mask, new_axis_mask = view.integer("ellipsis_mask", 0), view.integer("new_axis_mask", 0)
    ellipsis = [i for i in range(len(begin)) if ellipsis_mask >> i & 1]
    require(view, len(ellipsis) <= 1, f"ellipsis mask {ellipsis_mask:#b} names more than one position")
    # A position of both masks is an ellipsis.
    new = [i for i in range(len(begin)) if new_axis_mask >> i & 1 and i not in ellipsis]
    consuming = len(begin) - len(new) - len(ellipsis)
    require(
        view,
        consuming <= len(shape),
        f"begin addresses {consuming} dimensions, the input of shape {shape} has {len(shape)}",
    )
    if ellipsis and consuming == len(shape) and ellipsis[0] != len(begin) - 1:
        raise UnsupportedOp(
            f"{view}: the ellipsis covers no dimension, but the runtimes let it take one; leave it out"
        )
    axes: list[SlicedAxis] = []
    remaining = list(shape)

    def whole(count: int) -> None:
        for _ in range(count):
            size = remaining.pop(0)
            axes.append(SlicedAxis(size, range(size)))

    for position in range(len(begin)):
        if position in ellipsis:
            whole(len(shape) - consuming)
        elif position in new:
            axes.append(SlicedAxis(1, range(1)))
        else:
            size = remaining.pop(0)
            axes.append(_slice(view, position, size, begin[position], end[position], strides[position]))
    whole(len(remaining))
    return tuple(axes)


def _slice(view: LayerView, position: int, size: int, begin: int, end: int, stride: int) -> SlicedAxis:
    require(view, stride != 0, f"stride {position} is 0")

    def bit(mask: str) -> bool:
        return bool(view.integer(mask, 0) >> position & 1)

    first = 0 if stride > 0 else size - 1
    start = first if bit("begin_mask") else _clamp(begin, size, stride)
    if bit("shrink_axis_mask"):
        if not bit("begin_mask"):
            require(
                view, -size <= begin < size, f"index {begin} of dimension {position}, which has size {size}"
            )
        require(view, size > 0, f"an index into dimension {position}, which is empty")
        require(view, stride > 0, f"stride {stride} of dimension {position}, which is reduced to one index")
        return SlicedAxis(size, range(start, start + 1), shrunk=True)
    if bit("end_mask"):
        stop = size if stride > 0 else -1
    else:
        stop = _clamp(end + start if view.flag("offset") else end, size, stride)
    return SlicedAxis(size, range(start, stop, stride))


def _clamp(index: int, size: int, stride: int) -> int:
    """Counts a negative index once from the back, then clamps it to a possible start or stop."""
    if index < 0:
        index += size
    return min(max(index, 0), size) if stride > 0 else min(max(index, -1), size - 1)


def strided_slice(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """STRIDED_SLICE."""
    axes = sliced_axes(view)
    taken = operand(values, 0).reshape([axis.size for axis in axes])
    for dimension, axis in enumerate(axes):
        taken = np.take(taken, list(axis.indices), axis=dimension)
    return SpecResult((taken.reshape(view.output().shape),))
