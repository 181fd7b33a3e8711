"""The innermost loops: a block of pixels times a block of output channels, held in registers.

Numba has no vector type, and LLVM does not keep a block of accumulators in
registers when it vectorizes a plain loop (measured: 10 to 16 GMAC/s against 115
on one Zen 4 core). So these functions are written in LLVM's own language.

Each instruction set is a :class:`Microkernel` in :data:`MICROKERNELS`. A kernel's
*blocking* is a type of its own: Numba compiles one copy of the convolution
for each, and a machine only ever compiles the instructions it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numba import types
from numpy.typing import NDArray

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit.llvm_ir import intrinsic
from karat24.refimpl.kernels.microkernel import amx
from karat24.refimpl.kernels.microkernel.blocking import (
    Amx,
    ArmDot,
    Avx2,
    Avx2Single,
    Avx2SingleNarrow,
    Avx512Vnni,
    Avx512VnniNarrow,
    Avx512VnniPairs,
    Avx512VnniSingle,
    Avx512VnniSingleNarrow,
    Blocking,
    Portable,
    pixels_computed,
)
from karat24.refimpl.kernels.microkernel.operands import flat
from karat24.refimpl.kernels.microkernel.vector_blocks import (
    WORD_BYTES,
    ChannelBlock,
    Dot,
    SinglePixel,
    VectorBlock,
    dot_arm,
    dot_avx2,
    dot_avx512vnni,
    dot_avx512vnni_pairs,
    dot_portable,
)

DEPTHWISE_PIXELS, DEPTHWISE_CHANNELS = 4, 16
"""Block of :func:`multiply_channels`: its accumulators fill 8 of the 16 vector registers of AVX2, 16 of
the 32 of Arm; four pixels waste little of a small image."""

LAST_STEPS = 2
"""AVX512-VNNI has 32 registers. 24 hold sums, so the weights of two steps fit as well."""

FEW_PIXELS = 2
"""Rows of at most this many pixels are computed pixel by pixel."""

MANY_PIXELS = 192
"""From this row length on, the pixels that pad a row to whole blocks are ignored."""


_INT16_BYTES = 2

_ENOUGH_SUMS = 4
"""Sums of one pixel that keep the multipliers busy: a product takes four cycles."""


Emit: TypeAlias = Callable[[Any, Sequence[Any]], None]


@dataclass(frozen=True)
class Microkernel:
    """The innermost loop of an instruction set: its block, and the layout of its values and weights.

    ``element`` is the type of the values in a patch, ``weight`` that of the
    weights. ``word`` neighbouring weights of one channel lie together, then come
    the channels of one of ``columns``. ``channelwise`` is the loop of depthwise convolutions.
    ``open`` and ``close`` bracket a thread's work.
    """

    blocking: Blocking
    element: type[np.uint8] | type[np.int8] | type[np.int16]
    weight: type[np.int8] | type[np.int16]
    word: int
    columns: int
    emit: Emit
    channelwise: ChannelBlock
    open: Callable[[Any], None] | None = None
    close: Callable[[Any], None] | None = None

    @property
    def values_per_word(self) -> int:
        """Products that one instruction adds to a sum of 32 bits."""
        return WORD_BYTES // np.dtype(self.element).itemsize

    def split(self, filters: NDArray[np.int16]) -> list[NDArray[np.int16]]:
        """Weights as sums of weights that fit the kernel's type; as few parts as possible, at least one.

        A uint8 filter less its zero point reaches from -255 to 255: up to three
        int8 parts, each multiplied with the same values, which is exact.
        """
        bounds = np.iinfo(self.weight)
        parts: list[NDArray[np.int16]] = []
        rest = filters
        while not parts or rest.any():
            parts.append(np.clip(rest, bounds.min, bounds.max))
            rest = rest - parts[-1]
        return parts

    def pack(self, filters: NDArray[np.int16]) -> Array:
        """Weights [filter, run, k] as they are read, flat.

        [block, run, step, channel / columns, k % depth / word, channel % columns, k % word];
        missing filters of the last block and missing elements of a run are zero.
        """
        count, runs, length = filters.shape
        channels, depth = self.blocking.channels, self.blocking.depth
        blocks, steps = -(-count // channels), -(-length // depth)
        padded = np.zeros((blocks * channels, runs, steps * depth), self.weight)
        padded[:count, :, :length] = filters
        split = padded.reshape(
            blocks, channels // self.columns, self.columns, runs, steps, depth // self.word, self.word
        )
        return np.ascontiguousarray(split.transpose(0, 3, 4, 1, 5, 2, 6)).reshape(-1)


def _vector_kernel(
    blocking: Blocking,
    lanes: int,
    element_type: type[np.uint8] | type[np.int8] | type[np.int16],
    dot: Dot,
    last_steps: int = 0,
) -> Microkernel:
    size = np.dtype(element_type).itemsize
    sizes = tuple(range(blocking.part, blocking.pixels + 1, blocking.part))
    vectors = blocking.channels // lanes
    block: VectorBlock | SinglePixel
    if blocking.pixels == 1 and vectors < _ENOUGH_SUMS:
        block = SinglePixel(lanes, vectors, size, dot)
    else:
        block = VectorBlock(sizes, lanes, vectors, size, dot, last_steps)
    weight = np.int16 if size == _INT16_BYTES else np.int8
    channelwise = _channel_block(lanes, dot)
    return Microkernel(
        blocking, element_type, weight, blocking.depth, blocking.channels, block.emit, channelwise
    )


def _channel_block(lanes: int, dot: Dot) -> ChannelBlock:
    return ChannelBlock(DEPTHWISE_PIXELS, lanes, DEPTHWISE_CHANNELS // lanes, dot)


MICROKERNELS: Mapping[str, tuple[Microkernel, ...]] = MappingProxyType(
    {
        "amx": (
            Microkernel(
                Amx(),
                np.uint8,
                np.int8,
                4,
                amx.ROWS,
                amx.emit_block,
                _channel_block(16, dot_avx512vnni),
                amx.emit_open,
                amx.emit_close,
            ),
        ),
        "avx512vnni": (
            _vector_kernel(Avx512VnniNarrow(), 16, np.uint8, dot_avx512vnni, LAST_STEPS),
            _vector_kernel(Avx512Vnni(), 16, np.uint8, dot_avx512vnni, LAST_STEPS),
        ),
        "avx2": (_vector_kernel(Avx2(), 8, np.int16, dot_avx2),),
        "dotprod": (_vector_kernel(ArmDot(), 4, np.int8, dot_arm),),
        "portable": (_vector_kernel(Portable(), 16, np.int16, dot_portable),),
    }
)
"""Instruction set to micro-kernels, fewest output channels first. A choice of blocks wastes fewer
channels."""

_AVX512VNNI_SINGLE = (
    _vector_kernel(Avx512VnniSingleNarrow(), 16, np.uint8, dot_avx512vnni),
    _vector_kernel(Avx512VnniSingle(), 16, np.uint8, dot_avx512vnni),
)

SINGLE_PIXEL: Mapping[str, tuple[Microkernel, Microkernel]] = MappingProxyType(
    {
        "amx": _AVX512VNNI_SINGLE,
        "avx512vnni": _AVX512VNNI_SINGLE,
        "avx2": (
            _vector_kernel(Avx2SingleNarrow(), 8, np.int16, dot_avx2),
            _vector_kernel(Avx2Single(), 8, np.int16, dot_avx2),
        ),
    }
)
"""Micro-kernels for a layer of one or two pixels, where an instruction set has them; the others compute a
block of pixels. The first is for at most as many output channels as its block has, the second for more."""

OF_PAIRS: Mapping[str, Microkernel] = MappingProxyType(
    {
        "avx512vnni": _vector_kernel(Avx512VnniPairs(), 16, np.int16, dot_avx512vnni_pairs, LAST_STEPS),
        "avx2": MICROKERNELS["avx2"][0],
        "portable": MICROKERNELS["portable"][0],
    }
)
"""Micro-kernels for int16 values and weights, where such a product costs at most two products of bytes."""

_BY_BLOCKING = {
    type(k.blocking): k
    for kernels in (*SINGLE_PIXEL.values(), tuple(OF_PAIRS.values()), *MICROKERNELS.values())
    for k in kernels
}


def microkernel_for(isa: str, filters: int, pixels: int | None = None) -> Microkernel:
    """The micro-kernel of an instruction set that leaves fewest channels of its blocks empty for ``filters``
    filters.

    ``pixels``: the number in a row, many unless given. Raises UsageError listing the known instruction sets.
    """
    if pixels is not None and pixels <= FEW_PIXELS and isa in SINGLE_PIXEL:
        narrow, wide = SINGLE_PIXEL[isa]
        return narrow if filters <= narrow.blocking.channels else wide
    try:
        kernels = MICROKERNELS[isa]
    except KeyError:
        raise UsageError(
            f"no kernels for instruction set {isa!r}; known: {', '.join(MICROKERNELS)}"
        ) from None
    row = MANY_PIXELS if pixels is None else min(pixels, MANY_PIXELS)

    def computed(kernel: Microkernel) -> int:
        channels = kernel.blocking.channels
        return -(-filters // channels) * channels * pixels_computed(kernel.blocking, row)

    return min(reversed(kernels), key=computed)  # of equals, the one that reads pixels least often


def kernel_of(blocking: Any) -> Microkernel:
    """The micro-kernel that goes with the Numba type of a blocking."""
    return _BY_BLOCKING[blocking.instance_class]


@intrinsic
def multiply_block(_: Any, blocking: Any, pixels: Any, values: Any, weights: Any, sums: Any) -> Any:
    """Pixels times filters: ``target[p, c] = initial[c] + sum of value(p, r, k) * weights[r, k, c]``.

    ``values`` are ``PixelRuns``, ``sums`` ``Sums``; ``weights`` is the address of a filter as packed by the
    kernel. The sum is over runs r and their elements k; ``value(p, r, k)`` is
    ``patch[p * stride + offsets[r] + k]``, for p < ``pixels``, one of the block's sizes. Sums wrap at 32
    bits. Reads what is named above and nothing else.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        kernel_of(blocking).emit(builder, flat(builder, *arguments[1:]))

    return types.void(blocking, types.int64, values, types.int64, sums), codegen


@intrinsic
def open_block(_: Any, blocking: Any) -> Any:
    """Makes this thread ready for :func:`multiply_block`: no work for a ``Block``."""

    def codegen(_: Any, builder: Any, __: Any, ___: Any) -> None:
        kernel = _BY_BLOCKING.get(blocking.instance_class)
        if kernel is not None and kernel.open is not None:
            kernel.open(builder)

    return types.void(blocking), codegen


@intrinsic
def close_block(_: Any, blocking: Any) -> Any:
    """Undoes :func:`open_block`."""

    def codegen(_: Any, builder: Any, __: Any, ___: Any) -> None:
        kernel = _BY_BLOCKING.get(blocking.instance_class)
        if kernel is not None and kernel.close is not None:
            kernel.close(builder)

    return types.void(blocking), codegen


@intrinsic
def multiply_channels(_: Any, blocking: Any, values: Any, weights: Any, sums: Any) -> Any:
    """Channel by channel: ``target[p, c] = initial[c] + sum of value(p, t, c) . weights[t, c]``.

    ``values`` are ``PixelTaps``, ``weights`` ``ChannelWeights``, ``sums`` ``Sums``. The sum is over taps t,
    and over the values of a word of 32 bits: ``value(p, t, c)`` is the word ``patch[p * stride + offsets[t] +
    c]``, for p < DEPTHWISE_PIXELS and c < DEPTHWISE_CHANNELS. Sums wrap at 32 bits. Reads what is named above
    and nothing else.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        kernel_of(blocking).channelwise.emit(builder, flat(builder, *arguments[1:]))

    return types.void(blocking, values, weights, sums), codegen
