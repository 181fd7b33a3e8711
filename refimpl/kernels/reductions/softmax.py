"""SOFTMAX over the innermost axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.jit.operands import buffer, byte_rows
from karat24.refimpl.kernels.rounding.exp_float32 import exp_float32
from karat24.refimpl.kernels.rounding.fixed_point import (
    divide_by_pot,
    doubling_high_mul,
    exp_of_negative,
    reciprocal,
)
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Rule

_PAIR, _MOST = 2, 255
"""Values of a row that is looked up (detectors have one for every box); largest difference of two bytes."""

_SUM_INTEGER_BITS = 12
"""Sums of exponentials are Q12.19."""


def prepare_softmax(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """SOFTMAX over the last axis; the output has scale 1/256 and the element type's minimum as zero."""
    # Bytes of int8 sort like numbers once their sign bit is flipped; of uint8, as they are.
    sign = np.uint8(0x80 if view.output().dtype == "int8" else 0)
    work, tasks = 8 * math.prod(view.output().shape), math.prod(view.output().shape[:-1])
    loop: Any
    constants: tuple[Any, ...]
    if rule.method == "fixed_point":
        loop, constants = _softmax_fixed_point, (_fixed_point_exponentials(view),)
    elif rule.method == "float_table":
        scale, half_up = np.float32(view.output().scale), view.output().dtype == "uint8"
        loop, constants = _softmax_float, (_float_exponentials(view), scale, half_up)
    else:
        raise UnsupportedOp(f"{view}: no kernel takes a softmax by {rule}")
    if view.output().shape[-1] == _PAIR:
        loop, constants, work = _softmax_pairs, (_of_pairs(loop, sign, constants),), work // 8

    def bound(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        return byte_rows(buffer(inputs, 0)), sign, *constants, byte_rows(outputs[0])

    return LoopKernel(work, tasks, loop, bound)


def _of_pairs(loop: Any, sign: np.uint8, constants: tuple[Any, ...]) -> NDArray[np.uint8]:
    """The loop's results for rows of two values, by their difference: [-255 … 255, value]."""
    differences = np.arange(-_MOST, _MOST + 1)
    rows = np.stack([np.maximum(differences, 0), np.maximum(-differences, 0)], axis=1).astype(np.uint8) ^ sign
    results = np.empty_like(rows)
    loop(rows, sign, *constants, results, 0, len(rows))
    return results


def _fixed_point_exponentials(view: LayerView) -> NDArray[np.int64]:
    """exp(-beta * scale * d) as Q0.31 for d = 0 .. 255 below the row's maximum; -1 where it counts as 0."""
    steps = min(float(np.float32(view.real("beta"))) * view.input(0).scale * 2.0**26, 2.0**31 - 1)
    fraction, shift = math.frexp(steps)
    multiplier = math.floor(fraction * 2.0**31 + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = 1 << 30, shift + 1
    if shift < 0:
        raise UnsupportedOp(f"{view}: beta times the input's scale is below 2**-26; rescale the input")
    # Differences are Q5.26 from here on; those beyond the radius would overflow it.
    radius = math.floor(31 * 2.0 ** (26 - shift))
    exponentials = np.full(256, -1, np.int64)
    for difference in range(min(radius, 255) + 1):
        exponentials[difference] = exp_of_negative(doubling_high_mul(-difference << shift, multiplier))
    return exponentials


def _float_exponentials(view: LayerView) -> NDArray[np.float32]:
    """float32 exp(-beta * scale * d) for d = 0 .. 255 below the row's maximum."""
    step = np.float32(view.input(0).scale) * np.float32(view.real("beta"))
    reals = step * np.arange(256).astype(np.float32)
    return exp_float32(-reals)


@njit(cache=True, nogil=True)
def _softmax_fixed_point(rows: Any, sign: Any, exponentials: Any, out: Any, begin: int, end: int) -> None:
    for i in range(begin, end):
        row = rows[i]
        largest = _largest(row, sign)
        total = 0
        for k in range(row.size):
            exponential = exponentials[largest - np.int64(row[k] ^ sign)]
            if exponential >= 0:
                total += divide_by_pot(exponential, _SUM_INTEGER_BITS)
        scale, bits = reciprocal(total & 0xFFFFFFFF, _SUM_INTEGER_BITS)
        for k in range(row.size):
            exponential = exponentials[largest - np.int64(row[k] ^ sign)]
            quotient = 0
            if exponential >= 0:
                quotient = divide_by_pot(doubling_high_mul(scale, exponential), bits + 31 - 8)
            out[i, k] = np.uint8(min(max(quotient, 0), 255)) ^ sign


@njit(cache=True, nogil=True, error_model="numpy")
def _softmax_float(
    rows: Any, sign: Any, table: Any, scale: Any, half_up: bool, out: Any, begin: int, end: int
) -> None:
    for i in range(begin, end):
        row = rows[i]
        largest = _largest(row, sign)
        total = np.float32(0)
        for k in range(row.size):
            total = np.float32(total + table[largest - np.int64(row[k] ^ sign)])
        factor = np.float32(np.float32(1) / np.float32(total * scale))
        for k in range(row.size):
            steps = np.float32(table[largest - np.int64(row[k] ^ sign)] * factor)
            # In float64 the sum is exact, and so rounds half away; in float32 it may round up before.
            half_more = (
                np.float64(np.float32(steps + np.float32(0.5))) if half_up else np.float64(steps) + 0.5
            )
            whole = int(half_more)
            out[i, k] = np.uint8(min(whole, 255)) ^ sign


@njit(cache=True, nogil=True)
def _softmax_pairs(rows: Any, sign: Any, results: Any, out: Any, begin: int, end: int) -> None:
    for i in range(begin, end):
        difference = _MOST + np.int64(rows[i, 0] ^ sign) - np.int64(rows[i, 1] ^ sign)
        out[i, 0], out[i, 1] = results[difference, 0], results[difference, 1]


@njit(cache=True, nogil=True)
def _largest(row: Any, sign: Any) -> Any:
    largest: Any = 0
    for k in range(row.size):
        value = np.int64(row[k] ^ sign)
        largest = max(largest, value)
    return largest
