"""Kernels that are one compiled loop over tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from karat24.refimpl.contract import Call, Values
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit.callee import callees
from karat24.refimpl.kernels.jit.code import Code
from karat24.refimpl.kernels.jit.packed_call import TaskLoop
from karat24.refimpl.kernels.threads.layer_sequence import BoundLayer


class Tasks(NamedTuple):
    """A layer on certain arrays, cut into tasks."""

    arguments: tuple[Any, ...]
    """Arguments of the loop but for the last two, ``begin`` and ``end``."""
    number: int
    """Number of tasks."""
    work: int
    """Elementary steps of all tasks (``threads.thread_count``)."""


class TaskKernel(ABC):
    """A prepared layer: tasks 0 … ``count - 1`` of one compiled loop."""

    @property
    @abstractmethod
    def function(self) -> Any:
        """The compiled loop; its last two arguments are ``begin`` and ``end``."""

    @abstractmethod
    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays, and on ``accumulator`` unless it is None or the op has none.

        Only looks at where arrays lie, never at their values, and copies nothing but constants.
        """

    @property
    def compile_seconds(self) -> float:
        """An estimate of the time that compiling the loop takes, in seconds of one Zen 4 core.

        It is one number for every loop: on a Xeon of 2.8 GHz average pooling takes 0.8 s and a copy 0.2 s.
        """
        return 1.0

    def uncompiled(self, inputs: Values, outputs: Sequence[Array]) -> tuple[Code, ...]:
        """The loop and what it calls, for the types of these arrays, unless compiled."""
        arguments = self.tasks(inputs, outputs, None).arguments
        needed = Code(self.function, self._loop.kinds(arguments)), *(c.code for c in callees(arguments))
        return tuple(code for code in needed if not code.is_compiled)

    @cached_property
    def _loop(self) -> TaskLoop:
        return TaskLoop(self.function)

    def layer(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None = None) -> BoundLayer:
        """The layer on these arrays."""
        arguments, count, work = self.tasks(inputs, outputs, accumulator)
        return BoundLayer(self._loop, arguments, count, work)

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        self.layer(inputs, outputs, accumulator)()

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> Call:
        """The layer on these arrays, to be run again and again."""
        return self.layer(inputs, outputs)


@dataclass(frozen=True)
class LoopKernel(TaskKernel):
    """A task kernel whose number of tasks and work do not depend on its arrays.

    ``arguments(inputs, outputs)`` are those of ``loop``. ``strided_inputs``, ``strided_outputs``: whether
    they may be strided images (``images.strided_images``).
    """

    work: int
    count: int
    loop: Any
    arguments: Callable[[Values, Sequence[Array]], tuple[Any, ...]]
    strided_inputs: bool = False
    strided_outputs: bool = False

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return self.loop

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays."""
        return Tasks(self.arguments(inputs, outputs), self.count, self.work)
