"""Kernels that are one compiled loop over tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from refimpl.contract import Values
from refimpl.graph import Array
from refimpl.kernels.jit.packed_call import TaskLoop
from refimpl.kernels.threads.layer_sequence import BoundLayer


@dataclass(frozen=True)
class TaskKernel:
    """A prepared layer: tasks 0 … ``tasks - 1`` of ``loop``, of ``work`` elementary steps in all.

    ``arguments(inputs, outputs)`` only looks at where arrays lie, never at their values, and copies nothing
    but what is constant. ``strided_inputs``, ``strided_outputs``: whether they may be images whose pixels lie
    apart (``refimpl.kernels.images.strided_images``).
    """

    work: int
    tasks: int
    loop: Any
    arguments: Callable[[Values, Sequence[Array]], tuple[Any, ...]]
    strided_inputs: bool = False
    strided_outputs: bool = False

    @cached_property
    def _tasks(self) -> TaskLoop:
        return TaskLoop(self.loop)

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:  # noqa: ARG002
        """Runs the layer."""
        self.bind(inputs, outputs)()

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> BoundLayer:
        """The layer on these arrays, to be run again and again."""
        return BoundLayer(self._tasks, self.arguments(inputs, outputs), self.tasks, self.work)
