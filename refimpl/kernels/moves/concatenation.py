"""CONCATENATION: inputs side by side along one axis, rows copied in parallel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView, Tensor
from karat24.refimpl.kernels.elementwise.activations import round_half_away
from karat24.refimpl.kernels.elementwise.lookup import byte_values, clamped_bytes
from karat24.refimpl.kernels.jit.code import Code
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.jit.operands import buffer
from karat24.refimpl.kernels.jit.packed_call import TaskLoop
from karat24.refimpl.kernels.rounding.byte_table import look_up_bytes
from karat24.refimpl.kernels.rounding.multipliers import combined_scales, rounded_products
from karat24.refimpl.kernels.threads.layer_sequence import BoundLayer
from karat24.refimpl.profiles.rules import Rule

BYTES_PER_STEP = 8
"""Bytes copied in the time of an elementary step of other loops."""


@dataclass(frozen=True)
class Concatenation:
    """A prepared CONCATENATION along ``axis``: ``rows`` times the bytes of each input, ``widths``.

    ``tables`` holds None for an input that is copied as it is.
    """

    axis: int
    rows: int
    widths: tuple[int, ...]
    tables: tuple[NDArray[np.uint8] | None, ...]

    @cached_property
    def _copy(self) -> TaskLoop:
        return TaskLoop(copy_rows)

    @cached_property
    def _translate(self) -> TaskLoop:
        return TaskLoop(translate_rows)

    @property
    def copied(self) -> tuple[bool, ...]:
        """For each input whether its bytes are copied as they are."""
        return tuple(table is None for table in self.tables)

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        for call in self.bind_parts(range(len(self.widths)), inputs, outputs):
            call()

    def bind_parts(
        self, positions: Sequence[int], inputs: Values, outputs: Sequence[Array]
    ) -> Sequence[BoundLayer]:
        """One call for each of the inputs at ``positions``, which writes that input into the output."""
        return [
            BoundLayer(loop, arguments, self.rows, work)
            for loop, arguments, work in self._parts(positions, inputs, outputs)
        ]

    @property
    def compile_seconds(self) -> float:
        """An estimate of the time that compiling its loops takes, as in :class:`TaskKernel`."""
        return 1.0

    def uncompiled(self, inputs: Values, outputs: Sequence[Array]) -> tuple[Code, ...]:
        """Its loops, for the types of these arrays, unless compiled."""
        parts = self._parts(range(len(self.widths)), inputs, outputs)
        needed = dict.fromkeys(Code(loop.function, loop.kinds(arguments)) for loop, arguments, _ in parts)
        return tuple(code for code in needed if not code.is_compiled)

    def _parts(
        self, positions: Sequence[int], inputs: Values, outputs: Sequence[Array]
    ) -> Iterator[tuple[TaskLoop, tuple[Any, ...], int]]:
        """The loop for each of the inputs at ``positions``, its arguments and its elementary steps."""
        out = outputs[0].reshape(-1).view(np.uint8).reshape(self.rows, sum(self.widths))
        for position in positions:
            width, table, start = self.widths[position], self.tables[position], sum(self.widths[:position])
            part = buffer(inputs, position).reshape(-1).view(np.uint8).reshape(self.rows, width)
            if table is None:
                yield self._copy, (part, start, out), part.size // BYTES_PER_STEP
            else:
                yield self._translate, (part, table, start, out), part.size


def prepare_concatenation(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """CONCATENATION: a copy; uint8 inputs with parameters of their own go through a table."""
    if rule.method not in ("reference", "exact", "float32_half_even"):
        raise UnsupportedOp(f"{view}: no kernel concatenates by {rule}")
    output, parts = view.output(), [view.input(position) for position in range(len(view.inputs))]
    axis = view.integer("axis") % len(output.shape)
    size = DTYPES[output.dtype].itemsize
    return Concatenation(
        axis,
        math.prod(output.shape[:axis]),
        tuple(math.prod(part.shape[axis:]) * size for part in parts),
        tuple(_rescale_table(part, output, rule) for part in parts),
    )


def _rescale_table(tensor: Tensor, output: Tensor, rule: Rule) -> NDArray[np.uint8] | None:
    """None for a plain copy. Source: TFLite ``ConcatenationWithScaling``, float32 throughout; the Edge TPU's
    zero points are added to whole numbers."""
    if output.dtype != "uint8" or (tensor.scale, tensor.zero_point) == (output.scale, output.zero_point):
        return None
    if rule.method == "float32_half_even":
        (real,) = combined_scales(tensor.scale, [1.0], output.scale, rule.multiplier)
        whole = rounded_products(byte_values("uint8") - tensor.zero_point, np.float32(real))
        return clamped_bytes(whole + output.zero_point, 0, 255)
    with np.errstate(over="ignore"):
        scale = np.float32(tensor.scale) * (np.float32(1) / np.float32(output.scale))
        steps = byte_values("uint8").astype(np.float32) * scale + np.float32(-tensor.zero_point) * scale
    return clamped_bytes(round_half_away(steps) + output.zero_point, 0, 255)


@task_loop
def copy_rows(part: Any, start: int, out: Any, begin: int, end: int) -> None:
    """``out[:, start : start + width] = part``, bytes."""
    width = part.shape[1]
    for row in range(begin, end):
        # Rows as arrays of their own: an index that might be negative would keep LLVM from vectorizing.
        source, target = part[row], out[row, start : start + width]
        for k in range(width):
            target[k] = source[k]


@task_loop
def translate_rows(part: Any, table: Any, start: int, out: Any, begin: int, end: int) -> None:
    """``out[:, start : start + width] = table[part]``, bytes; ``table`` [256]."""
    width = part.shape[1]
    for row in range(begin, end):
        source, target = part[row], out[row, start : start + width]
        look_up_bytes(table.ctypes.data, source.ctypes.data, target.ctypes.data, 1, 0, width)
