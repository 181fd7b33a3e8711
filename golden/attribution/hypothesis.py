"""A mistake that may explain a difference: a changed layer, or the outputs it would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from karat24.golden.attribution.suspect import Suspect
from karat24.refimpl.graph import Array, LayerView


@dataclass(frozen=True)
class Hypothesis:
    """One mistake at one ``place``.

    ``view`` is the layer with it, ``data`` its filtered input if that changes. ``outputs`` are given instead
    where the changed layer needs not run as a whole.
    """

    place: str
    view: LayerView | None = None
    data: Array | None = None
    outputs: Sequence[Array] | None = None

    def explains(self, suspect: Suspect) -> bool:
        """Whether the mistake gives every value found."""
        if self.view is None:
            return suspect.gives(self.outputs)
        return suspect.gives(suspect.run(self.view, self.data))


@dataclass(frozen=True)
class Cut:
    """Why a kind of mistake was not searched to its end."""

    reason: str


Kind: TypeAlias = Callable[[Suspect], Iterator["Hypothesis | Cut"]]
"""Yields the mistakes of one kind that the layer could have, the likelier first."""
