"""Images copied from NCHW to NHWC memory and back, rows in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.jit.operands import buffer
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel, Tasks

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)

_ELEMENTS_PER_STEP = 2
"""Elements copied in the time of an elementary step of other loops."""


@dataclass(frozen=True)
class ToChannelsLast(TaskKernel):
    """[batch, channel, y, x] to [batch, y, x, channel], any element type."""

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return copy_planes

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays."""
        return _tasks(buffer(inputs, 0), outputs[0].transpose(TO_NCHW))


@dataclass(frozen=True)
class ToChannelsFirst(TaskKernel):
    """[batch, y, x, channel] to [batch, channel, y, x], any element type."""

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return copy_planes

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays."""
        return _tasks(buffer(inputs, 0).transpose(TO_NCHW), outputs[0])


def _tasks(source: Array, target: Array) -> Tasks:
    bits = np.dtype(f"u{source.itemsize}")
    rows = source.shape[0] * source.shape[2]
    return Tasks((source.view(bits), target.view(bits)), rows, source.size // _ELEMENTS_PER_STEP)


@task_loop
def copy_planes(source: Any, target: Any, begin: int, end: int) -> None:
    """Rows ``begin`` … ``end - 1`` of all channels; both arrays are seen as [batch, channel, y, x]."""
    _, channels, height, width = target.shape
    for row in range(begin, end):
        batch, y = row // height, row % height
        for channel in range(channels):
            for x in range(width):
                target[batch, channel, y, x] = source[batch, channel, y, x]
