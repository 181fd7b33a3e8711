"""A block of 32 pixels times 32 output channels in the tile registers of Intel AMX.

Eight tiles of 16 rows by 64 bytes: four hold 16 x 16 int32 sums, two the values of 16
pixels each (64 uint8 of one run per pixel), two the weights of 16 channels each (64 int8
per channel, four by four). ``tdpbusd`` multiplies a tile of values by a tile of weights and adds
the 16,384 products to the sums, which wrap as the runtimes' do.

The tiles belong to a thread and must be configured before use: ``open_tiles`` and
``close_tiles`` bracket the work. The process needs Linux' permission first, see
``karat24.refimpl.kernels.jit.isa``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from karat24.refimpl.kernels.jit.llvm_ir import INT8, INT64, call, constant, element, load

ROWS, ROW_BYTES = 16, 64
PIXELS = CHANNELS = 2 * ROWS
_TILE_BYTES = ROWS * ROW_BYTES
_INT64_BYTES, _INT32_BYTES = 8, 4
_SUMS = ((0, 1), (2, 3))
_VALUES, _WEIGHTS = (4, 5), (6, 7)
_POINTER = INT8.as_pointer()

TILE_CONFIG = bytes([1, *[0] * 15]) + bytes([ROW_BYTES, 0] * 8) + bytes(16) + bytes([ROWS] * 8) + bytes(8)
"""Operand of ldtilecfg: palette 1, eight tiles, bytes per row (16 bits each), rows."""


def emit_block(builder: Any, arguments: Sequence[Any]) -> None:
    """Writes the code of ``multiply_block`` (see there); a step is 64 bytes of a run.

    All PIXELS are computed every time.
    """
    _, patch, pixel_stride, offsets, runs, steps, weights, initial, acc, acc_stride = arguments
    for sums in _SUMS:
        for half, tile in enumerate(sums):
            # Row stride 0: every pixel starts from the same 16 channels.
            _move(builder, "tileloadd64", tile, builder.add(initial, constant(half * ROW_BYTES)), constant(0))
    panel = cgutils.alloca_once_value(builder, weights)
    lower = builder.mul(pixel_stride, constant(ROWS))
    with cgutils.for_range(builder, runs) as run:
        offset = load(builder, element(builder, offsets, run.index, _INT64_BYTES), INT64, _INT64_BYTES)
        run_at = builder.add(patch, offset)
        with cgutils.for_range(builder, steps) as step:
            values_at = element(builder, run_at, step.index, ROW_BYTES)
            panel_at = builder.load(panel)
            _move(builder, "tileloadd64", _VALUES[0], values_at, pixel_stride)
            _move(builder, "tileloadd64", _VALUES[1], builder.add(values_at, lower), pixel_stride)
            for half, tile in enumerate(_WEIGHTS):
                at = builder.add(panel_at, constant(half * _TILE_BYTES))
                _move(builder, "tileloadd64", tile, at, constant(ROW_BYTES))
            for sums, values in zip(_SUMS, _VALUES, strict=True):
                for total, weight in zip(sums, _WEIGHTS, strict=True):
                    _call(builder, "tdpbusd", [_tile(total), _tile(values), _tile(weight)])
            builder.store(builder.add(panel_at, constant(2 * _TILE_BYTES)), panel)
    row_bytes = builder.mul(acc_stride, constant(_INT32_BYTES))
    for row, sums in enumerate(_SUMS):
        for half, tile in enumerate(sums):
            at = builder.add(element(builder, acc, row_bytes, row * ROWS), constant(half * ROW_BYTES))
            _move(builder, "tilestored64", tile, at, row_bytes)


def emit_open(builder: Any) -> None:
    """Configures this thread's tiles."""
    config = cgutils.global_constant(
        builder, "tile_config", ir.Constant(ir.ArrayType(INT8, len(TILE_CONFIG)), bytearray(TILE_CONFIG))
    )
    _call(builder, "ldtilecfg", [builder.bitcast(config, _POINTER)])


def emit_close(builder: Any) -> None:
    """Gives the tiles back, so that the kernel need not save them when it switches threads."""
    _call(builder, "tilerelease", [])


def _tile(number: int) -> Any:
    return ir.Constant(INT8, number)


def _move(builder: Any, instruction: str, tile: int, address: Any, stride: Any) -> None:
    _call(builder, instruction, [_tile(tile), builder.inttoptr(address, _POINTER), stride])


def _call(builder: Any, instruction: str, operands: Sequence[Any]) -> None:
    call(builder, f"llvm.x86.{instruction}", ir.VoidType(), operands)
