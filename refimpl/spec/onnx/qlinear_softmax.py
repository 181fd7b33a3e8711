"""QLinearSoftmax (com.microsoft): exponentials from a table, one float32 sum per row."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import require_method
from karat24.refimpl.spec.onnx.parameters import affine
from karat24.refimpl.spec.onnx.qlinear_table import check_qlinear_unary
from karat24.refimpl.spec.onnx.sums import zero_of
from karat24.refimpl.spec.shared.requirements import operand, require_elements, resolve_axis


def check_qlinear_softmax(view: LayerView) -> None:
    """Inputs: x, scale, zero point, output scale, optional zero point; attributes ``axis``, ``opset``.

    ``opset`` is that of the Softmax this stands for: below 13 all axes from ``axis`` on are one row.
    """
    check_qlinear_unary(view)
    require_elements(view, view.input(0))
    resolve_axis(view, view.integer("axis", -1), len(view.input(0).shape))
    view.integer("opset")


def qlinear_softmax(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``rint(f32(e * floor(1 / s_y)) / sum) + zp`` with ``e = f32(exp((q - max) * s_x))``.

    The exponential is float64 rounded to float32, the sum float32, one value after the other. The
    input's zero point cancels.
    """
    require_method(view, rule, "float_table")
    dtype = view.output().dtype
    source, output = affine(view, 1, 2, dtype), affine(view, 3, 4, dtype)
    data = operand(values, 0).astype(np.int64)
    axis = resolve_axis(view, view.integer("axis", -1), data.ndim)
    by_axis = view.integer("opset") >= 13
    along = np.moveaxis(data, axis, -1) if by_axis else data
    depth = along.shape[-1] if by_axis else math.prod(data.shape[axis:])
    rows = along.reshape(-1, depth)
    distance = rows - rows.max(axis=1, keepdims=True)
    exponentials = np.exp(distance * np.float64(source.scale[0])).astype(np.float32)
    total = np.zeros(rows.shape[0], np.float32)
    for column in range(depth):
        total = total + exponentials[:, column]
    steps = np.floor(np.float32(1) / output.scale[0])
    result = np.rint(exponentials * steps / total[:, None]) + np.float32(zero_of(output))
    stored = np.clip(result, output.low, output.high).astype(DTYPES[dtype]).reshape(along.shape)
    if by_axis:
        stored = np.ascontiguousarray(np.moveaxis(stored, -1, axis))
    return SpecResult((stored,))
