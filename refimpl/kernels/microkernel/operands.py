"""What a micro-kernel reads and writes, as addresses; compiled code makes these records and inlines them."""

from __future__ import annotations

from typing import Any, NamedTuple

from karat24.refimpl.kernels.jit.llvm_ir import fields


class PixelRuns(NamedTuple):
    """For each pixel, the same runs of neighbouring elements of a patch."""

    patch: int
    """Address of the first pixel's elements, of the kernel's element type."""
    stride: int
    """Elements from a pixel to the next."""
    offsets: int
    """Address of int64 [run]: elements from a pixel's first to a run's first."""
    runs: int
    """Runs of a pixel; with none, sums stay as they begin."""
    steps: int
    """A run has ``steps * depth`` elements."""


class PixelTaps(NamedTuple):
    """For each pixel, the same words of a patch, each followed by those of the next channels."""

    patch: int
    """Address of the first pixel's words, int32."""
    stride: int
    """Words from a pixel to the next."""
    offsets: int
    """Address of int64 [tap]: words from a pixel's first to a tap's first."""
    taps: int
    """Taps of a pixel."""


class ByteColumns(NamedTuple):
    """A patch whose columns are read as they lie, channel by channel."""

    patch: int
    """Address of the first row's first column, of the kernel's element type."""
    row_bytes: int
    """Bytes from a row to the next."""
    column_bytes: int
    """Bytes from a column to the next."""


class ChannelWeights(NamedTuple):
    """Words of weights, a row for each tap."""

    address: int
    """Address of the first row's first channel, int32."""
    stride: int
    """Words from a row to the next."""


class Sums(NamedTuple):
    """Where sums begin, and where they are written."""

    initial: int
    """Address of int32 [channel]: what a sum begins with."""
    target: int
    """Address of int32 [pixel, channel]; every pixel and channel of a block is overwritten."""
    stride: int
    """Sums from a pixel to the next."""


def flat(builder: Any, *operands: Any) -> list[Any]:
    """The numbers of records and plain numbers, in order."""
    numbers: list[Any] = []
    for operand in operands:
        numbers += fields(builder, operand) if hasattr(operand.type, "elements") else [operand]
    return numbers
