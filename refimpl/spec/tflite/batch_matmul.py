"""BATCH_MATMUL: matrix products of the last two dimensions, the others broadcast.

Source of the products of float32 data: TFLite ``EvalHybrid`` and ``reference_ops::BatchMatMul``.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import effective_multiplier, requantize, wrap32
from karat24.refimpl.spec.shared.requirements import (
    broadcast,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_rank,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.shared.scales import require_inside_int32, require_multiplier
from karat24.refimpl.spec.tflite.hybrid import quantized_rows, scaled
from karat24.refimpl.spec.tflite.weights import scales_of

MAX_DEPTH = 2**15
"""Sums of fewer products of two differences of 8-bit values cannot overflow int32."""


def check_batch_matmul(view: LayerView) -> None:
    """Two int8 inputs of 2 to 5 dimensions, each computed or constant; attributes ``adj_x`` and ``adj_y``
    transpose the last two dimensions of the left and the right one.

    Behind float32 data the second input is constant, int8 with zero point 0, with one scale or one for each
    column. Then no more than one dimension before the last two of an input is above 1: the kernel takes
    the steps of other rows where two are.
    """
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
    if left.dtype == "float32":
        _require_hybrid(view, right, output)
    else:
        require_dtype(view, left, ("int8",))
        require_same_dtype(view, left, right, output)
        require_quantized(view, left, right, output)
    for tensor in (left, right):
        require_rank(view, tensor, 2, 5)
        require_elements(view, tensor)
    rows, depth = _matrix(left.shape, view.flag("adj_x"))
    other_depth, columns = _matrix(right.shape, view.flag("adj_y"))
    require(view, depth == other_depth, f"rows of {depth} values times columns of {other_depth}")
    require(view, depth < MAX_DEPTH, f"sums of {depth} products; at most {MAX_DEPTH - 1} are handled")
    require_shape(view, output, (*broadcast(view, left.shape[:-2], right.shape[:-2]), rows, columns))
    if left.dtype != "float32":
        require_multiplier(view, left.scale * right.scale / output.scale, "s_x * s_y / s_out")
        require_inside_int32(view)


def _require_hybrid(view: LayerView, right: Tensor, output: Tensor) -> None:
    require_dtype(view, right, ("int8",))
    require_dtype(view, output, ("float32",))
    label = f"tensor {right.index} ({right.name!r})"
    if not right.is_constant:
        raise UnsupportedOp(f"{view}: {label} is computed; behind float32 data only constants are handled")
    quantization = right.quantization
    require(view, quantization is not None, f"{label} has no quantization parameters")
    assert quantization is not None
    require(view, not any(quantization.zero_point), f"{label} has a zero point that is not 0")
    if quantization.per_channel:
        axis = len(right.shape) - (2 if view.flag("adj_y") else 1)
        require(
            view,
            quantization.axis == axis,
            f"{label} is quantized along axis {quantization.axis}; axis {axis} is needed",
        )
    for tensor in (view.input(0), right):
        if sum(size > 1 for size in tensor.shape[:-2]) > 1:
            raise UnsupportedOp(
                f"{view}: tensor {tensor.index} ({tensor.name!r}) has shape {tensor.shape}; of float32 data "
                "karat24 implements products with one dimension above 1 before the last two"
            )


def _matrix(shape: tuple[int, ...], transposed: bool) -> tuple[int, int]:
    rows, columns = shape[-2:]
    return (columns, rows) if transposed else (rows, columns)


def batch_matmul(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """One matrix product per batch, int32 sums, requantized by the rule; of float32 data scaled."""
    if view.input(0).dtype == "float32":
        return _hybrid(view, values, rule)
    output = view.output()
    left, right = (_centred(view, values, position, flag) for position, flag in enumerate(("adj_x", "adj_y")))
    batch = output.shape[:-2]
    left = np.broadcast_to(left, (*batch, *left.shape[-2:])).reshape(math.prod(batch), *left.shape[-2:])
    right = np.broadcast_to(right, (*batch, *right.shape[-2:])).reshape(math.prod(batch), *right.shape[-2:])
    acc = wrap32(np.stack([x @ y for x, y in zip(left, right, strict=True)]).reshape(output.shape))
    effective = effective_multiplier(rule.multiplier, view.input(0).scale, view.input(1).scale, output.scale)
    result = requantize(acc, effective, rule, output.zero_point, -128, 127)
    return SpecResult((result.astype(np.int8),), acc.astype(np.int32))


def _centred(view: LayerView, values: Values, position: int, flag: str) -> Array:
    tensor = operand(values, position).astype(np.int64) - view.input(position).zero_point
    return np.swapaxes(tensor, -1, -2) if view.flag(flag) else tensor


def _hybrid(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Each row of the data is quantized, its sums times its step and the scale of the column.

    TFLite's kernel computes ``sum(row * column) - zero_point * sum(column)`` in float32, XNNPACK in int32.
    """
    data, right = operand(values, 0), operand(values, 1).astype(np.int64)
    data = np.swapaxes(data, -1, -2) if view.flag("adj_x") else data
    right = np.swapaxes(right, -1, -2) if view.flag("adj_y") else right
    rows = quantized_rows(view, data.reshape(-1, data.shape[-1]), rule.rows)
    centred = rows.centred.reshape(data.shape)
    steps, zero_points = (part.reshape(*data.shape[:-1], 1) for part in (rows.steps, rows.zero_points))
    acc = centred @ right
    sums = acc.astype(np.float32)
    if not rule.rows.startswith("xnnpack"):
        offset = right.sum(axis=-2, keepdims=True).astype(np.float32) * zero_points.astype(np.float32)
        sums = ((centred + zero_points) @ right).astype(np.float32) - offset
    scales = np.array(scales_of(view.input(1)), np.float32)
    result = scaled(sums, steps, scales, None, rule.method)
    return SpecResult((result.astype(np.float32),), acc.astype(np.int32))
