"""The last step of every multiplying kernel: int32 accumulators to int8 or uint8.

Each rounding method is one branch-free loop over channels, which LLVM turns
into vector code. Outputs are handled as bytes: an int8 and a uint8 result have
the same low eight bits, so one compiled function serves both.

Fixed point, with Q0.31 ``multiplier`` q and shift e (positive is left)::

    high   = (wrap32(acc << max(e, 0)) * q + 2**30) >> 31
    result = round(high / 2**max(-e, 0))

``ruy`` rounds the second step half up, ``gemmlowp`` half away from zero. The
two agree for ``high >= 0``, and below zero half away(h) = half up(h - 1): only
an exact tie changes sides. So one loop does both, told apart by a mask per channel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from refimpl.errors import UnsupportedOp
from refimpl.graph import Array, LayerView, Tensor
from refimpl.kernels.fixed_point_block import LANES, requantize_block
from refimpl.kernels.multipliers import (
    combined_scales,
    fixed_point_multipliers,
    output_bounds,
    per_channel,
)
from refimpl.profiles.rules import Method, Rule

FIXED_POINT, FLOAT32, FLOAT64 = 0, 1, 2


class Epilogue(NamedTuple):
    """What a compiled loop needs to requantize; arrays hold one element per output
    channel and LANES more, which are zero.

    ``method`` is one of the constants above. ``left``, ``right`` are the two
    halves of the shift; ``half_bit`` = max(right - 1, 0) is the place of the bit
    that rounds, ``half_mask`` is 1 where there is one. ``away`` is -1 where ties
    below zero go down (gemmlowp), 0 where they go up (ruy). Elements whose flat
    index in the output is ``flat_body`` or more are gemmlowp whatever ``away``
    says. ``low`` and ``high`` bound the result before ``zero_point`` is added.
    """

    method: int
    multiplier: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    half_bit: NDArray[np.int32]
    half_mask: NDArray[np.int32]
    away: NDArray[np.int32]
    gemmlowp: NDArray[np.int32]
    flat_body: int
    scale32: NDArray[np.float32]
    scale64: NDArray[np.float64]
    low: int
    high: int
    zero_point: int


def prepare_epilogue(
    view: LayerView, rule: Rule, input_tensor: Tensor, filter_tensor: Tensor, output: Tensor
) -> Epilogue:
    """The epilogue of a layer that multiplies ``input_tensor`` by ``filter_tensor``.

    The output's innermost dimension is the channel. Raises UnsupportedOp for a
    rounding method that is not defined on accumulators.
    """
    assert filter_tensor.quantization is not None
    scales = combined_scales(
        input_tensor.scale, filter_tensor.quantization.scale, output.scale, rule.multiplier
    )
    activation = view.text("fused_activation_function", "NONE")
    bounds = output_bounds(output, activation, rule.clamp, view)
    return epilogue_for_scales(view, rule, scales, output, bounds)


def epilogue_for_scales(
    view: LayerView,
    rule: Rule,
    scales: NDArray[np.float64],
    output: Tensor,
    bounds: tuple[int, int],
) -> Epilogue:
    """Multiplies accumulators by ``scales`` (one, or one per channel) and rounds as ``rule`` says."""
    channels, size = output.shape[-1], int(np.prod(output.shape))
    method = _METHODS.get(rule.method)
    if method is None or (rule.tail is not None and not _mixes(rule)):
        raise UnsupportedOp(f"{view}: no kernel requantizes accumulators by {rule}")
    if method == FIXED_POINT:
        multiplier, shift = fixed_point_multipliers(scales, view)
    else:
        multiplier = shift = np.zeros(1, np.int32)
    shift = per_channel(shift, channels)
    right = np.maximum(-shift, 0)
    with np.errstate(over="ignore"):
        scale32 = scales.astype(np.float32)
    zero_point = output.zero_point
    return Epilogue(
        method=method,
        multiplier=_column(per_channel(multiplier, channels), np.int32),
        left=_column(np.maximum(shift, 0), np.int32),
        right=_column(right, np.int32),
        half_bit=_column(np.maximum(right - 1, 0), np.int32),
        half_mask=_column(right > 0, np.int32),
        away=_column(_away(rule, channels) & -(right > 0).astype(np.int32), np.int32),
        gemmlowp=_column(-(right > 0).astype(np.int32), np.int32),
        flat_body=size // rule.block * rule.block if rule.block_axis == "flat" else size,
        scale32=_column(per_channel(scale32, channels), np.float32),
        scale64=_column(per_channel(scales, channels), np.float64),
        low=bounds[0] - zero_point,
        high=bounds[1] - zero_point,
        zero_point=zero_point,
    )


_METHODS: dict[Method, int] = {
    "gemmlowp": FIXED_POINT,
    "ruy": FIXED_POINT,
    "float32_half_even": FLOAT32,
    "float64_half_away": FLOAT64,
}


def _mixes(rule: Rule) -> bool:
    """True for the one mixture there is: a ruy body with a gemmlowp tail."""
    return rule.method == "ruy" and rule.tail == "gemmlowp" and rule.block > 0


def _away(rule: Rule, channels: int) -> NDArray[np.int32]:
    """-1 per channel that rounds as gemmlowp, 0 per channel that rounds as ruy."""
    away = np.full(channels, -1 if rule.method == "gemmlowp" else 0, np.int32)
    if rule.block_axis == "channel":
        body = channels // rule.block * rule.block
        away[body:] = -1
    return away


def _column(values: NDArray[Any], dtype: type[Any]) -> NDArray[Any]:
    """The values and a block of zeros: the last block of channels may be loaded whole."""
    return np.concatenate([values.astype(dtype), np.zeros(LANES, dtype)])


@njit(cache=True, nogil=True)
def _fixed_point(
    acc: Array,
    lane: int,
    multiplier: Array,
    left: Array,
    right: Array,
    half_bit: Array,
    half_mask: Array,
    away: Array,
    low: np.int32,
    high: np.int32,
    zero_point: np.int32,
    out: Array,
    at: int,
    step: int,
) -> None:
    channels = multiplier.size
    for pixel in range(acc.shape[0]):
        values = acc[pixel, lane : lane + channels]
        results = out[at + pixel * step : at + pixel * step + channels]
        for c in range(channels):
            shifted = np.int32(values[c] << left[c])
            product = np.int64(shifted) * np.int64(multiplier[c])
            doubled = np.int32((product + np.int64(1 << 30)) >> np.int64(31))
            # |doubled| < 2**31 because multiplier < 2**31, so stepping down by one cannot wrap.
            doubled = np.int32(doubled + np.int32(np.int32(doubled >> np.int32(31)) & away[c]))
            rounding = np.int32(np.int32(doubled >> half_bit[c]) & half_mask[c])
            value = np.int32(np.int32(doubled >> right[c]) + rounding)
            results[c] = np.uint8(np.int32(min(max(value, low), high) + zero_point))


@njit(cache=True, nogil=True)
def _float32(
    acc: Array,
    scale: Array,
    low: np.int32,
    high: np.int32,
    zero_point: np.int32,
    out: Array,
    at: int,
    step: int,
) -> None:
    # Clamping before rounding changes nothing (the bounds are whole) and keeps the cast in range.
    floor, ceiling = np.float32(low), np.float32(high)
    for pixel in range(acc.shape[0]):
        values, results = acc[pixel], out[at + pixel * step : at + pixel * step + scale.size]
        for c in range(scale.size):
            bounded = min(max(np.float32(values[c]) * scale[c], floor), ceiling)
            results[c] = np.uint8(np.int32(np.int32(np.rint(bounded)) + zero_point))


@njit(cache=True, nogil=True)
def _float64(
    acc: Array,
    scale: Array,
    low: np.int32,
    high: np.int32,
    zero_point: np.int32,
    out: Array,
    at: int,
    step: int,
) -> None:
    floor, ceiling = np.float64(low), np.float64(high)
    for pixel in range(acc.shape[0]):
        values, results = acc[pixel], out[at + pixel * step : at + pixel * step + scale.size]
        for c in range(scale.size):
            bounded = min(max(np.float64(values[c]) * scale[c], floor), ceiling)
            whole = np.trunc(bounded)
            # The fraction is exact, and twice it truncates to -1, 0 or 1: half away from zero.
            rounded = whole + np.trunc((bounded - whole) * 2.0)
            results[c] = np.uint8(np.int32(np.int32(rounded) + zero_point))


@njit(cache=True, nogil=True)
def _fixed_point_blocks(
    acc: Array, epilogue: Epilogue, channel: int, channels: int, out: Array, at: int, step: int
) -> None:
    """Blocks of LANES channels, and what is left of them.

    Where the pixels lie side by side, what is left is written as a whole block, too: its
    surplus falls on bytes of later pixels, which are written after it.
    """
    pixels = acc.shape[0]
    blocks = channels // LANES * LANES
    if blocks < channels:
        whole = 0
        if step == channels:
            whole = max((pixels * step - blocks - LANES) // step + 1, 0)
            _block(acc[:whole], epilogue, blocks, channel + blocks, out, at + blocks, step)
        begin, end = channel + blocks, channel + channels
        _fixed_point(
            acc[whole:], blocks, epilogue.multiplier[begin:end], epilogue.left[begin:end],
            epilogue.right[begin:end], epilogue.half_bit[begin:end], epilogue.half_mask[begin:end],
            epilogue.away[begin:end], np.int32(epilogue.low), np.int32(epilogue.high),
            np.int32(epilogue.zero_point), out, at + blocks + whole * step, step,
        )  # fmt: skip
    for block in range(0, blocks, LANES):
        _block(acc, epilogue, block, channel + block, out, at + block, step)


@njit(cache=True, nogil=True)
def _block(acc: Array, epilogue: Epilogue, lane: int, channel: int, out: Array, at: int, step: int) -> None:
    """As :func:`_fixed_point`, for the LANES channels from ``channel`` on, which lie from ``lane`` on."""
    offset = 4 * channel
    requantize_block(
        acc.ctypes.data + 4 * lane, acc.strides[0], acc.shape[0],
        epilogue.multiplier.ctypes.data + offset, epilogue.left.ctypes.data + offset,
        epilogue.right.ctypes.data + offset, epilogue.half_bit.ctypes.data + offset,
        epilogue.half_mask.ctypes.data + offset, epilogue.away.ctypes.data + offset,
        np.int32(epilogue.low), np.int32(epilogue.high), np.int32(epilogue.zero_point),
        out.ctypes.data + at, step,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def requantize_pixels(
    acc: Array, epilogue: Epilogue, channel: int, channels: int, out: Array, at: int, step: int
) -> None:
    """Requantizes ``acc`` (int32 [pixel, lane]) into ``out`` (the whole output's bytes, flat).

    The first ``channels`` lanes are the output channels from ``channel`` on.
    Those of pixel p go to ``out[at + p * step :]``.
    """
    low, high = np.int32(epilogue.low), np.int32(epilogue.high)
    zero_point = np.int32(epilogue.zero_point)
    end = channel + channels
    if epilogue.method == FLOAT32:
        _float32(acc, epilogue.scale32[channel:end], low, high, zero_point, out, at, step)
    elif epilogue.method == FLOAT64:
        _float64(acc, epilogue.scale64[channel:end], low, high, zero_point, out, at, step)
    else:
        _fixed_point_blocks(acc, epilogue, channel, channels, out, at, step)
        _flat_tail(acc, epilogue, channel, channels, out, at, step)


@njit(cache=True, nogil=True)
def _flat_tail(
    acc: Array, epilogue: Epilogue, channel: int, channels: int, out: Array, at: int, step: int
) -> None:
    """Once more, as gemmlowp, for elements behind the last whole block of the flattened output."""
    low, high = np.int32(epilogue.low), np.int32(epilogue.high)
    for pixel in range(acc.shape[0] - 1, -1, -1):
        first = at + pixel * step
        body = min(max(epilogue.flat_body - first, 0), channels)
        if body == channels:
            return
        begin, end = channel + body, channel + channels
        _fixed_point(
            acc[pixel : pixel + 1], body, epilogue.multiplier[begin:end], epilogue.left[begin:end],
            epilogue.right[begin:end], epilogue.half_bit[begin:end], epilogue.half_mask[begin:end],
            epilogue.gemmlowp[begin:end], low, high, np.int32(epilogue.zero_point), out, first + body, step,
        )  # fmt: skip
