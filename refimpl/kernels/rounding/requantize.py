"""The last step of every multiplying kernel: int32 accumulators to int8 or uint8.

Channels go through ``karat24.refimpl.kernels.rounding.requantize_block`` in blocks. Outputs are handled as
bytes: an int8 and a uint8 result have the same low eight bits, so one compiled function
serves both.

Fixed point, with Q0.31 ``multiplier`` q and shift e (positive is left)::

    high   = (wrap32(acc << max(e, 0)) * q + 2**30) >> 31
    result = round(high / 2**max(-e, 0))

``ruy`` rounds the second step half up, ``gemmlowp`` half away from zero: they differ by
what is added to a negative product, so one loop does both. ``single_rounding`` and ``rndnu`` lack the first
``2**30``: they round once. So does ``gemmlowp_saturating`` where it shifts to the left: what then saturates
lies far beyond a byte in any case.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView, Tensor
from karat24.refimpl.kernels.jit.callee import Callee
from karat24.refimpl.kernels.jit.memory import copy_int32, word
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_inlined, no_refcount_inside
from karat24.refimpl.kernels.rounding.byte_table import look_up_bytes
from karat24.refimpl.kernels.rounding.multipliers import (
    combined_scales,
    fixed_point_multipliers,
    output_bounds,
    per_channel,
)
from karat24.refimpl.kernels.rounding.requantize_block import (
    LANES,
    AccumulatorBlock,
    Bounds,
    FixedPointColumns,
    ResultBlock,
    requantize_fixed_point,
    requantize_float32,
    requantize_float64,
)
from karat24.refimpl.profiles.rules import Method, Rule

FIXED_POINT, FLOAT32, FLOAT64 = 0, 1, 2

_SIGN = -(1 << 31)
"""The sign bit of a float32."""


_METHOD, _PITCH, _FLAT_BODY, _LOW, _HIGH, _ZERO_POINT, _HALF, _TABLE, _HEAD = range(9)
"""Words of an epilogue in memory, before its columns: its numbers, words from a column to the next, and words
before its table, 0 without one."""

_COLUMNS = (
    "multiplier", "left", "shift", "rounding", "rounding_below", "rounding_away",
    "nudge", "signed", "always_signed", "scale32", "scale64",
)  # fmt: skip
(
    _MULTIPLIER, _LEFT, _SHIFT, _ROUNDING, _BELOW, _AWAY, _NUDGE, _SIGNED, _ALWAYS_SIGNED, _SCALE32, _SCALE64
) = range(len(_COLUMNS))  # fmt: skip


class Requantization(NamedTuple):
    """An epilogue as compiled loops take it. They call (``call_by_address``)::

        function(epilogue, acc, acc_step, pixels, channel, channels, out, at, step, acc_out)

    with addresses of ``epilogue``, accumulators and outputs: see ``_requantize``.
    """

    function: Callee
    epilogue: NDArray[np.int64]


class Epilogue(NamedTuple):
    """What a compiled loop needs to requantize accumulators.

    Arrays hold one element per output channel and LANES zeros more: the last block of channels may be loaded
    whole. Fixed point computes ``((acc << left) * multiplier + rounding) >> shift``.
    """

    method: int
    """FIXED_POINT, FLOAT32 or FLOAT64."""
    multiplier: NDArray[np.int32]
    """Fixed point: Q0.31 factor, 0 … 2**31 - 1."""
    left: NDArray[np.int32]
    """Fixed point: places the accumulator is shifted to the left first, 0 … 31."""
    shift: NDArray[np.int64]
    """Fixed point: places the product is shifted to the right, 1 … 62."""
    rounding: NDArray[np.int64]
    """Fixed point: added to a product of 0 or more before it is shifted."""
    rounding_below: NDArray[np.int64]
    """Fixed point: added to a negative product."""
    rounding_away: NDArray[np.int64]
    """Fixed point: added to a negative product by gemmlowp, whose ties go away from zero."""
    flat_body: int
    """Elements with this index in the flat output, or a larger one, round as gemmlowp."""
    nudge: NDArray[np.float32]
    """Fixed point in float32: the first rounding's part of a step (``requantize_block``)."""
    signed: NDArray[np.int32]
    """The sign bit of a float32 in channels that round as gemmlowp: their nudge takes the sum's sign."""
    always_signed: NDArray[np.int32]
    """The sign bit in every channel: all of them round as gemmlowp."""
    half: np.float32
    """Fixed point in float32: one half, or 0 where every result is computed exactly."""
    scale32: NDArray[np.float32]
    """Output steps per unit of the accumulator; fixed point: nearly."""
    scale64: NDArray[np.float64]
    """Output steps per unit of the accumulator."""
    low: int
    """Least result before the zero point is added."""
    high: int
    """Greatest result before the zero point is added."""
    zero_point: int
    """The output's zero point."""
    table: NDArray[np.uint8] = np.empty(0, np.uint8)
    """Byte to byte, [256], applied to the result; empty for none."""

    def repeated(self, count: int) -> Epilogue:
        """This epilogue for ``count`` times as many channels: all of them, repeated ``count`` times."""
        columns = {
            name: _column(np.tile(values[:-LANES], count), values.dtype)
            for name, values in self._asdict().items()
            if isinstance(values, np.ndarray) and name != "table"
        }
        return Epilogue(**(self._asdict() | columns))

    def followed_by(self, table: NDArray[np.uint8]) -> Epilogue:
        """This epilogue, its results looked up in ``table``, [256]."""
        return self._replace(table=table[self.table] if self.table.size else table)


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
    left = np.maximum(shift, 0)
    right = (left - shift).astype(np.int64)
    rounding = np.int64(1 << 30) + np.where(right > 0, np.int64(1 << 30) << right, 0)
    rounding_away = rounding - np.where(right > 0, np.int64(1 << 31), 0)
    nudge = np.where(right > 0, 2.0 ** -(1 + right), 0)
    if rule.method in ("single_rounding", "rndnu"):
        left = np.maximum(shift + 1, 0) if rule.method == "single_rounding" else np.zeros_like(shift)
        right = (left - shift).astype(np.int64)
        rounding = rounding_away = np.int64(1) << (30 + right)
        nudge = np.zeros(channels)
    elif rule.method == "gemmlowp_saturating":
        left, right = np.zeros_like(shift), -shift.astype(np.int64)
        once = np.int64(1) << (30 + right)
        rounding, rounding_away = (np.where(right < 0, once, twice) for twice in (rounding, rounding_away))
    away = _away(rule, channels)
    with np.errstate(over="ignore"):
        scale32 = scales.astype(np.float32)
    half = np.float32(0.5)
    if method == FIXED_POINT:
        scale32 = np.ldexp(per_channel(multiplier, channels), -31 - right)
    if left.max(initial=0) > 0:  # a wrapped sum needs integers: with half = 0 every result counts as in doubt
        scale32, nudge, half = 0 * scale32, 0 * nudge, np.float32(0)
    zero_point = output.zero_point
    return Epilogue(
        method=method,
        multiplier=_column(per_channel(multiplier, channels), np.int32),
        left=_column(left, np.int32),
        shift=_column(31 + right, np.int64),
        rounding=_column(rounding, np.int64),
        rounding_below=_column(np.where(away, rounding_away, rounding), np.int64),
        rounding_away=_column(rounding_away, np.int64),
        flat_body=size // rule.block * rule.block if rule.block_axis == "flat" else size,
        nudge=_column(nudge, np.float32),
        signed=_column(np.where(away, _SIGN, 0), np.int32),
        always_signed=_column(np.full(channels, _SIGN), np.int32),
        half=half,
        scale32=_column(per_channel(scale32, channels), np.float32),
        scale64=_column(per_channel(scales, channels), np.float64),
        low=bounds[0] - zero_point,
        high=bounds[1] - zero_point,
        zero_point=zero_point,
    )


_METHODS: dict[Method, int] = {
    "gemmlowp": FIXED_POINT,
    "gemmlowp_saturating": FIXED_POINT,
    "ruy": FIXED_POINT,
    "single_rounding": FIXED_POINT,
    "rndnu": FIXED_POINT,
    "float32_half_even": FLOAT32,
    "float64_half_away": FLOAT64,
}


def _mixes(rule: Rule) -> bool:
    """True for the one mixture there is: a ruy body with a gemmlowp tail."""
    return rule.method == "ruy" and rule.tail == "gemmlowp" and rule.block > 0


def _away(rule: Rule, channels: int) -> NDArray[np.bool_]:
    """True for a channel that rounds as gemmlowp, False for one that rounds as ruy."""
    away = np.full(channels, rule.method in ("gemmlowp", "gemmlowp_saturating"))
    if rule.block_axis == "channel":
        away[channels // rule.block * rule.block :] = True
    return away


def _column(values: NDArray[Any], dtype: type[Any] | np.dtype[Any]) -> NDArray[Any]:
    """The values and a block of zeros: the last block of channels may be loaded whole."""
    return np.concatenate([values.astype(dtype), np.zeros(LANES, dtype)])


def requantization(epilogue: Epilogue) -> Requantization:
    """The epilogue for compiled loops."""
    columns = [getattr(epilogue, name) for name in _COLUMNS]
    pitch = len(columns[0])
    words = np.zeros(_HEAD + len(columns) * pitch + len(epilogue.table) // 8, np.int64)
    numbers = epilogue.method, pitch, epilogue.flat_body, epilogue.low, epilogue.high, epilogue.zero_point
    words[: len(numbers)] = numbers
    words[_HALF : _HALF + 1].view(np.float32)[0] = epilogue.half
    for index, column in enumerate(columns):
        first = _HEAD + index * pitch
        words[first : first + pitch].view(column.dtype)[:pitch] = column
    if len(epilogue.table):
        words[_TABLE] = _HEAD + len(columns) * pitch
        words[words[_TABLE] :].view(np.uint8)[:] = epilogue.table
    return Requantization(_REQUANTIZE, words)


@no_refcount_inlined
def _columns(epilogue: int, channel: int, below: int, signed: int) -> FixedPointColumns:
    """The columns from ``channel`` on, negative products rounded by those two."""
    first, size = epilogue + 8 * _HEAD, 8 * word(epilogue, _PITCH)
    narrow, wide = first + 4 * channel, first + 8 * channel
    return FixedPointColumns(
        narrow + _MULTIPLIER * size, narrow + _LEFT * size, wide + _SHIFT * size, wide + _ROUNDING * size,
        wide + below * size, narrow + _SCALE32 * size, narrow + _NUDGE * size, narrow + signed * size,
    )  # fmt: skip


@no_refcount_inlined
def _bounds(epilogue: int) -> Bounds:
    low, high, zero_point = word(epilogue, _LOW), word(epilogue, _HIGH), word(epilogue, _ZERO_POINT)
    return Bounds(np.int32(low), np.int32(high), np.int32(zero_point))


@no_refcount_inside
def _requantize(
    epilogue: int, acc: int, acc_step: int, pixels: int, channel: int, channels: int,
    out: int, at: int, step: int, acc_out: int,
) -> None:  # fmt: skip
    """Requantizes int32 [pixel, lane] at ``acc``, pixels ``acc_step`` elements apart, to bytes at ``out``.

    The first ``channels`` lanes are the output channels from ``channel`` on; rows hold whole
    blocks of LANES. Those of pixel p go to ``out + at + p * step``, and as they are to the int32 with this
    index at ``acc_out``, unless that is 0.
    """
    bounds, method = _bounds(epilogue), word(epilogue, _METHOD)
    columns, size = epilogue + 8 * _HEAD, 8 * word(epilogue, _PITCH)
    # From the last block to the first: where pixels lie side by side, a block that is not full is written
    # whole, too. What it writes beyond its pixel are bytes of later pixels, written after it.
    for block in range((channels - 1) // LANES * LANES, -1, -LANES):
        lanes = min(channels - block, LANES)
        whole = pixels
        if lanes < LANES:
            whole = max((pixels * step - block - LANES) // step + 1, 0) if step == channels else 0
        sums = AccumulatorBlock(acc + 4 * block, 4 * acc_step, pixels)
        target = ResultBlock(out + at + block, step, whole, lanes, 0)
        if method == FLOAT32:
            requantize_float32(sums, columns + _SCALE32 * size + 4 * (channel + block), bounds, target)
        elif method == FLOAT64:
            requantize_float64(sums, columns + _SCALE64 * size + 8 * (channel + block), bounds, target)
        else:
            of_block = _columns(epilogue, channel + block, _BELOW, _SIGNED)
            requantize_fixed_point(sums, of_block, epilogue + 8 * _HALF, bounds, target)
    flat_body = word(epilogue, _FLAT_BODY)
    if method == FIXED_POINT and at + (pixels - 1) * step + channels > flat_body:
        _flat_tail(epilogue, acc, acc_step, pixels, channel, channels, out, at, step)
    table = word(epilogue, _TABLE)
    if table:
        side_by_side = step == channels
        rows, width = (1, pixels * channels) if side_by_side else (pixels, channels)
        look_up_bytes(epilogue + 8 * table, out + at, out + at, rows, step, width)
    if acc_out:
        for pixel in range(pixels):
            copy_int32(acc + 4 * pixel * acc_step, acc_out + 4 * (at + pixel * step), channels)


@no_refcount_inside
def _flat_tail(
    epilogue: int, acc: int, acc_step: int, pixels: int, channel: int, channels: int,
    out: int, at: int, step: int,
) -> None:  # fmt: skip
    """Requantizes as gemmlowp the elements behind the last whole block of the flattened output."""
    bounds = _bounds(epilogue)
    for pixel in range(pixels - 1, -1, -1):
        first = at + pixel * step
        body = min(max(word(epilogue, _FLAT_BODY) - first, 0), channels)
        if body == channels:
            return
        for block in range(body // LANES * LANES, channels, LANES):
            lanes, start = min(channels - block, LANES), max(body - block, 0)
            of_block = _columns(epilogue, channel + block, _AWAY, _ALWAYS_SIGNED)
            sums = AccumulatorBlock(acc + 4 * (pixel * acc_step + block), 0, 1)
            target = ResultBlock(out + first + block, 0, 0, lanes, start)
            requantize_fixed_point(sums, of_block, epilogue + 8 * _HALF, bounds, target)


_REQUANTIZE = Callee(_requantize, 10)
