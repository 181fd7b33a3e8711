"""BATCH_MATMUL of int8: matrix products of the last two dimensions, the others broadcast."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
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

MAX_DEPTH = 2**15
"""Sums of fewer products of two differences of 8-bit values cannot overflow int32."""


def check_batch_matmul(view: LayerView) -> None:
    """Two int8 inputs of 2 to 5 dimensions, each computed or constant; attributes ``adj_x`` and ``adj_y``
    transpose the last two dimensions of the left and the right one."""
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
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
    require_multiplier(view, left.scale * right.scale / output.scale, "s_x * s_y / s_out")
    require_inside_int32(view)


def _matrix(shape: tuple[int, ...], transposed: bool) -> tuple[int, int]:
    rows, columns = shape[-2:]
    return (columns, rows) if transposed else (rows, columns)


def batch_matmul(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """One matrix product per batch, int32 sums, requantized by the rule."""
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
