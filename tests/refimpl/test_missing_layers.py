"""A layer the oracle lacks: refused by default, else its outputs are given and the rest is computed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.errors import FeedError, ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Graph, Quantization

QUANTIZATION = Quantization.per_tensor(0.5, 3)
SHAPE = (1, 5)
FEED = np.array([[-128, -1, 3, 4, 127]], np.int8)
GIVEN = np.array([[2, 1, 3, 9, -5]], np.int8)


def chain(*ops: str, dtype: str = "int8") -> Graph:
    """Layers one behind the other, all of one shape; the last two tensors are the outputs."""
    builder = GraphBuilder()
    tensors = [builder.input("a", SHAPE, dtype, QUANTIZATION if dtype == "int8" else None)]
    for op in ops:
        quantization = QUANTIZATION if dtype == "int8" else None
        tensors.append(builder.tensor(op, SHAPE, dtype, quantization))
        builder.layer(op, tensors[-2:-1], tensors[-1:])
    return builder.build(tensors[-1:])


def given(graph: Graph) -> Program:
    return compile_graph(graph, "litert-2.3-ref", missing="given")


def test_what_lies_around_a_missing_layer_is_computed() -> None:
    graph = chain("RELU", "CUSTOM:Unheard", "RELU")
    program = given(graph)
    assert set(program.missing) == {1}
    assert "no implementation for CUSTOM:Unheard" in program.missing[1]
    result = program.run([FEED], trace=True, given={2: GIVEN})
    assert result.trace is not None
    relu = np.maximum
    np.testing.assert_array_equal(result.trace.tensors[1], relu(FEED, 3))
    np.testing.assert_array_equal(result.trace.tensors[2], GIVEN)
    np.testing.assert_array_equal(result.outputs[0], relu(GIVEN, 3))
    np.testing.assert_array_equal(program.run([FEED], given={2: GIVEN}).outputs[0], relu(GIVEN, 3))
    assert result.trace.rules[1] == "given"


def test_the_default_still_refuses() -> None:
    with pytest.raises(UnsupportedOp, match="CUSTOM:Unheard"):
        compile_graph(chain("RELU", "CUSTOM:Unheard"), "litert-2.3-ref")


@pytest.mark.parametrize(
    ("graph", "profile", "reason"),
    [
        (chain("TANH", dtype="int32"), "litert-2.3-ref", "is int32"),
        (chain("LOGISTIC"), "tflm", "has no rule"),
        (chain("LOGISTIC"), "litert-2.3-ref", "refuses layer 0"),
        (chain("RELU", dtype="int4"), "litert-2.3-ref", "element type int4"),
    ],
    ids=[
        "a variant nobody wrote",
        "a profile without a rule",
        "a runtime that refuses",
        "an element type that is only named",
    ],
)
def test_every_kind_of_lack_is_one_layers_reason(graph: Graph, profile: str, reason: str) -> None:
    assert reason in compile_graph(graph, profile, missing="given").missing[0]
    with pytest.raises(UnsupportedOp, match=reason):
        compile_graph(graph, profile)


def test_a_malformed_layer_is_refused_always() -> None:
    graph = chain("RELU", "CUSTOM:Unheard")
    broken = dataclasses.replace(graph.tensors[1], shape=(1, 6))
    graph = dataclasses.replace(graph, tensors=(graph.tensors[0], broken, *graph.tensors[2:]))
    with pytest.raises(ModelError) as error:
        given(graph)
    assert not isinstance(error.value, UnsupportedOp)


def test_a_missing_layer_does_not_run() -> None:
    program = given(chain("CUSTOM:Unheard"))
    with pytest.raises(UnsupportedOp, match="CUSTOM:Unheard"):
        program.run_layer(0, [FEED])
    with pytest.raises(UsageError, match="the oracle lacks"):
        program.describe()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "no value given for tensor 2"),
        ({2: GIVEN[:, :4]}, r"the value given for 'CUSTOM:Unheard' \(tensor 2\): got shape \(1, 4\)"),
        ({2: GIVEN.astype(np.int32)}, "got int32"),
        ({2: GIVEN, 0: FEED}, "tensor 0, which no layer writes"),
    ],
    ids=["none", "shape", "element type", "an input"],
)
def test_given_values_must_fit(values: dict[int, np.ndarray], words: str) -> None:
    with pytest.raises(FeedError, match=words):
        given(chain("RELU", "CUSTOM:Unheard", "RELU")).run([FEED], given=values)


def test_an_output_nobody_reads_keeps_the_runtimes_shape() -> None:
    """Detections: the file declares other sizes than the runtime writes."""
    boxes = np.zeros((1, 10, 4), np.float32)
    result = given(chain("CUSTOM:Unheard")).run([FEED], given={1: boxes})
    assert result.outputs[0].shape == boxes.shape


def test_values_given_for_a_computed_layer_take_the_place_of_its_own() -> None:
    program = compile_graph(chain("RELU", "RELU"), "litert-2.3-ref")
    np.testing.assert_array_equal(program.run([FEED], given={1: GIVEN}).outputs[0], np.maximum(GIVEN, 3))
