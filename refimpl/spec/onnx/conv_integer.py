"""ConvInteger and MatMulInteger: int32 sums of products of 8-bit values."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.one_axis import as_image
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
    of the filter. The graph may compute them, as for an image quantized on the fly."""
    _check(view)
    check_convolution(as_image(view, 1), 0, 1)
    _check_zero_point(view, 2, 1)
    _check_zero_point(view, 3, view.input(1).shape[0])


def check_matmul_integer(view: LayerView) -> None:
    """Inputs: matrices, optional zero points: one of the left one, one or one per column of the right."""
    _check(view)
    columns = check_matrices(view, 0, 1)
    _check_zero_point(view, 2, 1)
    _check_zero_point(view, 3, columns)


def _check(view: LayerView) -> None:
    require_arity(view, 2, optional=2)
    for position in (0, 1):
        require_dtype(view, view.input(position), QUANTIZED_8)
    require_dtype(view, view.output(), ("int32",))


def _check_zero_point(view: LayerView, position: int, count: int) -> None:
    tensor = view.optional_input(position)
    if tensor is None:
        return
    require(
        view, tensor.dtype == view.input(position - 2).dtype, f"zero point {tensor.name!r} of another type"
    )
    if tensor.shape not in ((), (1,), (count,)):
        raise UnsupportedOp(
            f"{view}: zero points {tensor.name!r} of shape {tensor.shape} are not implemented"
        )


def _zero_point(values: Values, position: int) -> Array:
    """The zero point, ``[n]``, of the tensor two positions before it; 0 where it is left out."""
    given = values[position] if position < len(values) else None
    return np.zeros(1, np.int64) if given is None else given.astype(np.int64).reshape(-1)


def conv_integer(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """ConvInteger."""
    given, view = view, as_image(view, 1)
    over = check_convolution(view, 0, 1)
    image, filters = (operand(values, i).reshape(view.input(i).shape) for i in (0, 1))
    data, weights = (image, int(_zero_point(values, 2)[0])), (filters, _zero_point(values, 3))
    sums = wrap32(convolve(view, rule, over, data, weights)).astype(np.int32)
    return SpecResult((sums.reshape(given.output().shape),))


def matmul_integer(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - arrays say it
    """MatMulInteger."""
    left, right = (operand(values, position).astype(np.int64) for position in (0, 1))
    left_zero, right_zero = int(_zero_point(values, 2)[0]), _zero_point(values, 3)
    result = products(rule, left, left_zero, right, right_zero)
    return SpecResult((wrap32(result).astype(np.int32),))
