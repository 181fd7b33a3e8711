"""What a refusal is: a condition on layers, and a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from karat24.refimpl.graph import LayerView


@dataclass(frozen=True)
class Refusal:
    """One thing a runtime refuses: layers of ``ops`` (every op where it is empty) that ``applies`` to.

    ``reason`` completes the sentence "the runtime refuses the layer: ..." and says what helps.
    """

    ops: frozenset[str]
    applies: Callable[[LayerView], bool]
    reason: str

    def covers(self, view: LayerView) -> bool:
        """True when the runtime refuses this layer for this reason."""
        return (not self.ops or view.op in self.ops) and self.applies(view)


Refusals = tuple[Refusal, ...]
