"""Layers that keep a state, run after run: the slow definition beside LiteRT's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from karat24.delegates import delegate_named
from karat24.export.tflite import read_tflite, write_tflite
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.profiles import profile_named
from karat24.refimpl.spec.tflite.svdf import svdf_step
from tests.cases import recurrent
from tests.cases.case import Case

RUNS = 6
"""More than any case's state is long, so that the first input has left it."""


@pytest.mark.parametrize("case", recurrent.cases(), ids=str)
@pytest.mark.parametrize("lane", ["BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"])
def test_svdf_run_after_run(case: Case, lane: str) -> None:
    view, rng = case.graph.view(0), np.random.default_rng(4)
    rule = profile_named("litert-2.3-ref").rule(view)
    interpreter = Interpreter(
        model_content=write_tflite(case.graph), experimental_op_resolver_type=OpResolverType[lane]
    )
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    constants = [None if tensor is None else tensor.data for tensor in view.inputs[1:4]]
    state, states = None, set()
    for _ in range(RUNS):
        feed = rng.integers(-128, 128, view.input(0).shape).astype(np.int8)
        expected, state = svdf_step(view, [feed, *constants, state], rule)
        interpreter.set_tensor(given["index"], feed)
        interpreter.invoke()
        assert np.array_equal(interpreter.get_tensor(made["index"]), expected)
        assert np.array_equal(interpreter.get_tensor(view.input(4).index), state)
        states.add(state.tobytes())
    assert len(states) == RUNS, "the state never moved"


def test_a_variable_is_read_and_written() -> None:
    graph = recurrent.svdf("usual").graph
    again = read_tflite(write_tflite(graph))
    assert again.tensors == graph.tensors
    assert again.tensors[4].dtype == "variable int16"


def test_every_run_of_a_lane_starts_from_the_first_state() -> None:
    """A lane keeps its interpreter, and two equal samples give equal outputs all the same."""
    case = recurrent.svdf("usual")
    content = write_tflite(case.graph)
    with delegate_named("litert-ref", time_limit=60.0) as delegate:
        report = verify(content, read_tflite(content), delegate, [list(case.feeds)] * 2, threads=1)
    assert report.exit_code() == 0, report.table()
    assert any("starts from the values its variables have at first" in note for note in report.notes)


def test_runs_with_and_without_a_trace_are_equal() -> None:
    case = recurrent.svdf("usual")
    program = compile_graph(case.graph, threads=1)
    planned, traced = program.run(list(case.feeds)), program.run(list(case.feeds), trace=True)
    assert planned.outputs[0].tobytes() == traced.outputs[0].tobytes()
