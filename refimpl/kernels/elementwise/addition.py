"""ADD and SUB of two tensors of one shape, computed instead of looked up.

A table of all pairs does not fit the first-level cache; where one formula holds for the
whole tensor, vector arithmetic is several times faster. Other layers keep the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array, Tensor
from karat24.refimpl.kernels.elementwise.addition_block import LANES, PLACES, add_until_doubt
from karat24.refimpl.kernels.jit.no_refcount import no_refcount, no_refcount_inlined
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes
from karat24.refimpl.kernels.jit.wrapping_int32 import add32, mul32, shift_right32, sub32
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel, Tasks

_FINE, _DOUBT = 1536, 4
"""A float32 below 512 added to 1536 is rounded to multiples of 2**-13 (PLACES). A sum is in doubt within
four of them of a tie."""

_HIGH = 31
"""Places that a Q0.31 multiplier shifts to the right."""


class Operand(NamedTuple):
    """How a byte is read: ``(byte ^ flip) - offset`` is its value without the zero point."""

    flip: int
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> Operand:
        """How the bytes of an int8 or uint8 tensor are read."""
        flip = 128 if tensor.dtype == "int8" else 0
        return cls(flip, flip + tensor.zero_point)


class Scaling(NamedTuple):
    """``x * multiplier + (rounding, or rounding_below where the product is negative) >> shift``."""

    multiplier: int
    rounding: int
    rounding_below: int
    shift: int

    @classmethod
    def gemmlowp(cls, multiplier: int, right: int, gained: int) -> Scaling:
        """gemmlowp's scaling of ``x << gained``: times the multiplier, then ``right`` places to the right.

        Two floors in a row are one, and every constant is a multiple of ``2**gained``
        (``karat24.refimpl.kernels.rounding.requantize_block`` says why the sign of the product decides ties).
        """
        rounding = (1 << (_HIGH - 1)) + ((1 << (_HIGH - 1 + right)) if right else 0)
        below = rounding - ((1 << _HIGH) if right else 0)
        return cls(multiplier, rounding >> gained, below >> gained, _HIGH + right - gained)


class ScaledSum(NamedTuple):
    """``left`` and ``right`` scaled, their sum or difference scaled; products fit 64 bits."""

    left: Operand
    """What a byte of input 0 stands for."""
    right: Operand
    """What a byte of input 1 stands for."""
    left_scale: Scaling
    """Scales an operand of input 0."""
    right_scale: Scaling
    """Scales an operand of input 1."""
    sign: int
    """1 to add, -1 to subtract input 1."""
    scale: Scaling
    """Scales the sum."""
    zero_point: int
    """The output's zero point."""
    low: int
    """Least output."""
    high: int
    """Greatest output."""


class WeightedSum(NamedTuple):
    """Integer weights, one shift that rounds half up; everything fits 32 bits."""

    left: Operand
    """What a byte of input 0 stands for."""
    right: Operand
    """What a byte of input 1 stands for."""
    left_weight: int
    """Factor of input 0."""
    right_weight: int
    """Factor of input 1, negative where it is subtracted."""
    shift: int
    """Places the weighted sum is shifted to the right, 1 … 30."""
    zero_point: int
    """The output's zero point."""
    low: int
    """Least output."""
    high: int
    """Greatest output."""


@dataclass(frozen=True)
class SumKernel(TaskKernel):
    """A prepared ADD or SUB; ``constants`` are those arguments of ``compiled`` that are not arrays."""

    compiled: Any
    constants: tuple[Any, ...]

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return self.compiled

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays."""
        left, right = (flat_bytes(buffer(inputs, position)) for position in (0, 1))
        arguments = left, right, *self.constants, flat_bytes(outputs[0])
        return Tasks(arguments, outputs[0].size, outputs[0].size)


@no_refcount
def scaled_sums(left: Any, right: Any, s: Any, out: Any, begin: int, end: int) -> None:
    """Elements ``begin`` … ``end - 1`` by a ``ScaledSum``; every product is one of two 32-bit numbers."""
    minus = np.int64(-1 if s.sign < 0 else 0)
    a_flip, b_flip = np.uint8(s.left.flip), np.uint8(s.right.flip)
    a_offset, b_offset = np.int32(s.left.offset), np.int32(s.right.offset)
    a_scale, b_scale, scale = s.left_scale, s.right_scale, s.scale
    a_factor, b_factor = np.int32(a_scale.multiplier), np.int32(b_scale.multiplier)
    factor, zero = np.int32(scale.multiplier), np.int32(s.zero_point)
    floor, ceiling = np.int32(s.low), np.int32(s.high)
    x, y, z = left[begin:end], right[begin:end], out[begin:end]
    for i in range(z.size):
        p = np.int64(sub32(x[i] ^ a_flip, a_offset)) * np.int64(a_factor)
        q = np.int64(sub32(y[i] ^ b_flip, b_offset)) * np.int64(b_factor)
        p = (p + (a_scale.rounding_below if p < 0 else a_scale.rounding)) >> a_scale.shift
        q = (q + (b_scale.rounding_below if q < 0 else b_scale.rounding)) >> b_scale.shift
        total = np.int64(np.int32(p + ((q ^ minus) - minus))) * np.int64(factor)
        total = (total + (scale.rounding_below if total < 0 else scale.rounding)) >> scale.shift
        z[i] = np.uint8(min(max(add32(total, zero), floor), ceiling))


class ApproximateSum(NamedTuple):
    """A sum in float32: ``byte * a + byte * b + start``, in output steps without the zero point.

    Added to ``offset`` it is rounded to multiples of 2**-13, and its bits hold the result as in
    ``rounding.requantize_block``. Those that end in less than ``2 * _DOUBT`` are near a tie.
    """

    a: np.float32
    """Output steps per step of input 0."""
    b: np.float32
    """Output steps per step of input 1, negative where it is subtracted."""
    start: np.float32
    """Minus both operands' offsets, in output steps."""
    low: np.float32
    """Least result less the zero point."""
    high: np.float32
    """Greatest result less the zero point."""
    offset: np.float32
    """_FINE, zero point and one half, and the doubt."""

    @classmethod
    def of(
        cls,
        left: Operand,
        right: Operand,
        scales: tuple[float, float],
        zero_point: int,
        bounds: tuple[int, int],
    ) -> ApproximateSum:
        """``scales``: output steps per step of each operand, negative for one that is subtracted."""
        start = -left.offset * scales[0] - right.offset * scales[1]
        low, high = (np.float32(bound - zero_point) for bound in bounds)
        offset = np.float32(_FINE + zero_point + 0.5 + _DOUBT * 2.0**-PLACES)
        return cls(np.float32(scales[0]), np.float32(scales[1]), np.float32(start), low, high, offset)


_MOST_DOUBTS = 1 / 16
"""Share of blocks, over all pairs of bytes, that may hold a sum near a tie; with more, computing every sum
exactly is faster."""

_LEFT, _RIGHT = np.indices((256, 256), np.uint8).reshape(2, -1)
"""Both bytes of every pair."""


def sum_kernel(scaled: ScaledSum, steps: tuple[float, float]) -> SumKernel:
    """By :func:`scaled_sums` with these constants, or by float32 where that decides most results.

    ``steps``: output steps per step of each operand, negative for one that is subtracted. All pairs of bytes
    are tried, so the choice does not rely on a bound of float32's error. Each pair is tried in a block of its
    own, where no other pair's doubt could hide that it is wrong.
    """
    s, exact = scaled, SumKernel(scaled_sums, (scaled,))
    approximate = ApproximateSum.of(s.left, s.right, steps, s.zero_point, (s.low, s.high))
    expected, result = np.empty_like(_LEFT), np.empty(_LEFT.size * LANES, np.uint8)
    if _blocks_in_doubt(_LEFT, _RIGHT, approximate, scaled, expected) > _MOST_DOUBTS * _LEFT.size / LANES:
        return exact
    scaled_sums(_LEFT, _RIGHT, scaled, expected, 0, expected.size)
    firsts, seconds = np.repeat(_LEFT, LANES), np.repeat(_RIGHT, LANES)
    approximate_sums(firsts, seconds, approximate, scaled, result, 0, result.size)
    equal = (result.reshape(-1, LANES) == expected[:, np.newaxis]).all()
    return SumKernel(approximate_sums, (approximate, scaled)) if equal else exact


@no_refcount
def approximate_sums(left: Any, right: Any, approximate: Any, s: Any, out: Any, begin: int, end: int) -> None:
    """In float32, but blocks with a sum near a tie and the last few elements by :func:`scaled_sums`."""
    first = begin
    while first < end:
        first += _add_approximately(left, right, approximate, s, out, first, end)
        last = min(first + LANES, end)
        if first < last:
            scaled_sums(left, right, s, out, first, last)
        first = last


@no_refcount
def _blocks_in_doubt(left: Any, right: Any, approximate: Any, s: Any, out: Any) -> int:
    """The number of blocks that float32 leaves in doubt."""
    first, doubts = 0, 0
    while first < out.size:
        first += _add_approximately(left, right, approximate, s, out, first, out.size)
        if first < out.size:
            doubts += 1
        first += LANES
    return doubts


@no_refcount_inlined
def _add_approximately(left: Any, right: Any, n: Any, s: Any, out: Any, begin: int, end: int) -> int:
    """The number of elements computed before the first block in doubt."""
    done: int = add_until_doubt(
        left.ctypes.data + begin, right.ctypes.data + begin, (np.uint8(s.left.flip), np.uint8(s.right.flip)),
        n, np.int32((1 << PLACES) - 2 * _DOUBT), out.ctypes.data + begin, end - begin,
    )  # fmt: skip
    return done


@no_refcount
def weighted_sums(left: Any, right: Any, w: Any, out: Any, begin: int, end: int) -> None:
    """Elements ``begin`` … ``end - 1`` by a ``WeightedSum``."""
    a_flip, b_flip = np.uint8(w.left.flip), np.uint8(w.right.flip)
    a_factor, b_factor, places = np.int32(w.left_weight), np.int32(w.right_weight), np.int32(w.shift)
    offsets = w.left.offset * w.left_weight + w.right.offset * w.right_weight
    start = np.int32((1 << (w.shift - 1)) - offsets)
    floor, ceiling, zero = np.int32(w.low), np.int32(w.high), np.int32(w.zero_point)
    x, y, z = left[begin:end], right[begin:end], out[begin:end]
    for i in range(z.size):
        p = mul32(x[i] ^ a_flip, a_factor)
        q = mul32(y[i] ^ b_flip, b_factor)
        s = shift_right32(add32(add32(p, q), start), places)
        z[i] = np.uint8(min(max(add32(s, zero), floor), ceiling))
