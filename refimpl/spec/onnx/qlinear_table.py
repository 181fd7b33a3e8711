"""Ops of one value that ONNX Runtime does by a 256-entry table: QLinearLeakyRelu, QLinearSigmoid; and
QLinearConcat, which requantizes each input by one (com.microsoft)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import dequantize, quantize, require_method
from karat24.refimpl.spec.onnx.float32_functions import logistic, nearest_logistic
from karat24.refimpl.spec.onnx.parameters import Affine, affine
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
    require_rank,
    require_same_dtype,
    require_shape,
    resolve_axis,
)


def check_qlinear_unary(view: LayerView) -> None:
    """Inputs: x, scale, zero point, output scale, optional zero point."""
    require_arity(view, 4, optional=1)
    require_dtype(view, view.output(), QUANTIZED_8)
    require_same_dtype(view, view.output(), view.input(0))
    require_shape(view, view.output(), view.input(0).shape)
    _parameters(view)


def _parameters(view: LayerView) -> tuple[Affine, Affine]:
    dtype = view.output().dtype
    return affine(view, 1, 2, dtype), affine(view, 3, 4, dtype)


def _by_table(view: LayerView, values: Values, function: Callable[[Array], Array]) -> SpecResult:
    source, output = _parameters(view)
    result = quantize(function(dequantize(operand(values, 0), source)), output)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),))


def qlinear_leaky_relu(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``x`` from zero up, ``alpha * x`` below, in float32."""
    require_method(view, rule, "float_table")
    alpha = np.float32(view.real("alpha", 0.01))
    return _by_table(view, values, lambda x: np.where(x >= 0, x, alpha * x))


def qlinear_sigmoid(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """MLAS's logistic function of the dequantized value; by ``reference`` the nearest float32 to the true."""
    require_method(view, rule, "float_table", "reference")
    return _by_table(view, values, logistic if rule.method == "float_table" else nearest_logistic)


def check_qlinear_concat(view: LayerView) -> None:
    """Inputs: output scale, zero point, then tensor, scale, zero point for each part; ``axis``."""
    require(view, len(view.inputs) >= 5 and len(view.inputs) % 3 == 2, f"{len(view.inputs)} inputs")
    require_arity(view, len(view.inputs))
    output, first = view.output(), view.input(2)
    require_dtype(view, output, QUANTIZED_8)
    require_rank(view, first, 1, 8)
    axis = resolve_axis(view, view.integer("axis"), len(first.shape))
    total = 0
    affine(view, 0, 1, output.dtype)
    for position in range(2, len(view.inputs), 3):
        part = view.input(position)
        require_same_dtype(view, output, part)
        require_rank(view, part, len(first.shape))
        require_shape(view, part, (*first.shape[:axis], part.shape[axis], *first.shape[axis + 1 :]))
        affine(view, position + 1, position + 2, part.dtype)
        total += part.shape[axis]
    require_shape(view, output, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def qlinear_concat(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Each part dequantized and quantized again, unless it has the output's parameters."""
    require_method(view, rule, "float_table")
    dtype = view.output().dtype
    output = affine(view, 0, 1, dtype)
    parts = []
    for position in range(2, len(view.inputs), 3):
        own = affine(view, position + 1, position + 2, dtype)
        stored = operand(values, position)
        if (own.scale[0], own.zero_point[0]) != (output.scale[0], output.zero_point[0]):
            stored = quantize(dequantize(stored, own), output).astype(DTYPES[dtype])
        parts.append(stored)
    return SpecResult((np.concatenate(parts, axis=view.integer("axis")),))
