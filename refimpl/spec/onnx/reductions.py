"""Ops that take axes away: ReduceMax, ReduceMin, ReduceMean, ReduceSum, ArgMax, ArgMin, GlobalMaxPool."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.onnx.table import reduced_axes
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.parameters import constant
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_same_dtype,
    require_shape,
    resolve_axis,
)


def check_reduction(view: LayerView) -> None:
    """Inputs: data, optional constant axes. ReduceMax and ReduceMin of bytes too, the others of float32."""
    require_arity(view, 1, optional=1)
    extremes = view.op in ("ReduceMax", "ReduceMin")
    allowed = ("float32", "int8", "uint8", "int32", "int64") if extremes else ("float32",)
    require_dtype(view, view.output(), allowed)
    require_same_dtype(view, view.input(0), view.output())
    require_elements(view, view.input(0))
    if view.optional_input(1) is not None:
        require_dtype(view, view.input(1), ("int64",))
        constant(view, 1)
    shape, gone = view.input(0).shape, _axes(view)
    keep = view.integer("keepdims", 1)
    sizes = (1 if i in gone else size for i, size in enumerate(shape) if keep or i not in gone)
    require_shape(view, view.output(), tuple(sizes))


def _axes(view: LayerView) -> tuple[int, ...]:
    rank = len(view.input(0).shape)
    axes = tuple(resolve_axis(view, axis, rank) for axis in reduced_axes(view))
    require(view, len(set(axes)) == len(axes), f"axes {axes} name one axis twice")
    return axes


def reduce_extreme(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """ReduceMax, ReduceMin."""
    reduce = np.max if view.op == "ReduceMax" else np.min
    return _shaped(view, reduce(operand(values, 0), axis=_axes(view)))


def reduce_mean(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``reference``: float32 slices added one after the other, then divided by their number.

    ``unspecified``: in float64, rounded once.
    """
    data, axes = operand(values, 0), _axes(view)
    if not axes:
        return _shaped(view, data)
    if rule.method == "unspecified":
        return _shaped(view, data.astype(np.float64).mean(axis=axes))
    first, *others = _slices(data, axes)
    total = first.copy()
    for part in others:
        total += part
    return _shaped(view, total / np.float32(1 + len(others)))


def reduce_sum(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - unspecified
    """In float64, rounded once."""
    return _shaped(view, operand(values, 0).astype(np.float64).sum(axis=_axes(view)))


def _slices(data: Array, axes: tuple[int, ...]) -> Array:
    """What is added: one slice per value along ``axes``, in the order of storage."""
    ordered = sorted(axes)
    front = np.moveaxis(data, ordered, range(len(ordered)))
    return front.reshape(-1, *front.shape[len(ordered) :])


def _shaped(view: LayerView, result: Array) -> SpecResult:
    output = view.output()
    return SpecResult((np.asarray(result).astype(DTYPES[output.dtype]).reshape(output.shape),))


def check_arg_extreme(view: LayerView) -> None:
    """One input; the first of equal values counts. Attributes ``axis`` (0) and ``keepdims`` (1)."""
    require_arity(view, 1)
    if view.integer("select_last_index", 0):
        raise UnsupportedOp(f"{view}: select_last_index is not implemented")
    require_dtype(view, view.input(0), ("float32", "int8", "uint8", "int32"))
    require_dtype(view, view.output(), ("int64",))
    require_elements(view, view.input(0))
    shape = view.input(0).shape
    axis = resolve_axis(view, view.integer("axis", 0), len(shape))
    middle = (1,) if view.integer("keepdims", 1) else ()
    require_shape(view, view.output(), (*shape[:axis], *middle, *shape[axis + 1 :]))


def arg_extreme(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """ArgMax, ArgMin."""
    find = np.argmax if view.op == "ArgMax" else np.argmin
    return _shaped(view, find(operand(values, 0), axis=view.integer("axis", 0)))


def check_global_max_pool(view: LayerView) -> None:
    """``[batch, channel, ...]`` to ``[batch, channel, 1, ...]``."""
    require_arity(view, 1)
    require_dtype(view, view.output(), ("float32",))
    require_same_dtype(view, view.input(0), view.output())
    require_rank(view, view.input(0), 3, 8)
    require_elements(view, view.input(0))
    batch, channels, *spatial = view.input(0).shape
    require_shape(view, view.output(), (batch, channels, *[1] * len(spatial)))


def global_max_pool(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """GlobalMaxPool."""
    data = operand(values, 0)
    return _shaped(view, data.max(axis=tuple(range(2, data.ndim))))
