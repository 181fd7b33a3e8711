"""From sums of products of int16 and int8 to int16: what a multiplication does by each method.

Sums have 64 bits where an int64 bias, or none, meets a method that takes so many; all others are kept in 32
bits, as the runtimes keep them. Zero points of int16 are 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.graph import LayerView, Tensor
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_inlined
from karat24.refimpl.kernels.rounding.fixed_point import INT32_MIN, gemmlowp, rounded_once, ruy, wrap32
from karat24.refimpl.kernels.rounding.multipliers import (
    combined_scales,
    fixed_point_multipliers,
    output_bounds,
    per_channel,
)
from karat24.refimpl.profiles.rules import Method, Rule

Q15, FLOAT64, GEMMLOWP, RUY, SINGLE = range(5)
_WIDE: dict[Method, int] = {"q15": Q15, "float64_half_away": FLOAT64}
"""Methods of sums of 64 bits."""

_NARROW: dict[Method, int] = {"gemmlowp": GEMMLOWP, "ruy": RUY, "single_rounding": SINGLE}
"""Methods of sums of 32 bits."""

MOST_SHIFT = 14
"""Places that ``q15`` may shift to the left: its shift to the right is by one place at least."""


class WideRequantization(NamedTuple):
    """How sums of 64 bits become outputs, by output channel. Integers are int64 ``[channel]``."""

    wraps: bool
    """Sums are kept in 32 bits."""
    method: int
    """Of channels before ``body``."""
    tail: int
    """Method of the others."""
    body: int
    """The first channel that ``tail`` is for."""
    multiplier: NDArray[np.int64]
    """Q0.31 factor; ``Q15``: Q0.15."""
    shift: NDArray[np.int64]
    """Places to the left, negative to the right; ``Q15``: places to the right, at least 1."""
    scale: NDArray[np.float64]
    """``FLOAT64``: the factor."""
    low: int
    """Least output."""
    high: int
    """Greatest output."""


def prepare_wide_requantization(
    view: LayerView, rule: Rule, data: Tensor, filters: Tensor, bias: Tensor | None
) -> WideRequantization | None:
    """The requantization of an int16 layer that multiplies ``data`` by ``filters``; None where no code here
    rounds as ``rule`` says. Raises UnsupportedOp for scales that no multiplier holds."""
    output = view.output()
    channels, wide = output.shape[-1], rule.method in _WIDE
    method, tail = _WIDE.get(rule.method, _NARROW.get(rule.method)), _NARROW.get(rule.tail or rule.method)
    body = channels
    if rule.tail is not None:
        if wide or rule.block_axis != "channel":
            return None
        body = channels // rule.block * rule.block
    if method is None or (tail is None and not wide):
        return None
    assert filters.quantization is not None
    scales = combined_scales(data.scale, filters.quantization.scale, output.scale, rule.multiplier)
    multiplier, shift = np.zeros((2, channels), np.int64)
    if method != FLOAT64:
        multipliers, shifts = fixed_point_multipliers(scales, view)
        multiplier[:], shift[:] = multipliers, shifts
    if method == Q15:
        if (shift > MOST_SHIFT).any():
            return None
        multiplier, shift = np.minimum((multiplier + 2**15) >> 16, 2**15 - 1), 15 - shift
    low, high = output_bounds(output, view.text("fused_activation_function", "NONE"), rule.clamp, view)
    wraps = not wide or (bias is not None and bias.dtype == "int32")
    return WideRequantization(
        wraps, method, method if tail is None else tail, body, multiplier, shift,
        np.array(per_channel(scales, channels), np.float64), low, high,
    )  # fmt: skip


@no_refcount_inlined
def rescaled(acc: int, method: int, multiplier: int, shift: int, scale: float) -> int:
    """A sum as a channel's output, not clamped: by ``method``, of its multiplier and shift, or its scale."""
    if method == Q15:
        return wrap32((acc * multiplier + (1 << (shift - 1))) >> shift)
    if method == GEMMLOWP:
        return gemmlowp(acc, multiplier, shift)
    if method == RUY:
        return ruy(acc, multiplier, shift)
    if method == SINGLE:
        left = max(shift + 1, 0)
        return rounded_once(wrap32(acc << left), multiplier, shift - left)
    product = np.float64(acc) * scale
    whole = np.trunc(product)
    if abs(product - whole) >= 0.5:  # half away from zero; the difference is exact
        whole += np.copysign(1.0, product)
    # What no int32 holds, x86 converts to the lowest one.
    return int(whole) if -2147483648.0 <= whole < 2147483648.0 else INT32_MIN
