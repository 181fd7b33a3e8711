"""QLinearMatMul: a product of int8 or uint8 matrices, requantized."""

from __future__ import annotations

import numpy as np

from refimpl.contract import SpecResult, Values
from refimpl.graph import DTYPES, LayerView
from refimpl.profiles.rules import Rule
from refimpl.spec.onnx.arithmetic import requantize
from refimpl.spec.onnx.parameters import affine
from refimpl.spec.onnx.sums import products, zero_of
from refimpl.spec.primitives import wrap32
from refimpl.spec.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_shape,
)
from refimpl.spec.scales import require_multiplier


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
    or one per column."""
    require_arity(view, 8)
    for tensor in (view.input(0), view.input(3), view.output()):
        require_dtype(view, tensor, QUANTIZED_8)
    columns = check_matrices(view, 0, 3)
    left, right = affine(view, 1, 2, view.input(0).dtype), affine(view, 4, 5, view.input(3).dtype, columns)
    output = affine(view, 6, 7, view.output().dtype)
    for scale in right.scale:
        real = float(left.scale[0]) * float(scale) / float(output.scale[0])
        require_multiplier(view, real, "a_scale * b_scale / y_scale")


def qlinear_matmul(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``y = acc * f32(f32(s_a * s_b) / s_y) + zp``."""
    a, b = operand(values, 0).astype(np.int64), operand(values, 3).astype(np.int64)
    left = affine(view, 1, 2, view.input(0).dtype)
    right = affine(view, 4, 5, view.input(3).dtype, b.shape[-1])
    output = affine(view, 6, 7, view.output().dtype)
    acc = wrap32(products(rule, a, zero_of(left), b, right.zero_point))
    result = requantize(view, rule, acc, left.scale * right.scale / output.scale, output)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),), acc.astype(np.int32))
