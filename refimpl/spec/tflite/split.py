"""SPLIT and SPLIT_V: the input is cut along one axis into equal parts, or parts of given sizes."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
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


def check_split(view: LayerView) -> None:
    """Inputs: axis (one int32 constant), data. Attribute ``num_splits`` is the number of outputs."""
    require_arity(view, 2, outputs=_splits(view))
    data, axis = view.input(1), _axis(view, 0, 1)
    size, parts = data.shape[axis], len(view.outputs)
    require(view, size % parts == 0, f"dimension {axis} of shape {data.shape} must be a multiple of {parts}")
    _check_parts(view, 1, axis, (size // parts,) * parts)


def check_split_v(view: LayerView) -> None:
    """Inputs: data, sizes (int32 or int64 constant; one may be -1: the rest), axis (one int32 constant)."""
    require_arity(view, 3, outputs=_splits(view))
    axis = _axis(view, 2, 0)
    _check_parts(view, 0, axis, _sizes(view, axis))


def _splits(view: LayerView) -> int:
    splits = view.integer("num_splits")
    require(view, splits >= 1, f"num_splits is {splits}")
    return splits


def _axis(view: LayerView, position: int, data: int) -> int:
    axes = constant_integers(view, position, "the axis")
    require(view, len(axes) == 1, f"{len(axes)} axes given, one is needed")
    return resolve_axis(view, axes[0], len(view.input(data).shape))


def _sizes(view: LayerView, axis: int) -> tuple[int, ...]:
    data = view.input(0)
    sizes = constant_integers(view, 1, "the list of sizes", (len(view.outputs),))
    known = sum(size for size in sizes if size != -1)
    require(
        view,
        all(size >= -1 for size in sizes) and sizes.count(-1) <= 1,
        f"sizes {sizes} need to be 0 or more, at most one of them -1",
    )
    sizes = tuple(data.shape[axis] - known if size == -1 else size for size in sizes)
    require(
        view,
        sum(sizes) == data.shape[axis] and min(sizes) >= 0,
        f"sizes {sizes} do not add up to dimension {axis} of shape {data.shape}",
    )
    return sizes


def _check_parts(view: LayerView, data: int, axis: int, sizes: tuple[int, ...]) -> None:
    source = view.input(data)
    require_same_dtype(view, source, *view.outputs)
    for size, output in zip(sizes, view.outputs, strict=True):
        require_shape(view, output, (*source.shape[:axis], size, *source.shape[axis + 1 :]))


def split(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """SPLIT."""
    axis, data = _axis(view, 0, 1), operand(values, 1)
    return _cut(data, axis, (data.shape[axis] // len(view.outputs),) * len(view.outputs))


def split_v(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """SPLIT_V."""
    axis = _axis(view, 2, 0)
    return _cut(operand(values, 0), axis, _sizes(view, axis))


def _cut(data: Array, axis: int, sizes: tuple[int, ...]) -> SpecResult:
    parts, start = [], 0
    for size in sizes:
        parts.append(np.take(data, list(range(start, start + size)), axis=axis))
        start += size
    return SpecResult(tuple(parts))
