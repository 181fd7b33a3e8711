"""Sought cases: better than random, the same for one seed, and honest about what they meet."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.golden.establish.kinds import Kind
from karat24.golden.establish.trials import layer_of
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Graph
from karat24.refimpl.profiles import PROFILES
from karat24.seeking import Sought, Ties, seek
from tests.support.few_taps import fully_connected, graph_of
from tests.support.small_network import small_graph


def sought(graph: Graph, profile: str, images: int = 1, seed: int = 0) -> Sought:
    return seek(
        graph, PROFILES[profile], images=images, runs=60, seed=seed, random_sets=8, implementation="spec"
    )


@pytest.mark.parametrize(
    ("graph", "images"),
    [(small_graph(), 2), (graph_of(fully_connected(0, "int8")), 1)],
    ids=["images", "a row of two values"],
)
def test_a_sought_case_meets_more_than_random_inputs(graph: Graph, images: int) -> None:
    """And what it is said to meet is what a run of it meets."""
    profile = "litert-2.3-ref"
    found = sought(graph, profile, images)
    met = sum(of.ties + of.ends for of in found.coverage)
    assert met > 1.2 * sum(ties + ends for ties, ends in found.random)
    assert len(found.feeds) == images
    ties, program = Ties(graph, PROFILES[profile]), compile_graph(graph, profile, implementation="spec")
    numbers = []
    for feeds in found.feeds:
        trace = program.run(feeds, accumulators=True).trace
        assert trace is not None
        numbers += [some for _, some, _ in ties.hits(trace)]
    assert tuple(ties.coverage(numbers)) == found.coverage


def test_one_seed_gives_one_case() -> None:
    first, again, other = (sought(small_graph(), "litert-2.3-ref", seed=seed) for seed in (1, 1, 2))
    for left, right in zip(first.feeds, again.feeds, strict=True):
        assert all(np.array_equal(left[index], right[index]) for index in left)
    assert any(not np.array_equal(first.feeds[0][i], other.feeds[0][i]) for i in first.feeds[0])


def test_a_model_without_accumulators_has_no_ties() -> None:
    graph = layer_of(Kind("MAX_POOL_2D", "int8"), 0)
    with pytest.raises(CannotCompare, match="no layer has a staircase"):
        sought(graph, "litert-2.3-ref")
