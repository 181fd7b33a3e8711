"""Which layers a runtime runs for a file: one answer, in the file's own tensor indices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat24.delegates import Delegate, delegate_named, optimized_graph
from karat24.delegates.optimized_graph import Edge
from karat24.export.onnx import lower_qdq, read_onnx
from karat24.export.onnx.numbering import differing_layers, numbered_like
from karat24.export.tflite import write_tflite
from karat24.golden.verify import verify
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Tensor
from tests.cases.qdq_kinds import KINDS, image
from tests.support.runtimes import Runtimes
from tests.support.small_network import small_graph

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def ort(runtimes: Runtimes) -> Delegate:
    return runtimes("ort")


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_the_file_keep_their_indices_and_names(kind: str, ort: Delegate) -> None:
    content = KINDS[kind]()
    file = read_onnx(content)
    executed = ort.executed_graph(content, file)
    assert not executed.predicted
    graph = executed.graph
    assert (graph.inputs, graph.outputs) == (file.inputs, file.outputs)
    for ours, theirs in zip(file.tensors, graph.tensors, strict=False):
        assert (ours.index, ours.name) == (theirs.index, theirs.name)
    names = [tensor.name for tensor in graph.tensors]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", KINDS)
def test_optimizations_off_is_the_file(kind: str, runtimes: Runtimes) -> None:
    content = KINDS[kind]()
    file = read_onnx(content)
    executed = runtimes("ort-disable-all").executed_graph(content, file).graph
    assert differing_layers(file, executed) == ((), ())


@pytest.mark.parametrize(("lane", "dtype"), [("ort", "uint8"), ("ort-qdqisint8allowed", "int8")])
def test_a_session_option_is_another_graph(lane: str, dtype: str, runtimes: Runtimes) -> None:
    content = KINDS["signed_activations"]()
    graph = runtimes(lane).executed_graph(content, read_onnx(content)).graph
    integers = [view for view in graph.views() if view.op == "QLinearConv"]
    assert {view.input(0).dtype for view in integers} == {dtype}
    assert len(integers) == 2


def test_other_runtimes_answer_too(ort: Delegate) -> None:
    """A TFLite lane runs the file's layers, the oracle those of its profile, the reference the file's."""
    small = small_graph()
    with delegate_named("litert-ref") as litert:
        assert litert.executed_graph(write_tflite(small), small).graph is small
    content = KINDS["sum_of_two"]()
    file = read_onnx(content)
    with delegate_named("oracle", profile="ort-1.31") as oracle, delegate_named("onnx-reference") as spec:
        predicted = oracle.executed_graph(content, file)
        assert predicted.predicted
        assert predicted.graph.layers == lower_qdq(file).layers
        assert spec.executed_graph(content, file).graph is file


@pytest.mark.parametrize("error", [ModelError("cannot be read"), ModelError("too large")])
def test_a_graph_that_cannot_be_read_is_predicted_and_the_report_says_so(
    error: ModelError, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = KINDS["sum_of_two"]()
    file = read_onnx(content)

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(optimized_graph, "read_optimized", refuse)
    with delegate_named("ort", time_limit=60.0) as delegate:
        executed = delegate.executed_graph(content, file)
        feeds = {"x": image(file.tensors[file.inputs[0]].shape)}
        report = verify(content, file, delegate, [feeds], threads=1)
    assert executed.predicted
    assert executed.graph.layers == lower_qdq(file).layers
    assert any(str(error) in note for note in report.notes)
    assert [output.verdict for output in report.outputs] == ["bit_exact"]


def test_a_graph_of_unreasonable_size_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimized_graph, "largest_file", lambda _: 100)
    content = KINDS["sum_of_two"]()
    with delegate_named("ort", time_limit=60.0) as delegate:
        executed = delegate.executed_graph(content, read_onnx(content))
    assert executed.predicted
    assert "too large" in executed.note


def test_constants_kept_in_other_files_are_found(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    model = onnx.load_from_string(KINDS["signed_activations"]())
    onnx.save(
        model, path, save_as_external_data=True, location="weights.bin", size_threshold=0,
        all_tensors_to_one_file=True,
    )  # fmt: skip
    assert (tmp_path / "weights.bin").stat().st_size > 0
    file = read_onnx(path)
    with delegate_named("ort", time_limit=60.0) as delegate:
        report = verify(path, file, delegate, [{"x": image()}], mode="cumulative", threads=1)
        assert not delegate.executed_graph(path, file).predicted
    assert report.verdict == "bit_exact"


def test_values_come_from_the_session_asked_for(ort: Delegate) -> None:
    """A wide float convolution is computed in blocks of channels there, and in another order elsewhere."""
    content = KINDS["wide_float_convolution"]()
    run = ort.run(content, [image()])
    (plain,) = ort.run(content, [image()], tensors="outputs").outputs
    (conv,) = (layer for layer in read_onnx(content).layers if layer.op == "Conv" and layer.index > 5)
    assert run.capture_changed == ()
    np.testing.assert_array_equal(run.outputs[0], plain)
    np.testing.assert_array_equal(np.abs(run.trace.tensors[conv.outputs[0]]), plain)


def test_an_edge_called_alike_must_fit() -> None:
    tensor = Tensor(0, "e", (1, 4, 8), "float32")
    assert Edge.described("e", "tensor(float)", ["batch", 4, 8]).fits(tensor)
    assert Edge.described("e", "tensor(float)", []).fits(tensor), "of unknown rank"
    assert not Edge.described("e", "tensor(uint8)", [1, 4, 8]).fits(tensor)
    assert not Edge.described("e", "tensor(float)", [1, 8, 4]).fits(tensor)
    assert not Edge.described("e", "tensor(float)", [4, 8]).fits(tensor)


def test_the_first_difference_is_told_and_not_what_follows_from_it() -> None:
    file = read_onnx(KINDS["shared_bias"]())
    same = numbered_like(file, file)
    assert differing_layers(file, same) == ((), ())
    assert same.layers == file.layers
    wrong = replace(file.layers[3], op="Identity")
    other = replace(file, layers=(*file.layers[:3], wrong, *file.layers[4:]))
    ours, theirs = differing_layers(file, other)
    assert [layer.index for layer in ours] == [layer.index for layer in theirs] == [3]
