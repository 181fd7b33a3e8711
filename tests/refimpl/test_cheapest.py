"""Where compiling would take longer than a layer's spec, the spec computes it, with the kernel's bits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.refimpl import cheapest
from karat24.refimpl.cheapest import layers_by_spec, seconds_to_compile
from karat24.refimpl.contract import Kernel
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView
from karat24.refimpl.kernels.jit import compile_cache
from tests.cases import copies, glue, int16_layers, slicing
from tests.cases.case import Case
from tests.support.small_network import small_graph

COLD_RUN = """
import sys
from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.kernels.convolution.dense import convolve_tasks
from tests.support.small_network import small_graph

graph = small_graph()
program = compile_graph(graph, threads=1, implementation=sys.argv[1])
program.run(random_feeds(graph, 0), accumulators=True)
print(len(convolve_tasks.overloads), *(step.by_spec for step in program.steps))
"""


def _cold_run(cache: Path, implementation: str) -> str:
    environment = {**os.environ, "KARAT24_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, "-c", COLD_RUN, implementation],
        capture_output=True, text=True, check=True, env=environment,
    ).stdout.strip()  # fmt: skip


def test_a_cold_run_of_a_small_network_compiles_no_convolution(tmp_path: Path) -> None:
    found = _cold_run(tmp_path, "cheapest")
    assert found.startswith("0 True True"), found
    assert not list(tmp_path.rglob("*convolve_tasks*"))


@pytest.mark.slow
def test_what_an_earlier_process_compiled_is_used(tmp_path: Path) -> None:
    assert _cold_run(tmp_path, "kernels") == "1 False False False False"
    assert _cold_run(tmp_path, "cheapest") == "1 False False False False"


def _layers(program: Program) -> list[tuple[LayerView, Kernel]]:
    return [(step.view, step.kernel) for step in program.steps]


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "is_compiled", lambda function, kinds: False)


@pytest.mark.usefixtures("nothing_compiled")
def test_layers_that_share_a_loop_share_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two convolutions, each a little cheaper than compiling; both together are not."""
    layers = _layers(compile_graph(small_graph(), threads=1))
    price = layers[0][1].compile_seconds  # type: ignore[attr-defined]
    monkeypatch.setattr(cheapest, "spec_seconds", lambda view: 0.4 * price if view.op == "CONV_2D" else 0.0)
    assert layers_by_spec(layers, 1) == {0, 1, 2, 3}
    assert layers_by_spec(layers, 2) == {2, 3}
    monkeypatch.setattr(cheapest, "spec_seconds", lambda view: 0.6 * price if view.op == "CONV_2D" else 0.0)
    assert layers_by_spec(layers, 1) == {2, 3}


@pytest.mark.usefixtures("nothing_compiled")
def test_what_has_to_be_compiled_is_counted_once_for_each_loop() -> None:
    layers = _layers(compile_graph(small_graph(), threads=1))
    prices = {view.op: kernel.compile_seconds for view, kernel in layers}  # type: ignore[attr-defined]
    assert seconds_to_compile(layers) == sum(prices.values())


@pytest.mark.parametrize("cases", [copies.cases, glue.cases, int16_layers.cases, slicing.cases])
def test_every_form_of_a_layer_can_be_asked_what_it_has_to_compile(cases: Callable[[], list[Case]]) -> None:
    """A kernel may compile a loop for some forms of its op only: PAD does for images that grow in y and x."""
    asked = 0
    for case in cases():
        try:
            program = compile_graph(case.graph, "litert-2.3-builtin", threads=1)
        except UnsupportedOp:
            continue
        assert seconds_to_compile(_layers(program)) >= 0
        asked += 1
    assert asked > 100


def test_a_compiled_loop_is_used() -> None:
    program = compile_graph(small_graph(), threads=1)
    program.run(random_feeds(program.graph, 0), trace=True)
    assert seconds_to_compile(_layers(program)) == 0
    again = compile_graph(small_graph(), threads=1, implementation="cheapest")
    assert again.implementation == "4 layers by kernels, 0 by specs"
    assert again.planned


def test_an_unknown_form_of_the_cache_means_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknown:
        overloads: dict[object, object] = {}  # noqa: RUF012

    assert compile_cache.is_compiled(Unknown(), ())


@pytest.mark.parametrize("by_spec", range(16))
def test_any_mixture_of_specs_and_kernels_gives_equal_bits(by_spec: int) -> None:
    graph, feeds = small_graph(), random_feeds(small_graph(), 3)
    kernels, specs = compile_graph(graph), compile_graph(graph, implementation="spec")
    expected = specs.run(feeds, accumulators=True).trace
    assert expected is not None
    steps = tuple(
        specs.steps[index] if by_spec >> index & 1 else kernels.steps[index]
        for index in range(len(graph.layers))
    )
    for planned in (False, True):
        mixed = replace(kernels, steps=steps, planned=planned)
        found = mixed.run(feeds, accumulators=True).trace
        assert found is not None
        for index, values in expected.tensors.items():
            np.testing.assert_array_equal(found.tensors[index], values)
        for index, values in expected.accumulators.items():
            np.testing.assert_array_equal(found.accumulators[index], values)
        (output,) = mixed.run(feeds).outputs
        np.testing.assert_array_equal(output, expected.tensors[graph.outputs[0]])
