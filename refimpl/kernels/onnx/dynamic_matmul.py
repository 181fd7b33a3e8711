"""MatMulInteger, MatMulIntegerToFloat and DynamicQuantizeMatMul, by float64 products.

A product of two values less their zero points is below 2^16, so that float64 holds every sum of up to 2^37 of
them exactly, in whichever order a BLAS library adds them. The matrices are widened when the layer runs, a few
columns at a time: kept in float64, those of a transformer would take eight times their memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule

COLUMNS = 1024
"""Columns of the right matrix that are widened at once."""

_MOST = np.finfo(np.float32).max


class IntegerProduct:
    """MatMulInteger: int32 sums."""

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """``(a - zero) @ (b - zeros)``, kept in 32 bits; its outputs are its accumulators."""
        del accumulator
        for columns, sums in _sums(inputs, _optional(inputs, 2), _optional(inputs, 3)):
            outputs[0][..., columns] = sums


@dataclass(frozen=True)
class ScaledProduct:
    """MatMulIntegerToFloat, or with ``dynamic`` DynamicQuantizeMatMul: float32 values."""

    dynamic: bool

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """``f32(sums) * f32(s_a * s_b) + bias``, each step rounded to float32."""
        left, right, third, *others = inputs
        assert left is not None
        assert right is not None
        assert third is not None
        zero: Array | None
        if self.dynamic:
            left, scale, zero = to_bytes(left)
            scales, (zeros, bias) = scale * third, _two(others)
        else:
            assert others[0] is not None
            scales, (zero, zeros), bias = third * others[0], _two(others[1:3]), _optional(others, 3)
        scales = np.broadcast_to(scales.reshape(-1), right.shape[-1:])
        for columns, sums in _sums((left, right), zero, zeros):
            with np.errstate(over="ignore", invalid="ignore"):
                values = sums.astype(np.float32) * scales[columns]
                outputs[0][..., columns] = values if bias is None else values + bias[columns]
            if accumulator is not None:
                accumulator[..., columns] = sums


def prepare_dynamic_product(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """The kernel of one of the three ops; None where pairs of products saturate.

    The BLAS library that NumPy is linked with decides on its threads itself.
    """
    if rule.accumulation != "exact" or view.input(0).shape[-1] >= 2**37:
        return None
    if view.op == "MatMulInteger":
        return IntegerProduct()
    return ScaledProduct(view.op.endswith("DynamicQuantizeMatMul"))


def _optional(inputs: Values, position: int) -> Array | None:
    return inputs[position] if position < len(inputs) else None


def _two(inputs: Values) -> tuple[Array | None, Array | None]:
    return _optional(inputs, 0), _optional(inputs, 1)


def _sums(
    inputs: Values, zero: Array | None, zeros: Array | None
) -> Iterator[tuple[slice, NDArray[np.int32]]]:
    """The sums of products of matrices 0 and 1, a few columns after the other.

    ``zero`` is the left one's zero point, ``zeros`` are the right one's: one, or one per column.
    """
    left, right = inputs[0], inputs[1]
    assert left is not None
    assert right is not None
    rows = left.astype(np.float64)
    if zero is not None:
        rows -= zero.reshape(())
    if right.ndim == 2:
        rows = rows.reshape(-1, rows.shape[-1])
    for first in range(0, right.shape[-1], COLUMNS):
        columns = slice(first, min(first + COLUMNS, right.shape[-1]))
        part = right[..., columns].astype(np.float64)
        if zeros is not None:
            part -= zeros.reshape(-1)[columns] if zeros.size > 1 else zeros.reshape(())
        sums = (rows @ part).astype(np.int64).astype(np.int32)
        yield columns, sums.reshape(*left.shape[:-1], -1) if right.ndim == 2 else sums


def to_bytes(values: Array) -> tuple[NDArray[np.uint8], np.float32, NDArray[np.uint8]]:
    """Values in their own range as uint8, its scale and its zero point; float32 throughout."""
    flat = values.reshape(-1)
    with np.errstate(all="ignore"):
        low, high = _least(flat), -_least(-flat)
        low, high = (np.float32(0) if low > 0 else low), (np.float32(0) if high < 0 else high)
        scale = np.float32(1) if low == high else np.float32((high - low) / np.float32(255))
        exact = -low / scale
        zero = 255 if np.isnan(exact) else int(np.rint(min(max(exact, np.float32(0)), np.float32(255))))
        steps = np.clip(values / scale, np.float32(-zero), np.float32(255 - zero))
    steps = np.where(np.isnan(steps), np.float32(-zero), steps)
    return (np.rint(steps) + zero).astype(np.uint8), scale, np.array(zero, np.uint8)


def _least(values: Array) -> np.float32:
    """The least value as x86-64's MINPS finds it, which forgets what it saw before a NaN.

    Lane by lane of 32, lanes two by two, then eight by eight, and what is left one by one.
    """
    if not np.isnan(values).any():
        return np.float32(values.min())
    wide = values.size // 32 * 32
    eights = values.size // 8 * 8
    lanes = _behind_nan(values[:wide].reshape(-1, 4, 8))
    lanes = _behind_nan(np.stack([_behind_nan(lanes[[0, 1]]), _behind_nan(lanes[[2, 3]])]))
    lanes = _behind_nan(np.concatenate([lanes[None], values[wide:eights].reshape(-1, 8)]))
    while lanes.size > 1:
        lanes = _behind_nan(lanes.reshape(2, -1))
    least = np.float32(lanes[0])
    return least if np.isnan(least) else np.float32(np.fmin.reduce(values[eights:], initial=least))


def _behind_nan(rows: Array) -> Array:
    """Along axis 0, the least of what comes behind the last NaN; NaN where nothing does."""
    marked = np.isnan(rows)
    forgotten = np.logical_or.accumulate(marked[::-1], axis=0)[::-1]
    least = np.min(np.where(forgotten, _MOST, rows), axis=0, initial=_MOST)
    return np.where(marked[-1], np.float32(np.nan), least) if len(rows) else least
