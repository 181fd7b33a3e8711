"""Hashing beside the run gives the hashes of a trace, and keeps no more than was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.golden.goldens import stream
from karat24.golden.goldens.shown import Shown, show
from karat24.golden.goldens.stream import run_hashed
from karat24.goldens import check_golden
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array, Graph
from tests.support.int8_networks import mobile, residual
from tests.support.small_golden import small_golden


def slow(values: Array) -> Shown:
    """A late hash: layers behind have run, and would have overwritten what is given up too soon."""
    time.sleep(0.02)
    return show(values)


@pytest.mark.parametrize("hashing", [show, slow], ids=["soon", "late"])
@pytest.mark.parametrize("network", [residual, mobile])
def test_hashes_are_those_of_a_trace(
    network: Callable[[], Graph], hashing: Callable[[Array], Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``residual`` reads tensors long after they were written."""
    monkeypatch.setattr(stream, "show", hashing)
    graph = network()
    program, feeds = compile_graph(graph, threads=1), random_feeds(graph, 3)
    shown, kept = run_hashed(program, feeds, lambda _: False)
    trace = program.run(feeds, trace=True).trace
    assert trace is not None
    written = {index for layer in graph.layers for index in layer.outputs}
    assert shown == {index: show(trace.tensors[index]) for index in written}
    assert kept == {}


def test_what_is_kept_is_whole() -> None:
    """A kept tensor has memory of its own."""
    graph = residual()
    program, feeds = compile_graph(graph, threads=1), random_feeds(graph, 3)
    first = graph.layers[0].outputs[0]
    _, kept = run_hashed(program, feeds, first.__eq__, counted=True)
    trace = program.run(feeds, trace=True).trace
    assert trace is not None
    assert kept.keys() == {first}
    assert np.array_equal(kept[first], trace.tensors[first])


def test_memory_is_used_again_once_it_is_hashed() -> None:
    """Not before; and the smallest block that is large enough."""
    graph = residual()
    small, large = (graph.tensors[graph.layers[layer].outputs[0]] for layer in (0, 1))
    large = replace(large, shape=(2, *large.shape[1:]))
    memory, hashed = stream._Memory(), [Future[Shown](), Future[Shown]()]
    blocks = [memory.take(tensor) for tensor in (small, large)]
    for tensor, future in zip((small, large), hashed, strict=True):
        memory.give_back(tensor.index, future)
    assert not any(np.shares_memory(memory.take(replace(small, index=90)), block) for block in blocks)
    for future in hashed:
        future.set_result(Shown("int8", (), ""))
    assert np.shares_memory(memory.take(replace(small, index=91)), blocks[0])
    assert np.shares_memory(memory.take(replace(small, index=92)), blocks[1])
    assert not any(np.shares_memory(memory.take(replace(small, index=93)), block) for block in blocks)


def test_a_machine_that_computes_otherwise_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference is looked at in a second run, which must be the same: else nothing is said."""
    small = small_golden(tmp_path)
    check: Any = import_module("karat24.golden.goldens.check")  # the package has a function of that name
    observe, runs = check.observe_oracle, []

    def unreliable(*arguments: Any, **options: Any) -> Any:
        observed = observe(*arguments, **options)
        runs.append(observed)
        index = observed.graph.outputs[0]
        wrong = Shown("int8", observed.shown[index].shape, f"{len(runs):064x}")
        return replace(observed, shown={**observed.shown, index: wrong})

    monkeypatch.setattr(check, "observe_oracle", unreliable)
    with pytest.raises(CannotCompare, match="does not compute reliably"):
        check_golden(small.path)
    assert len(runs) == 2
