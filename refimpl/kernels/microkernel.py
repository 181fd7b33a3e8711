"""The innermost loops: a block of pixels times a block of output channels, held in registers.

Numba has no vector type, and LLVM does not keep a block of accumulators in
registers when it vectorizes a plain loop (measured: 10 to 16 GMAC/s against 115
on one Zen 4 core, 85 with AVX2 only). So these two functions are written in
LLVM's own language, without any instruction of a particular machine: int16 pairs
are multiplied and added, which becomes ``vpmaddwd`` or ``vpdpwssd`` where there is one.

Another instruction set is another :class:`Microkernel` in :data:`MICROKERNELS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from refimpl.errors import UsageError

PIXELS = 6
"""Pixels per block: 6 x 16 accumulators fill 12 of the 16 vector registers of AVX2."""

CHANNELS = 16
"""Output channels per block."""

PAIR = 2
"""Input values multiplied at once: a run's length is rounded up to this, with zero weights."""

_intrinsic: Any = intrinsic  # Numba's own type asks callers for the context, too

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_ACCUMULATORS = ir.VectorType(_INT32, CHANNELS)
_VALUES = ir.VectorType(ir.IntType(16), CHANNELS)
_PAIRS = ir.VectorType(ir.IntType(16), CHANNELS * PAIR)
_PRODUCTS = ir.VectorType(_INT32, CHANNELS * PAIR)
_INT16_BYTES, _INT32_BYTES, _INT64_BYTES = 2, 4, 8


@_intrinsic
def multiply_block(
    _: Any,
    patch: Any,
    pixel_stride: Any,
    offsets: Any,
    runs: Any,
    pairs: Any,
    weights: Any,
    initial: Any,
    acc: Any,
    acc_stride: Any,
) -> Any:
    """Pixels times filters: ``acc[p, c] = initial[c] + sum of value(p, r, k) * weights[r, k, c]``.

    The sum is over runs r and their elements k; ``value(p, r, k)`` is
    ``patch[p * pixel_stride + offsets[r] + k]``. All arrays are addresses:
    ``patch`` int16; ``offsets`` int64 [runs]; ``weights`` int16 [runs, pairs,
    CHANNELS, PAIR]; ``initial`` int32 [CHANNELS]; ``acc`` int32, rows
    ``acc_stride`` apart, overwritten for p < PIXELS, c < CHANNELS. A run is
    ``PAIR * pairs`` neighbouring elements; offsets and strides count elements.
    Sums wrap at 32 bits. Reads what is named above and nothing else.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        patch, pixel_stride, offsets, runs, pairs, weights, initial, acc, acc_stride = arguments
        row_bytes = builder.mul(pixel_stride, _constant(_INT16_BYTES))
        sums = _start_sums(builder, initial)
        panel = cgutils.alloca_once_value(builder, weights)
        with cgutils.for_range(builder, runs) as run:
            run_at = _element(builder, patch, _offset(builder, offsets, run.index), _INT16_BYTES)
            with cgutils.for_range(builder, pairs) as pair:
                panel_at = builder.load(panel)
                weight = builder.sext(_load(builder, panel_at, _PAIRS, _INT16_BYTES), _PRODUCTS)
                pair_at = _element(builder, run_at, pair.index, PAIR * _INT16_BYTES)
                for pixel, total in enumerate(sums):
                    value_at = _element(builder, pair_at, row_bytes, pixel)
                    value = _splat(builder, _load(builder, value_at, _INT32, _INT16_BYTES))
                    product = builder.mul(builder.sext(value, _PRODUCTS), weight)
                    builder.store(builder.add(builder.load(total), _add_pairs(builder, product)), total)
                panel_step = _constant(CHANNELS * PAIR * _INT16_BYTES)
                builder.store(builder.add(panel_at, panel_step), panel)
        _store_sums(builder, sums, acc, acc_stride)

    return types.void(*[types.int64] * 9), codegen


@_intrinsic
def multiply_channels(
    _: Any,
    patch: Any,
    pixel_stride: Any,
    offsets: Any,
    taps: Any,
    weights: Any,
    weight_stride: Any,
    initial: Any,
    acc: Any,
    acc_stride: Any,
) -> Any:
    """Channel by channel: ``acc[p, c] = initial[c] + sum of value(p, t, c) * weights[t, c]``.

    The sum is over taps t; ``value(p, t, c)`` is ``patch[p * pixel_stride +
    offsets[t] + c]``. ``weights`` is int16, its rows ``weight_stride`` apart; the
    rest is as for :func:`multiply_block`.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        patch, pixel_stride, offsets, taps, weights, weight_stride, initial, acc, acc_stride = arguments
        row_bytes = builder.mul(pixel_stride, _constant(_INT16_BYTES))
        weight_bytes = builder.mul(weight_stride, _constant(_INT16_BYTES))
        sums = _start_sums(builder, initial)
        with cgutils.for_range(builder, taps) as tap:
            tap_at = _element(builder, patch, _offset(builder, offsets, tap.index), _INT16_BYTES)
            weight_at = builder.add(weights, builder.mul(tap.index, weight_bytes))
            weight = builder.sext(_load(builder, weight_at, _VALUES, _INT16_BYTES), _ACCUMULATORS)
            for pixel, total in enumerate(sums):
                value_at = _element(builder, tap_at, row_bytes, pixel)
                value = builder.sext(_load(builder, value_at, _VALUES, _INT16_BYTES), _ACCUMULATORS)
                builder.store(builder.add(builder.load(total), builder.mul(value, weight)), total)
        _store_sums(builder, sums, acc, acc_stride)

    return types.void(*[types.int64] * 9), codegen


def _start_sums(builder: Any, initial: Any) -> list[Any]:
    """One vector of accumulators per pixel; LLVM turns these stack slots into registers."""
    sums = [cgutils.alloca_once(builder, _ACCUMULATORS) for _ in range(PIXELS)]
    start = _load(builder, initial, _ACCUMULATORS, _INT32_BYTES)
    for total in sums:
        builder.store(start, total)
    return sums


def _store_sums(builder: Any, sums: list[Any], acc: Any, acc_stride: Any) -> None:
    for pixel, total in enumerate(sums):
        at = _element(builder, acc, acc_stride, pixel * _INT32_BYTES)
        pointer = builder.inttoptr(at, _ACCUMULATORS.as_pointer())
        builder.store(builder.load(total), pointer, align=_INT32_BYTES)


def _element(builder: Any, base: Any, index: Any, size: int) -> Any:
    """The address ``base + index * size``."""
    return builder.add(base, builder.mul(index, _constant(size)))


def _offset(builder: Any, offsets: Any, index: Any) -> Any:
    return _load(builder, _element(builder, offsets, index, _INT64_BYTES), _INT64, _INT64_BYTES)


def _constant(value: int) -> Any:
    return ir.Constant(_INT64, value)


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _splat(builder: Any, pair: Any) -> Any:
    """One pair of int16 (as an int32) in every lane."""
    nothing = ir.Constant(_ACCUMULATORS, ir.Undefined)
    first = builder.insert_element(nothing, pair, ir.Constant(_INT32, 0))
    zeros = ir.Constant(_ACCUMULATORS, [0] * CHANNELS)
    return builder.bitcast(builder.shuffle_vector(first, nothing, zeros), _PAIRS)


def _add_pairs(builder: Any, products: Any) -> Any:
    """Sums of neighbours, [2 * CHANNELS] to [CHANNELS]; with the products above this is vpmaddwd."""
    nothing = ir.Constant(_PRODUCTS, ir.Undefined)
    halves = [ir.Constant(_ACCUMULATORS, list(range(first, CHANNELS * PAIR, PAIR))) for first in range(PAIR)]
    even, odd = (builder.shuffle_vector(products, nothing, half) for half in halves)
    return builder.add(even, odd)


@dataclass(frozen=True)
class Microkernel:
    """One instruction set's innermost loop: its block sizes and how it wants its weights."""

    pixels: int
    channels: int
    depth: int

    def pack(self, filters: NDArray[np.int16]) -> NDArray[np.int16]:
        """Weights [filter, run, k] in the order they are read: [block, run, k / depth, channel, depth], flat.

        Missing filters of the last block and missing elements of a run are zero.
        """
        count, runs, length = filters.shape
        blocks, steps = -(-count // self.channels), -(-length // self.depth)
        padded = np.zeros((blocks * self.channels, runs, steps * self.depth), np.int16)
        padded[:count, :, :length] = filters
        split = padded.reshape(blocks, self.channels, runs, steps, self.depth)
        return np.ascontiguousarray(split.transpose(0, 2, 3, 1, 4)).reshape(-1)


MICROKERNELS: Mapping[str, Microkernel] = MappingProxyType({"portable": Microkernel(PIXELS, CHANNELS, PAIR)})
"""Instruction set to micro-kernel."""


def microkernel_for(isa: str) -> Microkernel:
    """The micro-kernel of an instruction set. Raises UsageError listing the known ones."""
    try:
        return MICROKERNELS[isa]
    except KeyError:
        raise UsageError(
            f"no kernels for instruction set {isa!r}; known: {', '.join(MICROKERNELS)}"
        ) from None
