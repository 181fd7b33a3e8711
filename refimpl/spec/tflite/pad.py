"""PAD and PADV2: a border of the zero point, or of a given value, around the input."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    constant_integers,
    operand,
    require,
    require_arity,
    require_same_dtype,
    require_same_quantization,
    require_shape,
)


def check_pad(view: LayerView) -> None:
    """Inputs: data, paddings (int32 or int64 constant ``[rank, 2]``: before, after)."""
    require_arity(view, 2)
    _check_border(view)


def check_padv2(view: LayerView) -> None:
    """Inputs: data, paddings as in PAD, the value to pad with (one element, the output's parameters)."""
    require_arity(view, 3)
    _check_border(view)
    value, output = view.input(2), view.output()
    require_same_dtype(view, value, output)
    require(view, value.shape in ((), (1,)), f"the pad value has shape {value.shape}, one value is needed")
    if output.dtype in QUANTIZED_8:
        require_same_quantization(view, value, output)


def _check_border(view: LayerView) -> None:
    data, output = view.input(0), view.output()
    require_same_dtype(view, data, output)
    sizes = zip(data.shape, paddings(view), strict=True)
    require_shape(view, output, (before + size + after for size, (before, after) in sizes))


def paddings(view: LayerView) -> tuple[tuple[int, int], ...]:
    """Elements added before and after, per dimension; checked to be 0 or more."""
    rank = len(view.input(0).shape)
    flat = constant_integers(view, 1, "the list of paddings", (rank, 2))
    require(view, all(count >= 0 for count in flat), f"paddings {flat} hold a negative number")
    return tuple((flat[2 * axis], flat[2 * axis + 1]) for axis in range(rank))


def pad_value(view: LayerView) -> int:
    """The value of PAD's border: the quantized zero, or 0 where the output is not quantized."""
    output = view.output()
    if output.dtype in QUANTIZED_RANGE and output.quantization is not None:
        return output.quantization.zero_point[0]
    return 0


def pad(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """PAD."""
    return _bordered(view, operand(values, 0), np.asarray(pad_value(view), view.output().dtype))


def padv2(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """PADV2."""
    return _bordered(view, operand(values, 0), operand(values, 2).reshape(()))


def _bordered(view: LayerView, data: Array, value: Array) -> SpecResult:
    output = np.full(view.output().shape, value, data.dtype)
    inner = tuple(
        slice(before, before + size) for size, (before, _) in zip(data.shape, paddings(view), strict=True)
    )
    output[inner] = data
    return SpecResult((output,))
