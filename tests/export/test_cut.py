"""Parts of a graph are graphs: same tensors, constants and layers, and a way back to the source's indices."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from karat24.export.cut import Cut, single_layer, up_to
from karat24.export.tflite import read_tflite, write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph, Quantization
from tests.support.litert import run_reference
from tests.support.tflite_samples import every_feature, runnable


def assert_faithful(cut: Cut, graph: Graph) -> None:
    """Every tensor of the cut is the source's, but for its index."""
    assert set(cut.tensors) == set(range(len(cut.graph.tensors)))
    for new, old in cut.tensors.items():
        ours, theirs = cut.graph.tensors[new], graph.tensors[old]
        assert (ours.name, ours.shape, ours.dtype) == (theirs.name, theirs.shape, theirs.dtype)
        assert ours.quantization == theirs.quantization
        assert ours.data is theirs.data
    assert read_tflite(write_tflite(cut.graph)).inputs == cut.graph.inputs


def source(cut: Cut, indices: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(cut.tensors.get(index, -1) for index in indices)


@pytest.mark.parametrize("index", range(len(every_feature().layers)))
def test_single_layers(index: int) -> None:
    graph = every_feature()
    cut, layer = single_layer(graph, index), graph.layers[index]
    assert_faithful(cut, graph)
    (only,) = cut.graph.layers
    assert (only.op, only.version, only.attributes) == (layer.op, layer.version, layer.attributes)
    assert source(cut, only.inputs) == layer.inputs
    assert source(cut, only.outputs) == source(cut, cut.graph.outputs) == layer.outputs
    read = [i for i in layer.inputs if i != -1 and not graph.tensors[i].is_constant]
    assert list(source(cut, cut.graph.inputs)) == read


def test_single_layers_chained_compute_what_the_model_computes() -> None:
    """Each layer alone, fed with what the ones before it gave, on LiteRT's reference kernels."""
    graph = runnable()
    generator = np.random.default_rng(2)
    feeds = [
        generator.integers(0, 100, graph.tensors[i].shape).astype(graph.tensors[i].dtype)
        for i in graph.inputs
    ]
    values = dict(zip(graph.inputs, feeds, strict=True))
    for layer in graph.layers:
        cut = single_layer(graph, layer.index)
        inputs = [values[i] for i in source(cut, cut.graph.inputs)]
        outputs = run_reference(write_tflite(cut.graph), *inputs)
        values.update(zip(source(cut, cut.graph.outputs), outputs, strict=True))
    expected = run_reference(write_tflite(graph), *feeds)
    for index, value in zip(graph.outputs, expected, strict=True):
        np.testing.assert_array_equal(values[index], value)


def test_a_tensor_read_twice_is_one_input() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4), "int8", Quantization.per_tensor(0.5))
    y = builder.tensor("y", (1, 4), "int8", Quantization.per_tensor(1.0))
    builder.layer("ADD", [x, x], [y])
    cut = single_layer(builder.build([y]), 0)
    assert cut.graph.inputs == (0,)
    assert cut.graph.layers[0].inputs == (0, 0)


def test_equal_names_stay_apart_in_the_signature() -> None:
    builder = GraphBuilder()
    q = Quantization.per_tensor(0.5)
    tensors = [builder.input("x", (1, 4), "int8", q) for _ in range(2)]
    y = builder.tensor("y", (1, 4), "int8", q)
    builder.layer("ADD", tensors, [y])
    (signature,) = single_layer(builder.build([y], signature=None), 0).graph.signatures
    assert signature.inputs == {"x": 0, "x:1": 1}


def test_up_to_leaves_out_what_is_not_needed() -> None:
    """Up to the convolution neither the second input nor any later constant is needed."""
    graph = every_feature()
    (index,) = (t.index for t in graph.tensors if t.name == "conv/Relu")
    cut = up_to(graph, (index,))
    assert_faithful(cut, graph)
    assert [layer.op for layer in cut.graph.layers] == ["QUANTIZE", "CONV_2D"]
    assert [t.name for t in cut.graph.tensors] == ["image", "quantized", "filter", "bias", "conv/Relu"]
    assert source(cut, cut.graph.inputs) == graph.inputs[:1]
    assert source(cut, cut.graph.outputs) == (index,)


def test_up_to_all_outputs_is_the_whole() -> None:
    graph = every_feature()
    assert up_to(graph, graph.outputs).graph == graph


def test_up_to_keeps_the_order_asked_for() -> None:
    graph = every_feature()
    last, first = graph.outputs[1], graph.layers[0].outputs[0]
    cut = up_to(graph, (last, first, last))
    assert source(cut, cut.graph.outputs) == (last, first)


def test_up_to_a_prefix_runs() -> None:
    graph = every_feature()
    (index,) = (t.index for t in graph.tensors if t.name == "joined")
    content = write_tflite(up_to(graph, (index,)).graph)
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert interpreter.get_output_details()[0]["name"] == "joined"


def test_a_graph_input_leads_up_to_itself() -> None:
    graph = every_feature()
    cut = up_to(graph, graph.inputs[:1])
    assert (cut.graph.inputs, cut.graph.outputs, cut.graph.layers) == ((0,), (0,), ())


def test_what_is_not_there_cannot_be_cut() -> None:
    graph = every_feature()
    for index in (-1, len(graph.layers)):
        with pytest.raises(UsageError, match=f"no layer {index}"):
            single_layer(graph, index)
    for index in (-1, len(graph.tensors)):
        with pytest.raises(UsageError, match=f"no tensor {index}"):
            up_to(graph, (index,))


def test_a_tensor_nobody_writes_is_refused() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1,), "float32")
    loose = builder.tensor("loose", (1,), "float32")
    with pytest.raises(UsageError, match=r"'loose'.*produced by no layer"):
        up_to(builder.build([x]), (loose,))
