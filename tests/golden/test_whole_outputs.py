"""Outputs of the whole model decide, too: layers that are exact one by one are not yet a model that is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from karat24.delegates.onnx_lanes import ONNX_LANES
from karat24.delegates.onnxruntime import OnnxDelegate
from karat24.delegates.oracle import OracleDelegate
from karat24.delegates.protocol import DelegateRun, Model, Tensors
from karat24.export.onnx import read_onnx
from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.golden.against import compare_runtimes
from karat24.golden.layer_record import NOT_WHAT_RAN
from karat24.golden.report import Mode, Report
from karat24.golden.verify import verify
from karat24.refimpl.engine import Feeds
from karat24.refimpl.errors import DelegateError, DelegateUnavailable
from karat24.refimpl.graph import Graph
from tests.cases.qdq_kinds import KINDS, image
from tests.support.small_network import small_graph


class Whole(OracleDelegate):
    """The oracle as a runtime, which treats whole models (more than one layer) otherwise than cut layers."""

    def __init__(self, graph: Graph, profile: str | None = None) -> None:
        super().__init__(profile)
        self._whole = write_tflite(graph)

    def run(
        self, model: Model, feeds: Feeds, *, tensors: Tensors = "all", threads: int | None = None
    ) -> DelegateRun:
        run = super().run(model, feeds, tensors=tensors, threads=threads)
        return self.changed(run, tensors) if model == self._whole else run

    def changed(self, run: DelegateRun, tensors: Tensors) -> DelegateRun:
        raise NotImplementedError


class OneStepOff(Whole):
    def changed(self, run: DelegateRun, tensors: Tensors) -> DelegateRun:
        first = run.outputs[0].copy()
        first.reshape(-1)[3] += 1
        return replace(run, outputs=(first, *run.outputs[1:]))


class Refusing(Whole):
    def changed(self, run: DelegateRun, tensors: Tensors) -> DelegateRun:
        raise DelegateError("a graph of this size is not for me")


class Gone(Whole):
    def changed(self, run: DelegateRun, tensors: Tensors) -> DelegateRun:
        raise DelegateUnavailable("the device went away")


class Disturbed(Whole):
    """To read inner tensors changes the outputs; a run nothing is read from is sound."""

    def changed(self, run: DelegateRun, tensors: Tensors) -> DelegateRun:
        if tensors == "outputs":
            return run
        return replace(run, outputs=tuple(value * 0 for value in run.outputs), capture_changed=(1,))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_graph()


def judged(graph: Graph, runtime: type[Whole], mode: Mode) -> Report:
    feeds = [random_feeds(graph, seed) for seed in (1, 2)]
    return verify(write_tflite(graph), graph, runtime(graph), feeds, mode=mode, threads=1)


def test_exact_layers_beside_an_output_that_differs_are_a_mismatch(graph: Graph) -> None:
    report = judged(graph, OneStepOff, "isolated")
    assert {layer.verdict for layer in report.layers} == {"bit_exact"}
    assert report.verdict == "mismatch"
    assert report.exit_code() == report.exit_code(accept_explained=True) == 1
    (output,) = report.outputs
    assert output.reason == NOT_WHAT_RAN
    assert output.diff is not None
    assert output.diff.mismatch_count == 2, "one value in each sample"


def test_outputs_have_their_place_in_table_summary_and_json(graph: Graph) -> None:
    report = judged(graph, OneStepOff, "isolated")
    (output,) = report.outputs
    assert "(whole model)" in report.table()
    assert f"output {output.name!r}: {NOT_WHAT_RAN}" in report.table()
    assert "outputs of the whole model: 1 mismatch (2 of " in report.summary()
    content = json.loads(report.to_json())
    assert content["schema"] == 3
    assert [found["verdict"] for found in content["outputs"]] == ["mismatch"]
    assert content["outputs"][0]["diff"]["mismatch_count"] == 2


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
def test_a_model_that_does_not_run_as_a_whole_is_no_pass(graph: Graph, mode: Mode) -> None:
    """Its layers are judged where they run by themselves; exit 3, with the runtime's reason."""
    report = judged(graph, Refusing, mode)
    assert report.exit_code() == 3
    assert [output.verdict for output in report.outputs] == ["not_compared"]
    assert "not for me" in report.outputs[0].reason
    expected = {"bit_exact"} if mode == "isolated" else {"not_compared"}
    assert {layer.verdict for layer in report.layers} == expected


def test_a_runtime_that_is_not_there_is_an_error(graph: Graph) -> None:
    with pytest.raises(DelegateUnavailable, match="went away"):
        judged(graph, Gone, "isolated")


def test_outputs_are_those_of_a_run_nothing_was_read_from(graph: Graph) -> None:
    report = judged(graph, Disturbed, "cumulative")
    assert {layer.verdict for layer in report.layers} == {"not_compared"}
    assert [output.verdict for output in report.outputs] == ["bit_exact"]
    assert report.exit_code() == 3


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
def test_two_runtimes_are_compared_by_their_outputs(graph: Graph, mode: Mode) -> None:
    """The first one's outputs are a step off, which its profile does not say: nothing explains it."""
    content, feeds = write_tflite(graph), [random_feeds(graph, 1)]
    with OneStepOff(graph) as first, OracleDelegate() as second:
        report = compare_runtimes(content, graph, first, second, feeds, mode=mode, threads=1)
    assert report.exit_code() == report.exit_code(accept_explained=True) == 1
    assert [output.verdict for output in report.outputs] == ["mismatch"]


class Hiding(OnnxDelegate):
    """A default session that does not show what layers of one op write."""

    def __init__(self, op: str) -> None:
        super().__init__(ONNX_LANES[0], time_limit=60.0)
        self._op = op

    def run(self, model: Model, feeds: Feeds, **options: Any) -> DelegateRun:
        run = super().run(model, feeds, **options)
        graph = self.executed_graph(model, read_onnx(model)).graph
        hidden = {index for layer in graph.layers if layer.op == self._op for index in layer.outputs}
        shown = {index: value for index, value in run.trace.tensors.items() if index not in hidden}
        return replace(run, trace=replace(run.trace, tensors=shown))


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
def test_behind_a_value_nobody_shows_only_a_bound_is_claimed(mode: Mode) -> None:
    """A float layer whose values the runtime hides is not compared; outputs lie in what it may lead to."""
    content = KINDS["bias_of_another_scale"]()
    graph = read_onnx(content)
    (conv,) = (layer for layer in graph.layers if layer.op == "Conv")

    class HidingOracle(OracleDelegate):
        def run(self, *given: object, **options: object) -> DelegateRun:
            run = super().run(*given, **options)  # type: ignore[arg-type]
            shown = {i: v for i, v in run.trace.tensors.items() if i != conv.outputs[0]}
            return replace(run, trace=replace(run.trace, tensors=shown))

    with HidingOracle("ort-1.31") as runtime:
        report = verify(content, graph, runtime, [{"x": image()}], mode=mode, threads=1)
    (output,) = report.outputs
    assert output.verdict == "within_bound"
    (hidden,) = (layer for layer in report.layers if layer.verdict == "not_compared")
    assert hidden.op == "Conv"
    assert report.exit_code() == 3


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize(("kind", "op"), [("sine_between_layers", "Sin"), ("bias_of_another_scale", "Conv")])
def test_a_hidden_layer_never_lets_a_model_pass(kind: str, op: str, mode: Mode) -> None:
    """What lies behind it may be judged by what is shown; the hidden layer itself is not compared."""
    content = KINDS[kind]()
    with Hiding(op) as runtime:
        report = verify(content, read_onnx(content), runtime, [{"x": image()}], mode=mode, threads=1)
    (hidden,) = (layer for layer in report.layers if layer.op == op)
    assert hidden.verdict == "not_compared"
    assert "does not show" in hidden.reason or op == "Sin"
    assert report.exit_code() == 3
