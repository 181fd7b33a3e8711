"""ConvInteger and MatMulInteger: int32 sums of products of 8-bit values."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.parameters import constant
from karat24.refimpl.spec.onnx.qlinear_matmul import check_matrices
from karat24.refimpl.spec.onnx.sums import check_convolution, convolve, products
from karat24.refimpl.spec.shared.primitives import wrap32
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
)


def check_conv_integer(view: LayerView) -> None:
    """Inputs: image, filter OIHW, optional zero points: one of the image, one or one per output channel
    of the filter."""
    _check(view)
    check_convolution(view, 0, 1)
    _zero_point(view, 2, 1)
    _zero_point(view, 3, view.input(1).shape[0])


def check_matmul_integer(view: LayerView) -> None:
    """Inputs: matrices, optional zero points: one of the left one, one or one per column of the right."""
    _check(view)
    columns = check_matrices(view, 0, 1)
    _zero_point(view, 2, 1)
    _zero_point(view, 3, columns)


def _check(view: LayerView) -> None:
    require_arity(view, 2, optional=2)
    for position in (0, 1):
        require_dtype(view, view.input(position), QUANTIZED_8)
    require_dtype(view, view.output(), ("int32",))


def _zero_point(view: LayerView, position: int, count: int) -> Array:
    tensor = view.optional_input(position)
    if tensor is None:
        return np.zeros(1, np.int64)
    require(
        view, tensor.dtype == view.input(position - 2).dtype, f"zero point {tensor.name!r} of another type"
    )
    values = constant(view, position).astype(np.int64).reshape(-1)
    if len(tensor.shape) > 1 or values.size not in (1, count):
        raise UnsupportedOp(
            f"{view}: zero points {tensor.name!r} of shape {tensor.shape} are not implemented"
        )
    return values


def conv_integer(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """ConvInteger."""
    over = check_convolution(view, 0, 1)
    data = operand(values, 0), int(_zero_point(view, 2, 1)[0])
    weights = operand(values, 1), _zero_point(view, 3, view.input(1).shape[0])
    return SpecResult((wrap32(convolve(view, rule, over, data, weights)).astype(np.int32),))


def matmul_integer(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """MatMulInteger."""
    left, right = (operand(values, position).astype(np.int64) for position in (0, 1))
    left_zero, right_zero = int(_zero_point(view, 2, 1)[0]), _zero_point(view, 3, right.shape[-1])
    result = products(rule, left, left_zero, right, right_zero)
    return SpecResult((wrap32(result).astype(np.int32),))
