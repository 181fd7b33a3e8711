"""LSTMs and their states: the slow definition beside LiteRT's interpreter, which shows its states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from karat24.delegates import delegate_named
from karat24.export.tflite import read_tflite, write_tflite
from karat24.golden.verify import verify
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles import profile_named
from karat24.refimpl.spec.tflite.lstm.layout import CELL_STATE, OUTPUT_STATE
from karat24.refimpl.spec.tflite.lstm.lstm import lstm_run
from tests.cases.case import Case
from tests.cases.lstm import Lstm, described

RUNS = 4
STATES = (OUTPUT_STATE, CELL_STATE)


def _interpreter(case: Case, lane: str = "BUILTIN_REF") -> Any:
    interpreter = Interpreter(
        model_content=write_tflite(case.graph), experimental_op_resolver_type=OpResolverType[lane]
    )
    interpreter.allocate_tensors()
    return interpreter


def _run(interpreter: Any, view: LayerView, feed: Array) -> tuple[Array, ...]:
    """Output, output state and cell state after one more run."""
    interpreter.set_tensor(view.input(0).index, feed)
    interpreter.invoke()
    read = (view.output(), *(view.input(place) for place in STATES))
    return tuple(interpreter.get_tensor(tensor.index).copy() for tensor in read)


def _values(view: LayerView, feed: Array, states: tuple[Array | None, ...]) -> list[Array | None]:
    values = [None if tensor is None else tensor.data for tensor in view.inputs]
    values[0] = feed
    values[OUTPUT_STATE], values[CELL_STATE] = states
    return values


def _same(ours: tuple[Array, ...], theirs: tuple[Array, ...]) -> list[bool]:
    return [a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("described", list(described()), ids=lambda lstm: f"{lstm.op}-{lstm.edge}")
@pytest.mark.parametrize("lane", ["BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"])
def test_output_and_both_states_run_after_run(described: Lstm, lane: str) -> None:
    case, rng = described.case(), np.random.default_rng(4)
    view = case.graph.view(0)
    rule = profile_named("litert-2.3-ref").rule(view)
    interpreter, states = _interpreter(case, lane), (None, None)
    for _ in range(RUNS):
        feed = rng.integers(-128, 128, view.input(0).shape).astype(np.int8)
        expected = lstm_run(view, _values(view, feed, states), rule)
        assert all(_same(expected, _run(interpreter, view, feed)))
        states = expected[1:]


def _with_gates(lstm: Lstm, weights: list[int], biases: list[Array | int]) -> Case:
    """The LSTM with weights of one value for the data of each gate, none for its output, and these biases."""
    case = lstm.case()
    view, tensors = case.graph.view(0), list(case.graph.tensors)
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        for place, values in ((1, weight), (5, 0), (12, bias)):
            tensor = view.input(place + number)
            filled = np.broadcast_to(values, tensor.shape).astype(tensor.dtype)
            tensors[tensor.index] = replace(tensor, data=filled)
    return replace(case, graph=replace(case.graph, tensors=tuple(tensors)))


OPEN, SHUT = 32767, -32768


@pytest.mark.parametrize("swept", [0, 2], ids=["sigmoid", "tanh"])
def test_every_sum_of_a_gate(swept: int) -> None:
    """257 cells with biases 256 apart, 256 sequences with data 1 apart: the sums are all int16 values, and
    cells of scale 2^-15 keep what the gate makes of them."""
    lstm = Lstm(
        "sweep", batch=256, steps=1, depth=1, cells=257, outputs=257, to_gate=(1.0, 1.0), cell_exponent=-15
    )
    biases: list[Array | int] = [OPEN, SHUT, OPEN, OPEN]
    biases[swept] = 7 + 256 * np.arange(-128, 129)  # data have the zero point 7
    case = _with_gates(lstm, [int(number == swept) for number in range(4)], biases)
    view = case.graph.view(0)
    feed = np.arange(-128, 128).astype(np.int8).reshape(256, 1, 1)
    expected = lstm_run(view, _values(view, feed, (None, None)), profile_named("litert-2.3-ref").rule(view))
    assert all(_same(expected, _run(_interpreter(case), view, feed)))
    assert len(np.unique(expected[2])) > 2**13, "the cells do not show the gate"


@pytest.mark.parametrize("exponent", range(-15, -8))
@pytest.mark.parametrize("forget", [OPEN, 0], ids=["kept", "halved"])
def test_tanh_of_every_cell(exponent: int, forget: int) -> None:
    """Both states are set, the cells to all int16 values. The forget gate leaves nearly all of them, or half,
    and then every odd cell is on a tie."""
    lstm = Lstm(
        "cells", batch=256, steps=1, cells=256, outputs=256, cell_exponent=exponent, output=(2.0**-7, 0)
    )
    case = _with_gates(lstm, [0, 0, 0, 0], [SHUT, forget, 0, OPEN])
    view, interpreter = case.graph.view(0), _interpreter(case)
    states = np.zeros((256, 256), np.int8), np.arange(-(2**15), 2**15).astype(np.int16).reshape(256, 256)
    for place, state in zip(STATES, states, strict=True):
        interpreter.set_tensor(view.input(place).index, state)
    feed = case.feeds[0]
    expected = lstm_run(view, _values(view, feed, states), profile_named("litert-2.3-ref").rule(view))
    assert all(_same(expected, _run(interpreter, view, feed)))
    assert len(np.unique(expected[2])) > 2**14


def test_an_lstm_is_read_and_written() -> None:
    graph = Lstm("usual", projection=True, outputs=4).case().graph
    again = read_tflite(write_tflite(graph))
    assert again.tensors == graph.tensors
    assert again.layers[0].intermediates == graph.layers[0].intermediates
    assert write_tflite(again) == write_tflite(graph)
    assert [tensor.dtype for tensor in again.view(0).inputs[18:20] if tensor] == [
        "variable int8",
        "variable int16",
    ]


def test_a_lane_starts_each_sample_from_the_first_state_and_is_judged() -> None:
    """The output state starts as its zero point, which is not 0; a layer cut out keeps its intermediates."""
    case = Lstm("judged").case()
    content = write_tflite(case.graph)
    with delegate_named("litert-ref", time_limit=60.0) as delegate:
        report = verify(content, read_tflite(content), delegate, [list(case.feeds)] * 2, threads=1)
    assert report.exit_code() == 0, report.table()
