"""QGemm (com.microsoft): ``alpha * a @ b + bias``, requantized, or left as float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import effective, requantize
from karat24.refimpl.spec.onnx.parameters import Affine, affine, constant
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
    require_shape,
)
from karat24.refimpl.spec.shared.scales import require_multiplier


def check_qgemm(view: LayerView) -> None:
    """Inputs: a, scale, zero point, b, scale, zero point, optional int32 bias, and the output's scale and
    zero point, which only a float32 output leaves out. Attributes ``transA``, ``transB``, ``alpha``."""
    require_arity(view, 6, optional=3)
    a, b = view.input(0), view.input(3)
    for tensor in (a, b):
        require_dtype(view, tensor, QUANTIZED_8)
        require_rank(view, tensor, 2)
        require_elements(view, tensor)
    rows, depth = a.shape[::-1] if view.integer("transA", 0) else a.shape
    other, columns = b.shape[::-1] if view.integer("transB", 0) else b.shape
    require(view, depth == other, f"{a.shape} times {b.shape}")
    require_shape(view, view.output(), (rows, columns))
    require_dtype(view, view.output(), (*QUANTIZED_8, "float32"))
    quantized = view.optional_input(7) is not None
    require(view, quantized == (view.output().dtype != "float32"), "the output's scale and type disagree")
    bias = view.optional_input(6)
    if bias is not None:
        fits = len(bias.shape) <= 2 and np.broadcast_shapes(bias.shape, (1, 1))[-1] in (1, columns)
        fits = fits and (len(bias.shape) < 2 or bias.shape[0] in (1, rows))
        require(view, bias.dtype == "int32" and fits, f"a bias of {bias.dtype} {bias.shape}")
        constant(view, 6)
    left, right, output = parameters(view)
    for scale in right.scale:
        real = view.real("alpha", 1.0) * float(left.scale[0]) * float(scale)
        real /= 1.0 if output is None else float(output.scale[0])
        require_multiplier(view, real, "alpha * a_scale * b_scale / y_scale")


def parameters(view: LayerView) -> tuple[Affine, Affine, Affine | None]:
    """The parameters of a, b, and of the output unless it is float32."""
    columns = view.output().shape[1]
    output = None
    if view.optional_input(7) is not None:
        output = affine(view, 7, 8, view.output().dtype)
    return (
        affine(view, 1, 2, view.input(0).dtype),
        affine(view, 4, 5, view.input(3).dtype, columns),
        output,
    )


def qgemm(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``y = acc * f32(f32(f32(alpha * s_a) * s_b) / s_y) + zp``."""
    a, b = operand(values, 0).astype(np.int64), operand(values, 3).astype(np.int64)
    left, right, output = parameters(view)
    a, b = a.T if view.integer("transA", 0) else a, b.T if view.integer("transB", 0) else b
    sums = products(rule, a, zero_of(left), b, right.zero_point)
    bias = values[6] if len(values) > 6 else None
    if bias is not None:
        sums = sums + bias.astype(np.int64)
    acc = wrap32(sums)
    if output is None:
        return SpecResult((acc.astype(np.float32) * _scale(view, left, right),), acc.astype(np.int32))
    result = requantized_gemm(view, acc, rule)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),), acc.astype(np.int32))


def requantized_gemm(view: LayerView, acc: Array, rule: Rule) -> Array:
    """Accumulators ``[row, column]`` of a layer with quantized outputs as those outputs, int64."""
    scale = effective_multipliers(view, rule)
    output = parameters(view)[2]
    assert output is not None
    return requantize(view, rule, acc, scale, output)


def effective_multipliers(view: LayerView, rule: Rule) -> Array:
    """``f32(alpha * s_a) * s_b / s_y``, one or one per column."""
    left, right, output = parameters(view)
    require(view, output is not None, "a float32 output is not requantized")
    assert output is not None
    scaled = replace(left, scale=np.float32(view.real("alpha", 1.0)) * left.scale)
    return effective(rule, scaled, right, output)


def _scale(view: LayerView, left: Affine, right: Affine) -> Array:
    """The accumulators' scale ``f32(f32(alpha * s_a) * s_b)``, one or one per column."""
    return np.asarray(np.float32(view.real("alpha", 1.0)) * left.scale * right.scale)
