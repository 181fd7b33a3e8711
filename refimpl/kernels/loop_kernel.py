"""Kernels that are one call of a compiled loop.

On a program's own arrays the call is always the same: its arguments are made once, and what is left of a
small layer is its loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from refimpl.contract import Values
from refimpl.graph import Array
from refimpl.kernels.threads import Shared, share


@dataclass(frozen=True)
class LoopKernel:
    """A prepared layer: ``loop`` called with ``arguments(inputs, outputs)``, ``work`` steps in all.

    ``arguments`` only looks at where arrays lie, never at their values, and copies nothing but what is
    constant. ``apart_inputs``, ``apart_outputs``: whether they may be images whose pixels lie apart
    (``refimpl.kernels.pixels``).
    """

    work: int
    loop: Shared
    arguments: Callable[[Values, Sequence[Array]], tuple[Any, ...]]
    apart_inputs: bool = False
    apart_outputs: bool = False

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:  # noqa: ARG002
        """Runs the layer."""
        share(self.work, self.loop, *self.arguments(inputs, outputs))

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> Callable[[], None]:
        """The layer on these arrays, to be run again and again."""
        return self.loop.bound(self.work, *self.arguments(inputs, outputs))
