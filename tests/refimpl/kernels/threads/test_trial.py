"""A network's first runs decide whether it takes several threads; the bits are the same on the way."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Graph
from karat24.refimpl.kernels.threads import trial
from karat24.refimpl.kernels.threads.trial import ORDER, ThreadTrial
from karat24.refimpl.warmup import layers
from tests.support.small_network import small_graph


class Clock:
    """A clock that only the ways move on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[int] = []

    def way(self, number: int, seconds: list[float]) -> None:
        self.runs.append(number)
        self.now += seconds[min(self.runs.count(number), len(seconds)) - 1]


@pytest.mark.parametrize(
    ("alone", "shared", "decision"),
    [
        ([1.0], [0.99], 1),
        ([1.0], [1.02], 1),  # as if another program had the second processor
        ([1.0], [1.04], 0),
        ([9.0, 1.0], [5.0, 2.0], 0),  # the first run of each way is slow
        ([1.0], [9.0, 0.5, 9.0], 1),  # one good run tells what the way can do
    ],
)
def test_the_faster_way_stays(
    alone: list[float], shared: list[float], decision: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(trial, "perf_counter", lambda: clock.now)
    run = ThreadTrial(lambda: clock.way(0, alone), lambda: clock.way(1, shared))
    for _ in ORDER:
        assert run.decision is None
        run()
    assert clock.runs == list(ORDER)
    assert run.decision == decision
    run()
    assert clock.runs[-1] == decision


def test_what_is_not_questioned_is_shared() -> None:
    clock = Clock()
    run = ThreadTrial(lambda: clock.way(0, [1.0]), lambda: clock.way(1, [2.0]), questions=False)
    run()
    assert clock.runs == [1]


def _convolution(size: int) -> Graph:
    return next(graph for name, graph in layers() if name == f"CONV_2D to 24 int8 {size}")


def test_both_ways_give_the_bits_of_a_traced_run() -> None:
    graph = _convolution(128)
    feeds = random_feeds(graph, 1)
    program = compile_graph(graph, threads=2, share_small=True)
    assert program.threads_in_use is None
    expected = program.run(feeds, trace=True).outputs[0]
    for _ in range(len(ORDER) + 2):
        np.testing.assert_array_equal(program.run(feeds).outputs[0], expected)
    assert program.threads_in_use in (1, 2)


def test_one_thread_is_never_questioned() -> None:
    program = compile_graph(small_graph(), threads=1)
    assert program.threads_in_use == 1
    program.run(random_feeds(program.graph, 0))
    assert program.threads_in_use == 1


def test_a_large_network_takes_its_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("karat24.refimpl.workspace.LARGEST_WORK", 1)
    program = compile_graph(_convolution(128), threads=2, share_small=True)
    assert program.threads_in_use == 2
