"""One single-op test case: a graph, its feeds, and the edge it is there to hit."""

from __future__ import annotations

from dataclasses import dataclass

from refimpl.graph import Array, Graph


@dataclass(frozen=True)
class Case:
    """``feeds`` holds one array per graph input; ``edge`` says what the case hits
    (a tie, a saturation, an odd zero point, a tail of channels)."""

    name: str
    graph: Graph
    feeds: tuple[Array, ...]
    edge: str

    def __str__(self) -> str:
        return f"{self.name}-{self.edge}"
