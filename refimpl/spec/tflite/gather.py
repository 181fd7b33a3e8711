"""GATHER: slices of the input, chosen by index along one axis."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    INDEX,
    operand,
    require,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_shape,
    resolve_axis,
)


def check_gather(view: LayerView) -> None:
    """Inputs: data, positions (int32 or int64). Attributes ``axis`` and ``batch_dims``:
    that many leading dimensions belong to both inputs."""
    require_arity(view, 2)
    data, positions, output = view.input(0), view.input(1), view.output()
    require_same_dtype(view, data, output)
    require_dtype(view, positions, INDEX)
    axis, batch = _axis_and_batch(view)
    require(
        view,
        data.shape[:batch] == positions.shape[:batch],
        f"the first {batch} dimensions of {data.shape} and of positions {positions.shape} differ",
    )
    require_shape(view, output, (*data.shape[:axis], *positions.shape[batch:], *data.shape[axis + 1 :]))
    if positions.data is not None:
        _check_positions(view, positions.data)


def _axis_and_batch(view: LayerView) -> tuple[int, int]:
    data, positions = view.input(0), view.input(1)
    axis = resolve_axis(view, view.integer("axis", 0), len(data.shape))
    batch, rank = view.integer("batch_dims", 0), len(positions.shape)
    require(view, -rank <= batch <= rank, f"batch_dims {batch} for positions of shape {positions.shape}")
    batch = batch + rank if batch < 0 else batch
    require(view, batch <= axis, f"batch_dims {batch} exceed axis {axis}")
    return axis, batch


def _check_positions(view: LayerView, positions: Array) -> None:
    axis, _ = _axis_and_batch(view)
    size = view.input(0).shape[axis]
    outside = positions[(positions < 0) | (positions >= size)]
    if outside.size:
        require(view, False, f"position {outside.flat[0]} lies outside axis {axis}, which has size {size}")


def gather(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """GATHER. Raises ModelError for a computed position outside the axis."""
    data, positions = operand(values, 0), operand(values, 1)
    _check_positions(view, positions)
    axis, batch = _axis_and_batch(view)
    output = np.empty(view.output().shape, data.dtype)
    for where in np.ndindex(*data.shape[:batch]):
        output[where] = np.take(data[where], positions[where], axis=axis - batch)
    return SpecResult((output,))
