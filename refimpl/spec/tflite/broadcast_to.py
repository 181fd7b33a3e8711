"""BROADCAST_TO and FILL: values repeated to a given shape."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    INDEX,
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_same_quantization,
    require_shape,
)


def check_broadcast_to(view: LayerView) -> None:
    """Inputs: data, shape (int32 or int64 ``[output rank]``); dimensions of size 1 are repeated."""
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    _check_dimensions(view, 1)
    rank = len(output.shape)
    require(view, len(data.shape) <= rank, f"shape {data.shape} has more dimensions than {output.shape}")
    padded = (1,) * (rank - len(data.shape)) + data.shape
    require(
        view,
        all(size in (1, wanted) for size, wanted in zip(padded, output.shape, strict=True)),
        f"shape {data.shape} does not broadcast to {output.shape}",
    )


def broadcast_to(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """BROADCAST_TO."""
    _check_computed(view, values, 1)
    return SpecResult((np.array(np.broadcast_to(operand(values, 0), view.output().shape)),))


def check_fill(view: LayerView) -> None:
    """Inputs: shape (int32 or int64 ``[output rank]``), one value."""
    require_arity(view, 2)
    value, output = view.input(1), view.output()
    require_same_dtype(view, value, output)
    require_shape(view, value, ())
    if output.dtype in QUANTIZED_8:
        require_same_quantization(view, value, output)
    _check_dimensions(view, 0)


def fill(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """FILL."""
    _check_computed(view, values, 0)
    value = operand(values, 1)
    return SpecResult((np.full(view.output().shape, value, value.dtype),))


def _check_dimensions(view: LayerView, position: int) -> None:
    """Requires that the shape input fits the output's shape: in its length, and in its values if constant."""
    dimensions, output = view.input(position), view.output()
    require_dtype(view, dimensions, INDEX)
    require_shape(view, dimensions, (len(output.shape),))
    if dimensions.known is not None:
        require_shape(view, output, dimensions.known)


def _check_computed(view: LayerView, values: Values, position: int) -> None:
    computed = tuple(int(size) for size in operand(values, position))
    require(
        view,
        computed == view.output().shape,
        f"computed shape {computed}, the file says {view.output().shape}",
    )
