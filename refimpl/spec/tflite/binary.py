"""ADD, SUB and MUL: the check of their operands, and their unquantized forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import ACTIVATION_BOUNDS, activation_range, wrap32
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    broadcast_shape,
    operand,
    require_activation,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_same_dtype,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.shared.scales import require_bounds

PLAIN = ("int32", "float32")
"""Element types computed without quantization."""

BROADCAST_RANK = 4
"""The most dimensions of unequal shapes; some of the runtimes refuse more."""


def check_binary(view: LayerView) -> None:
    """Two inputs and an output of one element type, the output of the broadcast shape.

    int8, uint8 and int16 have one scale and zero point per tensor; int32 and float32 are
    computed as they are.
    """
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
    require_dtype(view, left, QUANTIZED + PLAIN)
    require_same_dtype(view, left, right, output)
    activation = require_activation(view, ACTIVATION_BOUNDS)
    require_shape(view, output, broadcast_shape(view, left, right))
    require_elements(view, output)
    if left.shape != right.shape and len(output.shape) > BROADCAST_RANK:
        raise UnsupportedOp(
            f"{view}: shapes {left.shape} and {right.shape} are broadcast over {len(output.shape)} "
            f"dimensions; at most {BROADCAST_RANK} are implemented"
        )
    if output.dtype in QUANTIZED:
        require_quantized(view, left, right, output)
        require_symmetric(view, left, right, output)
        require_bounds(view, activation, output)


def plain(view: LayerView, values: Values, compute: Callable[[Array, Array], Array]) -> SpecResult:
    """``compute(left, right)`` in int32 (wrapping) or float32, then the fused activation."""
    output = view.output()
    left, right = operand(values, 0), operand(values, 1)
    low, high = ACTIVATION_BOUNDS[view.text("fused_activation_function", "NONE")]
    if output.dtype == "float32":
        with np.errstate(all="ignore"):
            result = compute(left, right)
        return SpecResult((np.clip(result, np.float32(low), np.float32(high)),))
    whole = wrap32(compute(left.astype(np.int64), right.astype(np.int64)))
    return SpecResult((np.clip(whole, max(low, -(2**31)), min(high, 2**31 - 1)).astype(np.int32),))


def is_plain(view: LayerView) -> bool:
    """True when the layer works on int32 or float32 values."""
    return view.output().dtype in PLAIN


def zero_points_removed(view: LayerView, values: Values) -> tuple[Array, Array]:
    """Both operands as int64 without their zero points, broadcast to the output's shape."""
    shape = view.output().shape
    left = operand(values, 0).astype(np.int64) - view.input(0).zero_point
    right = operand(values, 1).astype(np.int64) - view.input(1).zero_point
    return np.broadcast_to(left, shape), np.broadcast_to(right, shape)


def bounds(view: LayerView, rule: Rule) -> tuple[int, int]:
    """``(low, high)`` of the quantized output under the fused activation."""
    output = view.output()
    activation = view.text("fused_activation_function", "NONE")
    return activation_range(activation, output.scale, output.zero_point, output.dtype, rule.clamp)


def stored(view: LayerView, result: Array) -> SpecResult:
    """``result``, already within range, in the output's element type."""
    return SpecResult((result.astype(DTYPES[view.output().dtype]),))
