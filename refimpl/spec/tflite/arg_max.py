"""ARG_MAX and ARG_MIN: the first position of the extreme along one axis."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    INDEX,
    constant_integers,
    operand,
    require,
    require_arity,
    require_dtype,
    require_shape,
    resolve_axis,
)


def check_arg_max(view: LayerView) -> None:
    """Inputs: data, axis (one int32 or int64 constant). Attribute ``output_type``: int32 or int64."""
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_dtype(view, data, ("int8", "uint8", "int32", "float32", "bool"))
    require_dtype(view, output, INDEX)
    wanted = view.text("output_type")
    require(view, output.dtype == wanted, f"the output is {output.dtype}, output_type says {wanted}")
    axis = _axis(view)
    require(view, data.shape[axis] > 0, f"axis {axis} of shape {data.shape} is empty")
    require_shape(view, output, (*data.shape[:axis], *data.shape[axis + 1 :]))


def _axis(view: LayerView) -> int:
    axes = constant_integers(view, 1, "the axis")
    require(view, len(axes) == 1, f"{len(axes)} axes given, one is needed")
    return resolve_axis(view, axes[0], len(view.input(0).shape))


def arg_max(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a comparison
    """ARG_MAX; of equal values the first counts."""
    position = np.argmax(operand(values, 0), axis=_axis(view))
    return SpecResult((np.asarray(position, DTYPES[view.output().dtype]),))


def arg_min(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a comparison
    """ARG_MIN; of equal values the first counts."""
    position = np.argmin(operand(values, 0), axis=_axis(view))
    return SpecResult((np.asarray(position, DTYPES[view.output().dtype]),))
