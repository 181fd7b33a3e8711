"""A block of pixels times a block of output channels in vector registers, for any vector unit.

Every unit works alike: four bytes of a pixel (two int16 or four int8 values) are
copied into all lanes and multiplied with four bytes of weights per channel, and the
products are added to 32-bit sums. Only the instruction that does so differs::

    portable     no instruction of any machine; LLVM finds the best one
    avx2         vpmaddwd   int16 x int16 pairs, 8 channels; vpaddd
    avx512vnni   vpdpbusd   uint8 x int8 quadruples, 16 channels, sum included
                 vpdpwssd   int16 x int16 pairs, 16 channels, sum included
    dotprod      sdot       int8 x int8 quadruples, 4 channels, sum included

None of them saturates: the largest sum of products, 4 * 255 * 128 of bytes and twice 12,800 * 32,767 of
int16, is far from 2**31, and the sums themselves wrap as the runtimes' do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils

from karat24.refimpl.kernels.jit.llvm_ir import (
    INT8,
    INT16,
    INT32,
    INT64,
    call,
    constant,
    element,
    load,
    splat,
    store,
    vector,
)

WORD_BYTES = 4
_INT64_BYTES = 8

Dot: TypeAlias = Callable[[Any, Any, Any, Any], Any]
"""(builder, sums, values, weights) to new sums: vectors of int32."""


@dataclass(frozen=True)
class VectorBlock:
    """Pixels times ``vectors * lanes`` channels; ``element_bytes`` of one value.

    ``sizes``: the numbers of pixels that there is code for. The ``last_steps`` steps of a block are computed,
    and its sums stored, pixel by pixel: if all sums were complete at once, storing them would hold up the
    next block (on Zen 4, 24 vectors of 64 bytes for some 45 cycles). This takes registers for the weights of
    ``last_steps`` steps.
    """

    sizes: tuple[int, ...]
    lanes: int
    vectors: int
    element_bytes: int
    dot: Dot
    last_steps: int = 0

    def emit(self, builder: Any, arguments: Sequence[Any]) -> None:
        """Writes the code of ``multiply_block`` (see there); ``arguments`` are its addresses and sizes."""
        for size in self.sizes:
            with builder.if_then(builder.icmp_signed("==", arguments[0], constant(size))):
                self._emit_size(builder, size, arguments[1:])

    def _emit_size(self, builder: Any, pixels: int, arguments: Sequence[Any]) -> None:
        patch, pixel_stride, offsets, runs, steps, weights, initial, acc, acc_stride = arguments
        row_bytes = builder.mul(pixel_stride, constant(self.element_bytes))
        panel_step = constant(self.vectors * self.lanes * WORD_BYTES)
        # Stack slots by name, registers after LLVM's optimization.
        sums = self._start(builder, pixels, initial)
        panel = cgutils.alloca_once_value(builder, weights)

        def run_at(run: Any) -> Any:
            offset = load(builder, element(builder, offsets, run, _INT64_BYTES), INT64, _INT64_BYTES)
            return element(builder, patch, offset, self.element_bytes)

        def columns_at(address: Any) -> list[Any]:
            return [
                load(builder, builder.add(address, constant(at)), self._vector, 1) for at in self._columns()
            ]

        def multiply(pixel: int, word_at: Any, columns: Sequence[Any]) -> None:
            at = element(builder, word_at, row_bytes, pixel)
            values = splat(builder, load(builder, at, INT32, 1), self.lanes)
            for total, column in zip(sums[pixel], columns, strict=True):
                builder.store(self.dot(builder, builder.load(total), values, column), total)

        def multiply_run(run: Any, count: Any) -> None:
            first = run_at(run)
            with cgutils.for_range(builder, count) as step:
                panel_at = builder.load(panel)
                columns, word_at = columns_at(panel_at), element(builder, first, step.index, WORD_BYTES)
                for pixel in range(pixels):
                    multiply(pixel, word_at, columns)
                builder.store(builder.add(panel_at, panel_step), panel)

        def finish(count: int) -> None:
            last_words = []
            for number in range(count):
                word = builder.add(builder.sub(steps, constant(count)), constant(number))
                panel_at = element(builder, builder.load(panel), panel_step, number)
                last_words.append((element(builder, run_at(last), word, WORD_BYTES), columns_at(panel_at)))
            for pixel, totals in enumerate(sums):
                for word_at, columns in last_words:
                    multiply(pixel, word_at, columns)
                row = element(builder, acc, acc_stride, pixel * WORD_BYTES)
                for total, at in zip(totals, self._columns(), strict=True):
                    store(builder, builder.load(total), builder.add(row, constant(at)), 1)

        last = builder.sub(runs, constant(1))
        enough = builder.icmp_signed(">=", steps, constant(self.last_steps))
        kept = builder.select(enough, constant(self.last_steps), constant(0))
        alone = builder.and_(enough, builder.icmp_signed("==", runs, constant(1)))
        with builder.if_else(alone) as (one, several):
            with one:  # 8 % faster for 16 steps: LLVM moves no sums between the loops
                multiply_run(constant(0), builder.sub(steps, kept))
                finish(self.last_steps)
            with several:
                with cgutils.for_range(builder, runs) as run:
                    is_last = builder.icmp_signed("==", run.index, last)
                    multiply_run(run.index, builder.sub(steps, builder.select(is_last, kept, constant(0))))
                with builder.if_else(enough) as (some, none):
                    with some:
                        finish(self.last_steps)
                    with none:
                        finish(0)

    @property
    def _vector(self) -> Any:
        return vector(INT32, self.lanes)

    def _columns(self) -> list[int]:
        """Byte offset of each vector in a row of accumulators, and in a step of weights."""
        return [index * self.lanes * WORD_BYTES for index in range(self.vectors)]

    def _start(self, builder: Any, pixels: int, initial: Any) -> list[list[Any]]:
        starts = [
            load(builder, builder.add(initial, constant(at)), self._vector, WORD_BYTES)
            for at in self._columns()
        ]
        sums = [[cgutils.alloca_once(builder, self._vector) for _ in starts] for _ in range(pixels)]
        for totals in sums:
            for start, total in zip(starts, totals, strict=True):
                builder.store(start, total)
        return sums


@dataclass(frozen=True)
class SinglePixel:
    """One pixel times ``vectors * lanes`` channels, too few to keep the multipliers busy.

    Steps are added to ``chains`` separate sums in turn, which need not wait for one another.
    """

    lanes: int
    vectors: int
    element_bytes: int
    dot: Dot
    chains: int = 4

    def emit(self, builder: Any, arguments: Sequence[Any]) -> None:
        """Writes the code of ``multiply_block`` (see there); ``arguments`` are its addresses and sizes."""
        _, patch, _, offsets, runs, steps, weights, initial, acc, _ = arguments
        kind = vector(INT32, self.lanes)
        columns = [index * self.lanes * WORD_BYTES for index in range(self.vectors)]
        panel_step = constant(self.vectors * self.lanes * WORD_BYTES)
        starts = [load(builder, builder.add(initial, constant(at)), kind, WORD_BYTES) for at in columns]
        # Stack slots by name, registers after LLVM's optimization.
        sums = [[cgutils.alloca_once_value(builder, start) for start in starts]]
        for _ in range(self.chains - 1):
            sums.append([cgutils.alloca_once_value(builder, ir.Constant(kind, None)) for _ in starts])
        panel = cgutils.alloca_once_value(builder, weights)

        def multiply(word_at: Any, totals: Sequence[Any]) -> None:
            values, panel_at = (
                splat(builder, load(builder, word_at, INT32, 1), self.lanes),
                builder.load(panel),
            )
            for total, at in zip(totals, columns, strict=True):
                column = load(builder, builder.add(panel_at, constant(at)), kind, 1)
                builder.store(self.dot(builder, builder.load(total), values, column), total)
            builder.store(builder.add(panel_at, panel_step), panel)

        turns = builder.sdiv(steps, constant(self.chains))
        with cgutils.for_range(builder, runs) as run:
            offset = load(builder, element(builder, offsets, run.index, _INT64_BYTES), INT64, _INT64_BYTES)
            first = element(builder, patch, offset, self.element_bytes)
            with cgutils.for_range(builder, turns) as turn:
                word_at = element(builder, first, turn.index, self.chains * WORD_BYTES)
                for chain, totals in enumerate(sums):
                    multiply(builder.add(word_at, constant(chain * WORD_BYTES)), totals)
            done = builder.mul(turns, constant(self.chains))
            with cgutils.for_range(builder, steps, start=done) as step:
                multiply(element(builder, first, step.index, WORD_BYTES), sums[0])
        for index, at in enumerate(columns):
            total = builder.load(sums[0][index])
            for totals in sums[1:]:
                total = builder.add(total, builder.load(totals[index]))
            store(builder, total, builder.add(acc, constant(at)), 1)


@dataclass(frozen=True)
class ChannelBlock:
    """``pixels`` times ``vectors * lanes`` channels, each multiplied by weights of its own."""

    pixels: int
    lanes: int
    vectors: int
    dot: Dot

    def emit(self, builder: Any, arguments: Sequence[Any]) -> None:
        """Writes the code of ``multiply_channels`` (see there); ``arguments`` are its addresses and sizes."""
        patch, pixel_stride, offsets, taps, weights, weight_stride, initial, acc, acc_stride = arguments
        row_bytes = builder.mul(pixel_stride, constant(WORD_BYTES))
        columns = [index * self.lanes * WORD_BYTES for index in range(self.vectors)]
        kind = vector(INT32, self.lanes)

        def vectors(address: Any) -> list[Any]:
            return [load(builder, builder.add(address, constant(at)), kind, 1) for at in columns]

        starts = vectors(initial)
        # Stack slots by name, registers after LLVM's optimization.
        sums = [[cgutils.alloca_once_value(builder, start) for start in starts] for _ in range(self.pixels)]
        with cgutils.for_range(builder, taps) as tap:
            offset = load(builder, element(builder, offsets, tap.index, _INT64_BYTES), INT64, _INT64_BYTES)
            tap_at = element(builder, patch, offset, WORD_BYTES)
            factors = vectors(element(builder, weights, builder.mul(tap.index, weight_stride), WORD_BYTES))
            for pixel, totals in enumerate(sums):
                values = vectors(element(builder, tap_at, row_bytes, pixel))
                for total, value, factor in zip(totals, values, factors, strict=True):
                    builder.store(self.dot(builder, builder.load(total), value, factor), total)
        for pixel, totals in enumerate(sums):
            row = element(builder, acc, acc_stride, pixel * WORD_BYTES)
            for total, at in zip(totals, columns, strict=True):
                store(builder, builder.load(total), builder.add(row, constant(at)), 1)


def dot_portable(builder: Any, sums: Any, values: Any, weights: Any) -> Any:
    """Pairs of int16 multiplied and added, in plain operations."""
    lanes = sums.type.count
    pairs, products = vector(INT16, 2 * lanes), vector(INT32, 2 * lanes)
    wide = (builder.sext(builder.bitcast(operand, pairs), products) for operand in (values, weights))
    product = builder.mul(*wide)
    nothing = ir.Constant(products, ir.Undefined)
    halves = [ir.Constant(sums.type, list(range(first, 2 * lanes, 2))) for first in range(2)]
    even, odd = (builder.shuffle_vector(product, nothing, half) for half in halves)
    return builder.add(sums, builder.add(even, odd))


def dot_avx2(builder: Any, sums: Any, values: Any, weights: Any) -> Any:
    """Pairs of int16, 256 bits: vpmaddwd."""
    pairs = vector(INT16, 2 * sums.type.count)
    operands = [builder.bitcast(operand, pairs) for operand in (values, weights)]
    return builder.add(sums, call(builder, "llvm.x86.avx2.pmadd.wd", sums.type, operands))


def dot_avx512vnni(builder: Any, sums: Any, values: Any, weights: Any) -> Any:
    """Quadruples of uint8 and int8, 512 bits: vpdpbusd."""
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", sums.type, [sums, values, weights])


def dot_avx512vnni_pairs(builder: Any, sums: Any, values: Any, weights: Any) -> Any:
    """Pairs of int16, 512 bits: vpdpwssd."""
    return call(builder, "llvm.x86.avx512.vpdpwssd.512", sums.type, [sums, values, weights])


def dot_arm(builder: Any, sums: Any, values: Any, weights: Any) -> Any:
    """Quadruples of int8, 128 bits: sdot."""
    quads = vector(INT8, 4 * sums.type.count)
    operands = [sums, *(builder.bitcast(operand, quads) for operand in (values, weights))]
    return call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", sums.type, operands)
