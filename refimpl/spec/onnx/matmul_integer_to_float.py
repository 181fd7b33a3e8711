"""MatMulIntegerToFloat (com.microsoft): a product of int8 or uint8 matrices, as float32."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.parameters import affine
from karat24.refimpl.spec.onnx.qlinear_matmul import check_matrices
from karat24.refimpl.spec.onnx.sums import products, zero_of
from karat24.refimpl.spec.shared.primitives import wrap32
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require_arity,
    require_dtype,
    require_shape,
)


def check_matmul_integer_to_float(view: LayerView) -> None:
    """Inputs: a, b, their scales, optional zero points, optional float32 bias. b's scales are one, or one
    per column."""
    require_arity(view, 4, optional=3)
    for position in (0, 1):
        require_dtype(view, view.input(position), QUANTIZED_8)
    require_dtype(view, view.output(), ("float32",))
    columns = check_matrices(view, 0, 1)
    affine(view, 2, 4, view.input(0).dtype)
    affine(view, 3, 5, view.input(1).dtype, columns)
    bias = view.optional_input(6)
    if bias is not None:
        require_dtype(view, bias, ("float32",))
        require_shape(view, bias, (columns,))


def matmul_integer_to_float(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``f32(acc) * f32(s_a * s_b) + bias``, each step rounded to float32."""
    a, b = operand(values, 0).astype(np.int64), operand(values, 1).astype(np.int64)
    left = affine(view, 2, 4, view.input(0).dtype)
    right = affine(view, 3, 5, view.input(1).dtype, b.shape[-1])
    acc = wrap32(products(rule, a, zero_of(left), b, right.zero_point))
    result = acc.astype(np.float32) * (left.scale * right.scale)
    bias = values[6] if len(values) > 6 else None
    return SpecResult((result if bias is None else result + bias,), acc.astype(np.int32))
