"""Which ties a run meets, against the spec's rounding tried on every accumulator and on its neighbours."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.golden.establish.kinds import Kind
from karat24.golden.establish.trials import layer_of
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.profiles.rules import Method
from karat24.refimpl.staircase import reach, requantization
from karat24.refimpl.staircase.regions import regions
from karat24.refimpl.staircase.requantization import ACCUMULATING, Requantization
from karat24.seeking.receptive import receptive_fields
from karat24.seeking.ties import Ties
from tests.support.small_network import small_graph

GRAPHS = {
    "two convolutions": (small_graph(), "litert-2.3-ref"),
    "blocks and a tail": (layer_of(Kind("DEPTHWISE_CONV_2D", "int8", True), 0), "litert-2.3-builtin"),
    "channels first": (layer_of(Kind("QLinearConv", "uint8", True, "int8"), 0), "ort-1.31"),
}


def _rounded(
    roundings: list[Requantization | None], methods: tuple[Method, ...], within: tuple[Array, Array],
    acc: Array, which: int = 0,
) -> Array:  # fmt: skip
    """Accumulators, moved into their channel's reach, as the profile ``which`` rounds them."""
    rounding = roundings[which]
    assert rounding is not None
    return rounding(np.clip(acc, *within).reshape(-1, acc.shape[-1]), methods[which]).reshape(acc.shape)


def by_brute_force(graph: Graph, profile: str, other: str | None, seed: int) -> list[tuple[int, int]]:
    """Ties and ends met of each layer: distinct (region, channel, output) at which rounding is decided."""
    known = PROFILES[profile]
    program = compile_graph(graph, profile, implementation="spec")
    trace = program.run(random_feeds(graph, seed), accumulators=True).trace
    assert trace is not None
    found = []
    for view in graph.views():
        if view.op not in ACCUMULATING:
            continue
        rules = [known.rule(view)] + ([] if other is None else [PROFILES[other].rule(view)])
        roundings, within = [requantization(view, rule) for rule in rules], reach(view)
        assert within is not None
        axis = ACCUMULATING[view.op].output_axis
        acc = np.moveaxis(trace.accumulators[view.layer.index], axis, -1).astype(np.int64)
        ties, ends = set(), set()
        for number, region in enumerate(regions(view, rules)):
            inside = np.ones(acc.shape, bool)
            if region.elements is not None:
                inside = np.moveaxis(region.elements, axis, -1)

            rounded = partial(_rounded, roundings, region.methods, (within.first, within.last))
            at = rounded(acc)
            for output, on in (
                [(at, rounded(acc - 1) < at), (at + 1, rounded(acc + 1) > at)]
                if other is None
                else [(np.maximum(at, rounded(acc, 1)), at != rounded(acc, 1))]
            ):
                for place in np.argwhere(on & inside):
                    ties.add((number, int(place[-1]), int(output[tuple(place)])))
            for end in (within.first, within.last):
                extreme = rounded(np.broadcast_to(end, acc.shape))
                for place in np.argwhere((at == extreme) & inside):
                    ends.add((number, int(place[-1]), int(extreme[tuple(place)]), end is within.last))
        found.append((len(ties), len(ends)))
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_ties_and_ends_met_are_those_of_brute_force(name: str) -> None:
    graph, profile = GRAPHS[name]
    ties = Ties(graph, PROFILES[profile])
    program = compile_graph(graph, profile, implementation="spec")
    met = 0
    for seed in range(3 if len(graph.layers) > 1 else 12):
        trace = program.run(random_feeds(graph, seed), accumulators=True).trace
        assert trace is not None
        numbers = np.concatenate([some for _, some, _ in ties.hits(trace)])
        covered = ties.coverage([numbers])
        assert [(c.ties, c.ends) for c in covered] == by_brute_force(graph, profile, None, seed)
        met += sum(c.ties for c in covered)
        assert all(c.ties <= c.of_ties and c.ends <= c.of_ends for c in covered)
        assert all((c.channels_on_ties > 0) == (c.ties > 0) for c in covered)
    assert met > 0


def test_ties_of_two_profiles_are_where_they_part() -> None:
    graph = layer_of(Kind("CONV_2D", "int8", True), 0)
    ties = Ties(graph, PROFILES["litert-2.3-ref"], PROFILES["litert-2.3-xnnpack"])
    alone = Ties(graph, PROFILES["litert-2.3-ref"])
    program = compile_graph(graph, "litert-2.3-ref", implementation="spec")
    met = 0
    for seed in range(6):
        trace = program.run(random_feeds(graph, seed), accumulators=True).trace
        assert trace is not None
        (covered,) = ties.coverage([numbers for _, numbers, _ in ties.hits(trace)])
        expected = by_brute_force(graph, "litert-2.3-ref", "litert-2.3-xnnpack", seed)
        assert [(covered.ties, covered.ends)] == expected
        met += covered.ties
    assert met > 0
    assert 0 < ties.coverage([])[0].of_ties < alone.coverage([])[0].of_ties


def test_places_are_those_of_the_output() -> None:
    """An accumulator that is moved onto a tie is found there and nowhere else."""
    graph, profile = GRAPHS["two convolutions"]
    ties = Ties(graph, PROFILES[profile])
    program = compile_graph(graph, profile, implementation="spec")
    trace = program.run(random_feeds(graph, 0), accumulators=True).trace
    assert trace is not None
    for layer, numbers, places in ties.hits(trace):
        shape = trace.accumulators[layer].shape
        assert places.max() < np.prod(shape[:-1])
        on = places >= 0
        channels = (numbers[on] - numbers[on].min()) % shape[-1]
        assert channels.max() < shape[-1]


def test_receptive_fields_grow_with_taps_and_strides() -> None:
    """Two 3×3 convolutions see 3 and 5 rows, an addition no more, a 2×2 pool one more."""
    assert receptive_fields(small_graph()) == {0: 3.0, 1: 5.0, 2: 5.0, 3: 6.0}
