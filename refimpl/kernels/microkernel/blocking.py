"""Blocks of pixels times output channels that instruction sets compute at once, and rows cut into them.

A *blocking* is a type of its own: Numba compiles one copy of the convolution for each.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from numba import njit

from karat24.refimpl.kernels.microkernel import amx


class Block(NamedTuple):
    """Any of the blockings below, for a loop that calls its micro-kernel by address."""

    pixels: int
    channels: int
    depth: int
    part: int


class Portable(NamedTuple):
    """Block of the kernel for any machine: pixels, output channels, and elements of a run per step.

    A block may have fewer pixels, a multiple of ``part``: enough for the rest of a row, and still enough sums
    to keep the multipliers busy.
    """

    pixels: int = 6
    channels: int = 16
    depth: int = 2
    part: int = 2


class Avx2(NamedTuple):
    """Block of the AVX2 kernel: 12 accumulators of 8 channels in 16 registers."""

    pixels: int = 6
    channels: int = 16
    depth: int = 2
    part: int = 2


class Avx512Vnni(NamedTuple):
    """Block of the AVX512-VNNI kernel: 24 accumulators of 16 channels in 32 registers."""

    pixels: int = 12
    channels: int = 32
    depth: int = 4
    part: int = 4


class Avx512VnniPairs(NamedTuple):
    """Block of the AVX512-VNNI kernel for int16."""

    pixels: int = 12
    channels: int = 32
    depth: int = 2
    part: int = 4


class Avx512VnniNarrow(NamedTuple):
    """Block of the AVX512-VNNI kernel for few output channels, and for numbers of them like 40 or 144."""

    pixels: int = 24
    channels: int = 16
    depth: int = 4
    part: int = 8


class Amx(NamedTuple):
    """Block of the AMX kernel: four tiles of accumulators."""

    pixels: int = amx.PIXELS
    channels: int = amx.CHANNELS
    depth: int = amx.ROW_BYTES
    part: int = amx.PIXELS


class ArmDot(NamedTuple):
    """Block of the Arm dot-product kernel: 24 accumulators of 4 channels in 32 registers."""

    pixels: int = 6
    channels: int = 16
    depth: int = 4
    part: int = 2


class Avx512VnniSingle(NamedTuple):
    """Block of the AVX512-VNNI kernel for one pixel: as many channels as hide the sums' latency."""

    pixels: int = 1
    channels: int = 64
    depth: int = 4
    part: int = 1


class Avx512VnniSingleNarrow(NamedTuple):
    """Block of the AVX512-VNNI kernel for one pixel and few output channels."""

    pixels: int = 1
    channels: int = 16
    depth: int = 4
    part: int = 1


class Avx2Single(NamedTuple):
    """Block of the AVX2 kernel for one pixel."""

    pixels: int = 1
    channels: int = 64
    depth: int = 2
    part: int = 1


class Avx2SingleNarrow(NamedTuple):
    """Block of the AVX2 kernel for one pixel and few output channels."""

    pixels: int = 1
    channels: int = 16
    depth: int = 2
    part: int = 1


Blocking: TypeAlias = (
    Portable
    | Avx2
    | Avx2Single
    | Avx2SingleNarrow
    | Avx512Vnni
    | Avx512VnniNarrow
    | Avx512VnniPairs
    | Avx512VnniSingle
    | Avx512VnniSingleNarrow
    | Amx
    | ArmDot
)


def _pixels_at_once(blocking: Blocking, left: int) -> int:
    """Pixels to multiply next of the ``left`` ones of a row: equal blocks, rounded up to parts."""
    blocks = (left + blocking.pixels - 1) // blocking.pixels
    share = (left + blocks - 1) // blocks
    return (share + blocking.part - 1) // blocking.part * blocking.part


pixels_at_once = njit(cache=True, nogil=True)(_pixels_at_once)


def pixels_computed(blocking: Blocking, row: int) -> int:
    """The pixels of a row, and those that pad it to whole blocks."""
    computed = 0
    while computed < row:
        computed += _pixels_at_once(blocking, row - computed)
    return computed
