"""The interval of a product with block-wise 4- or 8-bit weights (``com.microsoft:MatMulNBits``).

``accuracy_level`` says in what the product may be computed. Up to 3 it is float32: weights
``scale (raw - zp)``, or the sums of ``raw`` and ``zp`` apart, so that a term's magnitude is
``|a| scale (raw + zp)``. At 4, which a session gives to those it makes of DequantizeLinear and MatMul, MLAS
first makes 8-bit integers of each block of the data: ``q = rint(127 a / max|a|)``. A quotient so near a tie
that float32 may round it either way counts both ways. Products ``q raw`` are added as integers, piece by
piece of a block, in the lanes of a vector; each piece is scaled and added in float32, and so is ``zp`` times
the sum of q per block; the lanes are added up last. So a term goes through one rounding per piece and block
and one per lane at most. On processors without that kernel the product is float32 after all: one
kernel or the other computes the whole layer. Source: MLAS of ONNX Runtime 1.31.1, ``sqnbitgemm``; of its Arm
kernels those of KleidiAI, which take a range per row, are not covered.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.bounds.interval import TINY, UNIT, Either, Interval
from karat24.refimpl.bounds.sums import rounded_sum
from karat24.refimpl.contract import Values
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.spec.onnx.matmul_nbits import Blocks, bias_of, blocks_of, sizes
from karat24.refimpl.spec.shared.requirements import operand

BY_INTEGERS = 4
"""The ``accuracy_level`` that lets a runtime make integers of the data."""

OVERFLOWING = 2.0**-120
"""Where the largest value of a block is less, ``127 / max|a|`` may be no float32: its integers are any."""

PIECE, LANES = 8, 16
"""The fewest values a vector takes of a block at once, and the most lanes it has; kernels take 16 or more."""


def matmul_nbits(view: LayerView, values: Values) -> Interval:
    """MatMulNBits."""
    deep, wide, _, block, blocks = sizes(view)
    data = operand(values, 0).astype(np.float64).reshape(-1, deep)
    weights = blocks_of(view, values)
    if not (np.isfinite(data).all() and np.isfinite(weights.scale).all()):
        raise CannotCompare("an input is not a finite number")
    filled = np.zeros((len(data), blocks * block))
    filled[:, :deep] = data
    rows = filled.reshape(-1, blocks, block)
    bias = np.zeros(wide) if bias_of(values) is None else np.asarray(bias_of(values), np.float64)
    interval = _product(rows, np.zeros(rows.shape), weights, bias, blocks * block)
    if view.integer("accuracy_level", 0) >= BY_INTEGERS:
        sums = blocks * (block // PIECE + 1) + LANES
        interval = Either.of(interval, _product(*_by_integers(rows), weights, bias, sums))
    return interval.reshaped(view.output().shape)


def _by_integers(rows: Array) -> tuple[Array, Array]:
    """What the blocks' integers stand for, and how far apart two are that one value may become."""
    largest = np.abs(rows).max(axis=-1, keepdims=True)
    steps = 127 * rows / np.where(largest > 0, largest, 1)
    ends = np.rint(steps * (1 - 4 * UNIT)), np.rint(steps * (1 + 4 * UNIT))
    unit = largest / 127
    doubt = np.abs(ends[1] - ends[0]) / 2 * unit
    return (ends[0] + ends[1]) / 2 * unit, np.where(largest < OVERFLOWING, 3 * largest, doubt)


def _product(rows: Array, doubt: Array, weights: Blocks, bias: Array, sums: int) -> Interval:
    """``rows``, ``[row, block, value]``, each up to ``doubt`` away, times the weights, plus the bias.

    ``sums`` float32 values are added up for each result.
    """
    matrix = weights.centred * weights.scale
    size = np.abs(weights.raw + weights.zero_point) * np.abs(weights.scale)
    centre = _by_columns(rows, matrix) + bias
    magnitude = _by_columns(np.abs(rows), size) + np.abs(bias)
    roundings = sums + 8
    lost = 2 * roundings * TINY * (1 + size.max()) * (1 + np.abs(rows).max())
    either = _by_columns(doubt, np.abs(matrix)) * (1 + 2.0**-10)
    return rounded_sum(centre, magnitude, roundings, lost + either)


def _by_columns(rows: Array, matrix: Array) -> Array:
    return np.asarray(rows.reshape(len(rows), -1) @ matrix.reshape(len(matrix), -1).T)
