"""Runs that go on from one another: a program's states are those its layers' definitions leave."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from karat24.refimpl.profiles import profile_named
from karat24.refimpl.spec.tflite.svdf import svdf_step
from tests.cases import recurrent
from tests.cases.lstm import Lstm

SAMPLES = 3


def _feeds(shape: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(7)
    return [rng.integers(-128, 128, shape).astype(np.int8) for _ in range(SAMPLES)]


def test_states_go_from_run_to_run() -> None:
    graph = recurrent.svdf("usual").graph
    view, program = graph.view(0), compile_graph(graph, threads=1)
    rule = profile_named("litert-2.3-ref").rule(view)
    constants = [None if tensor is None else tensor.data for tensor in view.inputs[1:4]]
    states, expected_state = {}, None
    for feed in _feeds(view.input(0).shape):
        expected, expected_state = svdf_step(view, [feed, *constants, expected_state], rule)
        result = program.run([feed], states=states)
        assert result.outputs[0].tobytes() == expected.tobytes()
        assert list(result.states) == [view.input(4).index]
        assert result.states[view.input(4).index].tobytes() == expected_state.tobytes()
        states = result.states


def test_a_run_without_states_starts_anew_and_leaves_none() -> None:
    case = Lstm("anew").case()
    program = compile_graph(case.graph, threads=1)
    first = program.run(list(case.feeds), states={})
    on = program.run(list(case.feeds), states=first.states)
    anew = program.run(list(case.feeds))
    assert anew.outputs[0].tobytes() == first.outputs[0].tobytes() != on.outputs[0].tobytes()
    assert dict(anew.states) == {}


def test_a_trace_shows_the_states_a_run_started_from() -> None:
    case = Lstm("traced").case()
    program = compile_graph(case.graph, threads=1)
    left = program.run(list(case.feeds), states={}).states
    trace = program.run(list(case.feeds), trace=True, states=left).trace
    assert trace is not None
    assert len(left) == 2
    assert all(trace.tensors[index].tobytes() == state.tobytes() for index, state in left.items())
