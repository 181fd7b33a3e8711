"""Reading what was written gives the same graph, and a runtime takes both files for the same model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from karat24.export import read_model
from karat24.export.tflite import read_tflite, write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import DTYPES, Quantization
from tests.shared_models import model_names, require
from tests.support.litert import run_reference
from tests.support.random_values import random_feeds
from tests.support.tflite_samples import every_feature, runnable


def models() -> list[str]:
    return model_names() or ["none"]


@pytest.mark.parametrize("name", models())
def test_public_models_survive(name: str) -> None:
    """Every public model, compiled ones and the broken one among them: read → write → read is equal."""
    graph = read_model(require(name))
    content = write_tflite(graph)
    assert read_tflite(content) == graph
    assert write_tflite(graph) == content
    assert write_tflite(read_tflite(content)) == content


@pytest.mark.parametrize("name", models())
def test_litert_computes_the_same(name: str) -> None:
    """The original and the rewritten file give identical outputs on the reference kernels."""
    path = require(name)
    graph = read_model(path)
    custom = [layer.op for layer in graph.layers if layer.op.startswith("CUSTOM:")]
    if custom:
        pytest.skip(f"LiteRT has no {custom[0]}")
    feeds = random_feeds(graph)
    found = run_reference(write_tflite(graph), *feeds)
    for expected, actual in zip(run_reference(path.read_bytes(), *feeds), found, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_every_feature_survives() -> None:
    graph = every_feature()
    again = read_tflite(write_tflite(graph))
    assert again.tensors == graph.tensors
    assert again.signatures == graph.signatures
    assert (again.name, again.description) == ("main", "one of everything")
    assert (again.inputs, again.outputs) == (graph.inputs, graph.outputs)
    for new, old in zip(again.layers, graph.layers, strict=True):
        assert (new.op, new.version, new.inputs, new.outputs) == (
            old.op,
            old.version,
            old.inputs,
            old.outputs,
        )
        assert new.attributes.items() >= old.attributes.items()
    assert again.layers[-1].attributes == {"custom_options": bytes(range(40))}
    assert read_tflite(write_tflite(again)) == again


def test_equal_graphs_give_equal_bytes() -> None:
    assert write_tflite(every_feature()) == write_tflite(every_feature())


def test_litert_runs_it_and_knows_the_signature() -> None:
    content = write_tflite(runnable())
    interpreter = Interpreter(model_content=content)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["extra", "image"], "outputs": ["square"]}
    }
    runner = interpreter.get_signature_runner()
    extra, image = np.ones((1, 3, 3, 3), np.int8), np.full((1, 6, 6, 2), 200, np.uint8)
    direct = run_reference(content, image, extra)[0]
    assert direct.shape == (2, 2)
    assert runner(image=image, extra=extra)["square"].shape == (2, 2)


def test_constants_are_aligned_and_shared() -> None:
    """LiteRT asks for 16-byte alignment; the two equal constants of the sample share a buffer."""
    content = write_tflite(every_feature())
    model = schema.Model.GetRootAs(content, 0)
    start = np.frombuffer(content, np.uint8).ctypes.data
    data = [model.Buffers(n).DataAsNumpy() for n in range(1, model.BuffersLength())]
    assert [(values.ctypes.data - start) % 16 for values in data] == [0] * len(data)
    assert len({values.tobytes() for values in data}) == len(data)
    assert model.Buffers(0).DataIsNone()


def test_a_file_another_writer_made() -> None:
    """Packed by LiteRT's generated code, with defaults left out and an 8-bit operator code only."""
    packed = schema.ModelT.InitFromPackedBuf(write_tflite(every_feature()), 0)
    for code in packed.operatorCodes:
        code.builtinCode = 0
    builder = flatbuffers.Builder()
    builder.Finish(packed.Pack(builder), b"TFL3")
    assert read_tflite(bytes(builder.Output())) == read_tflite(write_tflite(every_feature()))


def test_dynamic_dimensions_are_kept_beside_concrete_ones() -> None:
    graph = every_feature()
    tensors = list(graph.tensors)
    tensors[0] = dataclasses.replace(tensors[0], shape_signature=(-1, 6, 6, 2))
    graph = dataclasses.replace(graph, tensors=tuple(tensors))
    assert read_tflite(write_tflite(graph)).tensors[0].shape_signature == (-1, 6, 6, 2)


def test_every_element_type_survives() -> None:
    builder = GraphBuilder()
    outputs = [
        builder.constant(name, np.array([[0, 1], [1, 0]]).astype(dtype)) for name, dtype in DTYPES.items()
    ]
    outputs.append(builder.constant("scalar", np.array(7, np.int64)))
    outputs.append(builder.constant("empty", np.zeros((0,), np.int32)))
    graph = builder.build(outputs)
    assert read_tflite(write_tflite(graph)) == graph


def test_per_tensor_axis_and_odd_scales_survive() -> None:
    """A scale below float32's normal range, the largest zero point, an axis only some runtimes look at."""
    builder = GraphBuilder()
    tiny = float(np.float32(1e-40))
    builder.input("x", (1, 2, 2, 1), "int32", Quantization((tiny,), (2**31 - 1,), 3))
    graph = builder.build([0])
    assert read_tflite(write_tflite(graph)) == graph


def test_onnx_graphs_are_not_written() -> None:
    with pytest.raises(ModelError, match="onnx layout"):
        write_tflite(dataclasses.replace(every_feature(), format="onnx"))


def test_reading_by_suffix(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(every_feature()))
    assert read_model(str(path)) == read_tflite(path)
    for name, said in (("x.onnx", "onnx"), ("x.pb", "not a model file"), ("gone.tflite", "No such file")):
        with pytest.raises(UsageError, match=said):
            read_model(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read"):
        read_tflite(tmp_path)
