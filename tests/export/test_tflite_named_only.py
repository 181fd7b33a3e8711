"""What the oracle cannot compute is read by name: its layer is lacking, the model is not refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from karat24.export.tflite import read_tflite, tflite_subgraphs, write_tflite
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import FeedError, ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Graph
from tests.support.one_convolution import by_name
from tests.support.tflite_control_flow import branching
from tests.support.tflite_edits import broken, scales, tensor
from tests.support.tflite_samples import every_feature
from tests.support.tflite_subgraphs import two_graphs

TYPES = schema.TensorType
CUSTOM_LAYER = 6
"""The sample's last layer, which is lacking in any case."""


def unlisted_option(model: Any) -> None:
    model.subgraphs[0].operators[4].builtinOptions.quantSpec = np.array([1], np.uint8)


def newer_operator(model: Any) -> None:
    model.operatorCodes[1].builtinCode = 9999


CASES: dict[str, tuple[Callable[[Any], None], int, str]] = {
    "an element type NumPy lacks": (tensor("filter", type=TYPES.INT2), 1, "'filter'.*int2"),
    "sparse": (tensor("filter", sparsity=schema.SparsityParametersT()), 1, "'filter'.*sparse int8"),
    "values in another file": (tensor("filter", externalBuffer=3), 1, "'filter'.*external int8"),
    "a variable": (tensor("bias", isVariable=True), 1, "'bias'.*variable int32"),
    "quantized by blocks": (
        scales(
            "filter",
            detailsType=schema.QuantizationDetails.CustomQuantization,
            details=schema.CustomQuantizationT(),
        ),
        1,
        "'filter'.*blockwise int8",
    ),
    "options of unknown meaning": (unlisted_option, 4, r"FULLY_CONNECTED.*positions \(5,\)"),
    "an op newer than the schema": (newer_operator, 1, "BUILTIN:9999"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_layer_is_lacking(case: str) -> None:
    change, layer, reason = CASES[case]
    graph = read_tflite(broken(change))
    program = compile_graph(graph, missing="given")
    assert set(program.missing) == {layer, CUSTOM_LAYER}
    assert re.search(reason, program.missing[layer])


def test_a_sound_sample_lacks_its_custom_op_only() -> None:
    """Otherwise the cases above would prove nothing."""
    assert set(compile_graph(every_feature(), missing="given").missing) == {CUSTOM_LAYER}


@pytest.mark.parametrize("case", ["sparse", "an op newer than the schema", "options of unknown meaning"])
def test_what_is_not_understood_is_not_written(case: str) -> None:
    with pytest.raises(UnsupportedOp):
        write_tflite(read_tflite(broken(CASES[case][0])))


def test_bytes_of_an_unknown_meaning_survive_a_round_trip() -> None:
    content = broken(tensor("filter", type=TYPES.INT2))
    graph = read_tflite(content)
    original = by_name(every_feature(), "filter").data
    assert original is not None
    kept = by_name(read_tflite(write_tflite(graph)), "filter")
    assert kept.data is not None
    assert (kept.dtype, kept.data.tobytes()) == ("int2", original.tobytes())


def test_an_input_of_such_a_type_cannot_be_fed() -> None:
    graph = read_tflite(broken(tensor("image", type=TYPES.STRING)))
    program = compile_graph(graph, missing="given")
    assert 0 in program.missing
    with pytest.raises(FeedError, match=r"'image'.*string"):
        program.run([np.zeros((1, 6, 6, 2), np.uint8), np.zeros((1, 3, 3, 3), np.int8)])


def test_subgraphs_are_listed_and_read_one_by_one() -> None:
    content = two_graphs({"encode": 0, "decode": 1})
    assert [tuple(graph) for graph in tflite_subgraphs(content)] == [
        (0, "main", ("encode",), ()),
        (1, "second", ("decode",), ()),
    ]

    def read(subgraph: int | str) -> tuple[str, list[str]]:
        graph: Graph = read_tflite(content, subgraph)
        return graph.name, [signature.key for signature in graph.signatures]

    assert read(0) == read("encode") == ("main", ["encode"])
    assert read(1) == read("decode") == read("second") == ("second", ["decode"])


@pytest.mark.parametrize("number", [-1, 7])
def test_a_layer_that_enters_no_graph_of_the_file(number: int) -> None:
    """Neither reading nor listing goes astray: a runtime refuses such a file, and says so."""

    def change(model: Any) -> None:
        for layer in model.subgraphs[0].operators:
            if layer.builtinOptionsType == schema.BuiltinOptions.IfOptions:
                layer.builtinOptions.thenSubgraphIndex = number

    content = broken(change, content=branching())
    assert [[str(call) for call in graph.callers] for graph in tflite_subgraphs(content)] == [
        [],
        [],
        ["layer 1 (IF) of subgraph 0 if false"],
    ]
    assert list(compile_graph(read_tflite(content), missing="given").missing) == [1]


def test_a_graph_that_only_layers_enter_is_not_asked_for() -> None:
    assert read_tflite(two_graphs({"main": 0})).name == "main"
    assert read_tflite(two_graphs({})).name == "main"


@pytest.mark.parametrize("subgraph", [None, 2, -1, "middle"])
def test_the_choice_must_name_one(subgraph: int | str | None) -> None:
    content = two_graphs({"encode": 0, "decode": 1})
    with pytest.raises(UsageError, match=r"0 \('encode'\), 1 \('decode'\)"):
        read_tflite(content, subgraph)


def test_a_signature_of_a_subgraph_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="'far' is of subgraph 7; the file has 2"):
        tflite_subgraphs(two_graphs({"far": 7}))
