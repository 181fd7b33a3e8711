"""Bilinear resizing in float32: each pixel times the product of its two weights, summed in one order."""

from __future__ import annotations

from typing import Any

from numba import types

from karat24.refimpl.kernels.jit.llvm_ir import INT8, INT32, intrinsic
from karat24.refimpl.kernels.jit.no_refcount import task_loop


@task_loop
def resize_float(
    image: Any, vertical: Any, horizontal: Any, half: Any, out: Any, begin: int, end: int
) -> None:
    """Output rows ``begin`` … ``end - 1`` of [batch, y, x, channel], each between two input rows.

    ``vertical`` and ``horizontal`` are ``Between``s with float32 weights. Bytes are weighed as stored:
    ``half`` is added and the fraction cut off, which rounds (0.5) or truncates toward zero (0.0). A float32
    sum stays as it is.
    """
    _, out_height, out_width, _ = out.shape
    channels = image.shape[3]
    for row in range(begin, end):
        batch, y = row // out_height, row % out_height
        above, below = image[batch, vertical.lower[y]], image[batch, vertical.upper[y]]
        above_weight, below_weight = vertical.lower_weight[y], vertical.upper_weight[y]
        for x in range(out_width):
            left, right = horizontal.lower[x], horizontal.upper[x]
            a, b, c, d = above[left], above[right], below[left], below[right]
            a_weight = horizontal.lower_weight[x] * above_weight
            b_weight = horizontal.upper_weight[x] * above_weight
            c_weight = horizontal.lower_weight[x] * below_weight
            d_weight = horizontal.upper_weight[x] * below_weight
            cell = out[batch, y, x]
            for k in range(channels):
                total = _real(a[k]) * a_weight + _real(b[k]) * b_weight
                total = total + _real(c[k]) * c_weight
                total = total + _real(d[k]) * d_weight
                cell[k] = _stored(total, half, cell[k])


@intrinsic
def _real(_: Any, value: Any) -> Any:
    """A float32, int8 or uint8 as float32."""

    def codegen(context: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], value, types.float32)

    return types.float32(value), codegen


@intrinsic
def _stored(_: Any, total: Any, half: Any, element: Any) -> Any:
    """``total`` in the type of ``element``, float32 as it is; int8 and uint8 by way of int32."""
    if element == types.float32:
        return element(types.float32, types.float32, element), lambda _, __, ___, arguments: arguments[0]

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.trunc(builder.fptosi(builder.fadd(*arguments[:2]), INT32), INT8)

    return element(types.float32, types.float32, element), codegen
