"""Elementwise ops on bytes as table lookups.

An op that maps one int8/uint8 value to one value is a table of 256 entries, an
op on two is one of 256 x 256, computed once when the layer is prepared. Tables
are indexed by raw bytes (an int8 -1 is entry 255), so one compiled function
serves both element types.

Where a runtime rounds whole blocks of elements differently from the rest, the
flat output is seen as rows of ``row`` elements: the first ``body`` elements of
each row take one table, those behind it another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Call, Values
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes, operand
from karat24.refimpl.kernels.rounding.byte_table import look_up_bytes
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel, Tasks

_ENDLESS = 1 << 40
"""A row longer than any output."""


def byte_values(dtype: str) -> NDArray[np.int64]:
    """The int8 or uint8 value each of the 256 bytes stands for."""
    return np.arange(256).astype(np.uint8).view(DTYPES[dtype]).astype(np.int64)


def clamped_bytes(values: NDArray[np.int64], low: int, high: int) -> NDArray[np.uint8]:
    """``values`` clamped to ``[low, high]``, which int8 or uint8 holds, as bytes."""
    return (np.clip(values, low, high) & 0xFF).astype(np.uint8)


def full_range(dtype: str) -> tuple[int, int]:
    """``(qmin, qmax)`` of an element type."""
    return QUANTIZED_RANGE[dtype]


@dataclass(frozen=True)
class Tables:
    """One table, or one for whole blocks and one for the elements behind them.

    ``body`` of every ``row`` consecutive output elements are looked up in
    ``blocks``, the others in ``rest``.
    """

    blocks: Array
    rest: Array
    row: int
    body: int

    @classmethod
    def single(cls, table: Array) -> Tables:
        """One table for every element."""
        return cls(table, table, _ENDLESS, _ENDLESS)

    @classmethod
    def mixed(cls, blocks: Array, rest: Array, block: int, row: int) -> Tables:
        """``blocks`` in the whole blocks of ``block`` elements that fit in each row, then ``rest``."""
        return cls(blocks, rest, max(row, 1), row // block * block)


@task_loop
def _look_up(
    values: Any, blocks: Any, rest: Any, row: int, body: int, out: Any, begin: int, end: int
) -> None:
    i = begin
    while i < end:
        start = i - i % row
        in_blocks = i < start + body
        stop = min(start + body if in_blocks else start + row, end)
        table = blocks if in_blocks else rest
        if out.itemsize == 1:
            source, target = values.ctypes.data + i, out.ctypes.data + i
            look_up_bytes(table.ctypes.data, source, target, 1, 0, stop - i)
        else:
            for k in range(i, stop):
                out[k] = table[values[k]]
        i = stop


@task_loop
def _look_up_pairs(
    left: Any, right: Any, blocks: Any, rest: Any, row: int, body: int, out: Any, begin: int, end: int
) -> None:
    i = begin
    while i < end:
        start = i - i % row
        in_blocks = i < start + body
        stop = min(start + body if in_blocks else start + row, end)
        table = blocks if in_blocks else rest
        for k in range(i, stop):
            out[k] = table[left[k], right[k]]
        i = stop


@dataclass(frozen=True)
class Lookup(TaskKernel):
    """A prepared op that replaces each element of input 0 by its entry in a table, of bytes or float32."""

    tables: Tables

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return _look_up

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays."""
        t, out = self.tables, outputs[0].reshape(-1)
        if out.dtype.itemsize == 1:
            out = out.view(np.uint8)
        arguments = flat_bytes(buffer(inputs, 0)), t.blocks, t.rest, t.row, t.body, out
        return Tasks(arguments, out.size, out.size)

    @property
    def byte_table(self) -> NDArray[np.uint8] | None:
        """The only table; None where there are two, or where it holds float32."""
        t = self.tables
        return t.blocks if t.blocks is t.rest and t.blocks.dtype == np.uint8 else None


def _repeated(inputs: Values, position: int, shape: tuple[int, ...]) -> Array:
    """An operand broadcast to ``shape``."""
    values = operand(inputs, position)
    if values.shape == shape:
        return buffer(inputs, position)
    return np.array(np.broadcast_to(values, shape), order="C")


@dataclass(frozen=True)
class PairLookup(TaskKernel):
    """A prepared op that looks up each pair of elements of inputs 0 and 1, which are broadcast; entries are
    bytes.
    """

    tables: Tables

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return _look_up_pairs

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> Call:
        """The layer on these arrays; an operand that is broadcast is repeated by each call."""
        if all(operand(inputs, position).shape == outputs[0].shape for position in (0, 1)):
            return self.layer(inputs, outputs)
        return partial(self, inputs, outputs, None)

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays."""
        t, out = self.tables, flat_bytes(outputs[0])
        left, right = (flat_bytes(_repeated(inputs, position, outputs[0].shape)) for position in (0, 1))
        return Tasks((left, right, t.blocks, t.rest, t.row, t.body, out), out.size, out.size)
