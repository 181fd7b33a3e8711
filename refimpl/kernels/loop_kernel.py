"""Kernels that are one compiled loop over tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from refimpl.contract import Values
from refimpl.graph import Array
from refimpl.kernels.packed_call import TaskLoop
from refimpl.kernels.stages import Stage


@dataclass(frozen=True)
class LoopKernel:
    """A prepared layer: tasks 0 … ``tasks - 1`` of ``loop``, of ``work`` elementary steps in all.

    ``arguments(inputs, outputs)`` only looks at where arrays lie, never at their values, and copies nothing
    but what is constant. ``apart_inputs``, ``apart_outputs``: whether they may be images whose pixels lie
    apart (``refimpl.kernels.pixels``).
    """

    work: int
    tasks: int
    loop: Any
    arguments: Callable[[Values, Sequence[Array]], tuple[Any, ...]]
    apart_inputs: bool = False
    apart_outputs: bool = False

    @cached_property
    def _tasks(self) -> TaskLoop:
        return TaskLoop(self.loop)

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:  # noqa: ARG002
        """Runs the layer."""
        self.bind(inputs, outputs)()

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> Stage:
        """The layer on these arrays, to be run again and again."""
        return Stage(self._tasks, self.arguments(inputs, outputs), self.tasks, self.work)
