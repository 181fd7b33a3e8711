"""Two columns of a row weighed against each other, channel by channel, in vector registers.

LLVM vectorizes a loop over arrays for hundreds of channels at a time, and computes the few that a pixel has
one by one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from karat24.refimpl.kernels.jit.llvm_ir import (
    INT8,
    INT16,
    constant,
    element,
    fields,
    intrinsic,
    load,
    splat,
    store,
    vector,
)

BLOCKS = (32, 8, 1)
"""Numbers of channels at a time; the widest that fits the channels left is taken."""

_INT16_BYTES = 2
_SIGN = 15


class Rounding(NamedTuple):
    """A division by ``2**places`` that rounds ties up, or away from zero."""

    half: np.int16
    """``2**(places - 1)``, added before."""
    away: np.int16
    """-1 to round ties away from zero: added to what is negative; else 0."""
    places: np.int16
    """Bits shifted out, 1 to 15."""


@intrinsic
def weigh_columns(
    _: Any, left: Any, right: Any, left_weight: Any, right_weight: Any, rounding: Any, channels: Any, out: Any
) -> Any:
    """``out[c] = (left[c] * left_weight + right[c] * right_weight) / 2**places``, rounded.

    ``left`` and ``right`` are addresses of int16 [channels], ``out`` of bytes; the weights are int16, and
    ``rounding`` is a ``Rounding``. Sums must fit int16.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        left, right, *weights, divided, channels, out = arguments
        scalars = [*weights, *fields(builder, divided)]
        begin: Any = constant(0)
        for lanes in BLOCKS:
            kind = vector(INT16, lanes)
            left_weight, right_weight, half, away, places = (splat(builder, x, lanes) for x in scalars)
            sign = ir.Constant(kind, [_SIGN] * lanes)
            end = builder.add(begin, builder.and_(builder.sub(channels, begin), constant(-lanes)))
            with cgutils.for_range_slice(builder, begin, end, constant(lanes)) as (channel, _count):
                a, b = (
                    load(builder, element(builder, row, channel, _INT16_BYTES), kind, _INT16_BYTES)
                    for row in (left, right)
                )
                total = builder.add(builder.mul(a, left_weight), builder.mul(b, right_weight))
                # Half away is half up except for a negative tie; subtracting 1 changes only the tie's result.
                below = builder.and_(builder.ashr(total, sign), away)
                rounded = builder.ashr(builder.add(builder.add(total, half), below), places)
                store(builder, builder.trunc(rounded, vector(INT8, lanes)), builder.add(out, channel), 1)
            begin = end

    count, short = types.int64, types.int16
    return types.void(count, count, short, short, rounding, count, count), codegen
