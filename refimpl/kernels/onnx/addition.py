"""QLinearAdd: computed where vectors of float32 are fast, and otherwise a table of all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.lookup import PairLookup, Tables, full_range
from karat24.refimpl.kernels.jit.no_refcount import no_refcount
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes
from karat24.refimpl.kernels.onnx.images import elementwise
from karat24.refimpl.kernels.onnx.parameters import parameters
from karat24.refimpl.kernels.rounding.fused_multiply_add import fma
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel, Tasks
from karat24.refimpl.profiles.onnx.broadcast import left_is_scalar
from karat24.refimpl.profiles.rules import Rule

_LEFT, _RIGHT = np.indices((256, 256), np.uint8).reshape(2, -1)
"""Both bytes of every pair."""


class SumConstants(NamedTuple):
    """``rint(fma(a, left, fma(b, right, fixed)))`` between ``low`` and ``high``, a and b as stored."""

    left: np.float32
    """Scale of a divided by the output's."""
    right: np.float32
    """Scale of b divided by the output's."""
    fixed: np.float32
    """The output's zero point less both scaled zero points."""
    low: np.float32
    """Least output."""
    high: np.float32
    """Greatest output."""


@dataclass(frozen=True)
class FusedSum(TaskKernel):
    """A prepared QLinearAdd of two tensors of one shape; ``swapped``: input 1 is a."""

    constants: SumConstants
    swapped: bool

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return fused_sums

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays."""
        order = (1, 0) if self.swapped else (0, 1)
        a, b = (buffer(inputs, position).reshape(-1) for position in order)
        size = outputs[0].size
        return Tasks((a, b, self.constants, flat_bytes(outputs[0])), size, size)


def prepare_qlinear_add(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QLinearAdd: float32 with fused products; a and b change places where a is the single value.

    A portable processor may have no fused multiply-add, which the C library then computes slowly.
    """
    swapped = left_is_scalar(view.input(0).shape, view.input(3).shape)
    constants = _constants(view, swapped)
    if view.input(0).shape == view.input(3).shape and target.isa != "portable":
        return elementwise(FusedSum(constants, swapped), 0, 3)
    table = np.empty(_LEFT.size, np.uint8)
    dtype = view.output().dtype
    fused_sums(_LEFT.view(dtype), _RIGHT.view(dtype), constants, table, 0, table.size)
    square = table.reshape(256, 256)
    return elementwise(PairLookup(Tables.single(np.ascontiguousarray(square.T if swapped else square))), 0, 3)


def _constants(view: LayerView, swapped: bool) -> SumConstants:
    left, right, output = parameters(view, 1, 2), parameters(view, 4, 5), parameters(view, 6, 7)
    if swapped:
        left, right = right, left
    scale = np.float32(output.scales[0])
    ra, rb = np.float32(left.scales[0]) / scale, np.float32(right.scales[0]) / scale
    za, zb, zc = (np.float32(p.zero_points[0]) for p in (left, right, output))
    low, high = (np.float32(bound) for bound in full_range(view.output().dtype))
    return SumConstants(ra, rb, np.float32(_fixed(ra, za, rb, zb, zc)), low, high)


@njit(cache=True, nogil=True)
def _fixed(ra: np.float32, za: np.float32, rb: np.float32, zb: np.float32, zc: np.float32) -> np.float32:
    return np.float32(zc - fma(ra, za, np.float32(rb * zb)))


@no_refcount
def fused_sums(left: Any, right: Any, s: Any, out: Any, begin: int, end: int) -> None:
    """Elements ``begin`` … ``end - 1`` of flat int8 or uint8; ``out`` holds their bytes.

    The bounds are whole numbers, so clamping may come before rounding. Each value becomes a float32 straight
    from its own type: by way of int64, which is what Numba makes of a difference of int32, vectors hold half
    as many.
    """
    x, y, z = left[begin:end], right[begin:end], out[begin:end]
    for i in range(z.size):
        total = fma(np.float32(x[i]), s.left, fma(np.float32(y[i]), s.right, s.fixed))
        total = total if total < s.high else s.high
        total = total if total > s.low else s.low
        z[i] = np.uint8(np.int32(np.rint(total)))
