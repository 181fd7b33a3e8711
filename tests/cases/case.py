"""One single-op test case: a graph, its feeds, and the edge it is there to hit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from karat24.refimpl.graph import Array, Graph


@dataclass(frozen=True, eq=False)  # a key of caches, by identity
class Case:
    """``feeds`` holds one array per graph input; ``edge`` says what the case hits
    (a tie, a saturation, an odd zero point, a tail of channels).

    ``broken_in`` maps a delegate's name to the reason why that runtime refuses the
    layer, dies of it or leaves its output undefined although the layer is well formed.
    """

    name: str
    graph: Graph
    feeds: tuple[Array, ...]
    edge: str
    broken_in: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}-{self.edge}"
