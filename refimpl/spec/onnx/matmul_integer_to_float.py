"""MatMulIntegerToFloat and DynamicQuantizeMatMul (com.microsoft): products of 8-bit matrices, as float32.

ONNX Runtime makes them of what ``quantize_dynamic`` writes. Source: ``dynamic_quantize_matmul.cc`` and
MLAS's ``MLAS_QGEMM_SCALE_BIAS_OUTPUT_PROCESSOR``, 1.31.1.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import OF_ARM, Rule
from karat24.refimpl.spec.onnx.dynamic_quantize_linear import quantized_to_its_range
from karat24.refimpl.spec.onnx.parameters import Affine, affine_of, require_parameters
from karat24.refimpl.spec.onnx.qlinear_matmul import check_matrices
from karat24.refimpl.spec.onnx.sums import products, zero_of
from karat24.refimpl.spec.shared.fused import fused_multiply_add
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
    per column; the graph may compute all of them."""
    require_arity(view, 4, optional=3)
    for position in (0, 1):
        require_dtype(view, view.input(position), QUANTIZED_8)
    require_dtype(view, view.output(), ("float32",))
    columns = check_matrices(view, 0, 1)
    require_parameters(view, 2, 4, view.input(0).dtype)
    require_parameters(view, 3, 5, view.input(1).dtype, columns)
    _check_bias(view, 6, columns)


def check_dynamic_quantize_matmul(view: LayerView) -> None:
    """Inputs: float32 a, 8-bit b, its scale, optional zero point, optional float32 bias. b's scales are
    one, or one per column."""
    require_arity(view, 3, optional=2)
    require_dtype(view, view.input(0), ("float32",))
    require_dtype(view, view.input(1), QUANTIZED_8)
    require_dtype(view, view.output(), ("float32",))
    columns = check_matrices(view, 0, 1)
    require_parameters(view, 2, 3, view.input(1).dtype, columns)
    _check_bias(view, 4, columns)


def _check_bias(view: LayerView, position: int, columns: int) -> None:
    bias = view.optional_input(position)
    if bias is not None:
        require_dtype(view, bias, ("float32",))
        require_shape(view, bias, (columns,))


def matmul_integer_to_float(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``f32(acc) * f32(s_a * s_b) + bias``, each step rounded to float32; by ``reference_fused`` the last
    product and the sum are rounded once."""
    left = affine_of(view, values, 2, 4, view.input(0).dtype)
    right = affine_of(view, values, 3, 5, view.input(1).dtype)
    bias = values[6] if len(values) > 6 else None
    return _scaled_product(rule, (operand(values, 0), left), (operand(values, 1), right), bias)


def dynamic_quantize_matmul(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``a`` quantized as by DynamicQuantizeLinear, then as :func:`matmul_integer_to_float`."""
    left = quantized_to_its_range(operand(values, 0), on_arm=rule.overflow in OF_ARM)
    right = affine_of(view, values, 2, 3, view.input(1).dtype)
    bias = values[4] if len(values) > 4 else None
    return _scaled_product(rule, left, (operand(values, 1), right), bias)


def _scaled_product(
    rule: Rule, left: tuple[Array, Affine], right: tuple[Array, Affine], bias: Array | None
) -> SpecResult:
    """The product of stored values, scaled by their parameters, plus the bias."""
    a, b = left[0].astype(np.int64), right[0].astype(np.int64)
    acc = wrap32(products(rule, a, zero_of(left[1]), b, right[1].zero_point))
    with np.errstate(over="ignore", invalid="ignore"):
        scale = left[1].scale * right[1].scale
        if bias is not None and rule.method == "reference_fused":
            scale, bias = (np.broadcast_to(factor, acc.shape) for factor in (scale, bias))
            result = fused_multiply_add(acc.astype(np.float32), scale, bias)
        else:
            result = acc.astype(np.float32) * scale
            result = result if bias is None else result + bias
    return SpecResult((result,), acc.astype(np.int32))
