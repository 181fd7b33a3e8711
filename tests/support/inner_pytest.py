"""Before pytest runs inside pytest: what is loaded while ``pytester`` is there is forgotten behind it.

Numba does not stand being loaded in part a second time, so the loading belongs in a fixture of the module.
"""

from __future__ import annotations

from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from tests.support.small_network import small_graph


def load_kernels() -> None:
    """Loads all that a run of the small network takes."""
    graph = small_graph()
    compile_graph(graph).run(random_feeds(graph, 0))
