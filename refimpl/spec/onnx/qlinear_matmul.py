"""QLinearMatMul: a product of int8 or uint8 matrices, requantized."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import effective, requantize
from karat24.refimpl.spec.onnx.parameters import Affine, affine
from karat24.refimpl.spec.onnx.sums import products, zero_of
from karat24.refimpl.spec.shared.primitives import wrap32
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.shared.scales import require_multiplier


def check_matrices(view: LayerView, left: int, right: int) -> int:
    """``[..., row, depth]`` times ``[..., depth, column]``, leading axes broadcast; returns the columns."""
    a, b = view.input(left), view.input(right)
    for tensor in (a, b):
        require_rank(view, tensor, 2, 8)
        require_elements(view, tensor)
    require(view, a.shape[-1] == b.shape[-2], f"{a.shape} times {b.shape}")
    try:
        leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        leading = (-1,)
    require(view, -1 not in leading, f"{a.shape} times {b.shape} does not broadcast")
    require_shape(view, view.output(), (*leading, a.shape[-2], b.shape[-1]))
    return b.shape[-1]


def check_qlinear_matmul(view: LayerView) -> None:
    """Inputs: a, scale, zero point, b, scale, zero point, output scale, zero point. b's scales are one,
    or one per column. Scales are float32, or all float16."""
    require_arity(view, 8)
    for tensor in (view.input(0), view.input(3), view.output()):
        require_dtype(view, tensor, QUANTIZED_8)
    check_matrices(view, 0, 3)
    require_same_dtype(view, view.input(1), view.input(4), view.input(6))
    left, right, output = parameters(view)
    for scale in right.scale:
        real = float(left.scale[0]) * float(scale) / float(output.scale[0])
        require_multiplier(view, real, "a_scale * b_scale / y_scale")


def parameters(view: LayerView) -> tuple[Affine, Affine, Affine]:
    """The parameters of a, b and the output; b's scales are one, or one per column."""
    columns = view.input(3).shape[-1]
    types = ("float32", "float16")
    return (
        affine(view, 1, 2, view.input(0).dtype, scale_types=types),
        affine(view, 4, 5, view.input(3).dtype, columns, types),
        affine(view, 6, 7, view.output().dtype, scale_types=types),
    )


def qlinear_matmul(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``y = acc * f32(f32(s_a * s_b) / s_y) + zp``.

    The specification works out the ratio of float16 scales in float16, ONNX Runtime in float32.
    """
    a, b = operand(values, 0).astype(np.int64), operand(values, 3).astype(np.int64)
    left, right, _ = parameters(view)
    acc = wrap32(products(rule, a, zero_of(left), b, right.zero_point))
    result = requantized_product(view, acc, rule)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),), acc.astype(np.int32))


def requantized_product(view: LayerView, acc: Array, rule: Rule) -> Array:
    """Accumulators ``[..., row, column]`` as quantized outputs, int64."""
    return requantize(view, rule, acc, effective_multipliers(view, rule), parameters(view)[2])


def effective_multipliers(view: LayerView, rule: Rule) -> Array:
    """``s_a * s_b / s_y``, one or one per column."""
    left, right, output = parameters(view)
    if left.scale.dtype == np.float16 and rule.method == "float64_zero_point_first":
        return np.asarray(left.scale * right.scale / output.scale)
    return effective(rule, left, right, output)
