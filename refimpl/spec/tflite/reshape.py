"""RESHAPE, SQUEEZE and EXPAND_DIMS: values and their order stay, the shape changes."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import LayerView, Tensor
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


def check_reshape(view: LayerView) -> None:
    """Inputs: data, and optionally the new shape, int32 ``[rank]``; else attribute ``new_shape``.

    Where the shape is computed, only the number of elements is checked before the run.
    """
    require_arity(view, 1, optional=1)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    wanted = view.optional_input(1)
    if wanted is None:
        require_shape(view, output, _stretch(view, data, view.integers("new_shape")))
        return
    if wanted.known is not None:
        require_shape(view, output, _stretch(view, data, constant_integers(view, 1, "the new shape")))
        return
    require(
        view,
        wanted.dtype == "int32" and wanted.shape == (len(output.shape),),
        f"the new shape is {wanted.dtype} {wanted.shape}, int32 ({len(output.shape)},) is needed "
        f"for an output of shape {output.shape}",
    )
    require(
        view,
        math.prod(data.shape) == math.prod(output.shape),
        f"shape {data.shape} cannot become {output.shape}: another number of elements",
    )


def _stretch(view: LayerView, data: Tensor, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """``wanted`` with its -1, if any, replaced by the size that keeps the number of elements."""
    elements = math.prod(data.shape)
    known = math.prod(size for size in wanted if size != -1)
    if any(size < -1 for size in wanted) or wanted.count(-1) > 1:
        raise ModelError(f"{view}: new shape {wanted} needs sizes of 0 or more and at most one -1")
    if -1 in wanted:
        require(
            view,
            known > 0 and elements % known == 0,
            f"shape {data.shape} cannot become {wanted}: {elements} elements are not a multiple of {known}",
        )
        wanted = tuple(elements // known if size == -1 else size for size in wanted)
    require(
        view,
        math.prod(wanted) == elements,
        f"shape {data.shape} cannot become {wanted}: another number of elements",
    )
    return wanted


def reshape(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """RESHAPE. Raises ModelError when a computed shape is not the one the file says."""
    data, output = operand(values, 0), view.output()
    wanted = view.optional_input(1)
    if wanted is not None and not wanted.is_constant:
        computed = _stretch(view, view.input(0), tuple(int(size) for size in operand(values, 1)))
        require(view, computed == output.shape, f"computed shape {computed}, the file says {output.shape}")
    return SpecResult((np.array(data).reshape(output.shape),))


def check_squeeze(view: LayerView) -> None:
    """Attribute ``squeeze_dims``: dimensions of size 1 to drop; empty drops every one."""
    require_arity(view, 1)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    rank = len(data.shape)
    dropped = {resolve_axis(view, axis, rank) for axis in view.integers("squeeze_dims", ())}
    if not view.integers("squeeze_dims", ()):
        dropped = {axis for axis, size in enumerate(data.shape) if size == 1}
    for axis in dropped:
        require(view, data.shape[axis] == 1, f"dimension {axis} of shape {data.shape} is not 1")
    require_shape(view, output, (size for axis, size in enumerate(data.shape) if axis not in dropped))


def check_expand_dims(view: LayerView) -> None:
    """Inputs: data, axis (one int32 or int64 constant, ``-rank - 1 .. rank``)."""
    require_arity(view, 2)
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    axes = constant_integers(view, 1, "the axis")
    require(view, len(axes) == 1, f"{len(axes)} axes given, one is needed")
    axis = resolve_axis(view, axes[0], len(data.shape) + 1)
    require_shape(view, output, (*data.shape[:axis], 1, *data.shape[axis:]))


def same_values(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """SQUEEZE and EXPAND_DIMS, which only give the values the output's shape."""
    return SpecResult((np.array(operand(values, 0)).reshape(view.output().shape),))
