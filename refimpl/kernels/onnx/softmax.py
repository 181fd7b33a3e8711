"""QLinearSoftmax: exponentials from a table, one float32 sum per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.lookup import full_range
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes
from karat24.refimpl.kernels.onnx.parameters import parameters
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Rule

_STEPS_PER_ELEMENT = 8
"""Elementary steps of other loops that an element takes."""


class SoftmaxConstants(NamedTuple):
    """``rint(f32(e * steps) / sum) + zero_point``, bounded."""

    flip: np.uint8
    """128 for int8, 0 for uint8: flipped bytes sort as their values do."""
    exponentials: NDArray[np.float32]
    """[256]: e, by the distance from the largest value of a row."""
    steps: np.float32
    """Output steps per 1, rounded down."""
    zero_point: np.float32
    """The output's zero point."""
    low: np.float32
    """Least output."""
    high: np.float32
    """Greatest output."""


def prepare_qlinear_softmax(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """``rint(f32(e * floor(1 / s_y)) / sum) + zp`` with ``e = f32(exp((q - max) * s_x))``.

    None where the values of a row do not lie together in memory.
    """
    data, output = view.input(0), view.output()
    rank = len(data.shape)
    axis = view.integer("axis", -1) % max(rank, 1)
    if rank == 0 or (view.integer("opset") >= 13 and axis != rank - 1):
        return None
    depth = math.prod(data.shape[axis:])
    rows, size = math.prod(data.shape) // depth, math.prod(data.shape)
    source, result = parameters(view, 1, 2), parameters(view, 3, 4)
    distances = -np.arange(256).astype(np.float64)
    exponentials = np.exp(distances * np.float64(np.float32(source.scales[0]))).astype(np.float32)
    steps = np.floor(np.float32(1) / np.float32(result.scales[0]))
    low, high = (np.float32(bound) for bound in full_range(output.dtype))
    constants = SoftmaxConstants(
        np.uint8(128 if data.dtype == "int8" else 0), exponentials, steps, np.float32(result.zero_points[0]),
        low, high,
    )  # fmt: skip

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values, out = (flat_bytes(x).reshape(rows, depth) for x in (buffer(inputs, 0), outputs[0]))
        return values, constants, out

    kernel = LoopKernel(_STEPS_PER_ELEMENT * size, rows, softmax_rows, arguments)
    return kernel


@task_loop
def softmax_rows(values: Any, s: Any, out: Any, begin: int, end: int) -> None:
    """Rows ``begin`` … ``end - 1`` of bytes, by ``SoftmaxConstants``."""
    flip, exponentials = s.flip, s.exponentials
    for i in range(begin, end):
        row = values[i]
        largest: Any = 0
        for k in range(row.size):
            largest = max(largest, np.int64(row[k] ^ flip))
        total = np.float32(0)
        for k in range(row.size):
            total += exponentials[largest - np.int64(row[k] ^ flip)]
        for k in range(row.size):
            scaled = np.float32(exponentials[largest - np.int64(row[k] ^ flip)] * s.steps)
            whole = np.rint(np.float32(scaled / total)) + s.zero_point
            out[i, k] = np.uint8(np.int32(min(max(whole, s.low), s.high)))
