"""Models the oracle knows in part: float layers within bounds, layers it lacks named, the rest judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.delegates import Delegate
from karat24.delegates.protocol import DelegateRun, ExecutedGraph, Model
from karat24.export.tflite import read_tflite, tflite_subgraphs, with_lowest_versions, write_tflite
from karat24.feeds import random_feeds
from karat24.golden.report import Mode, Report, Verdict
from karat24.golden.verify import verify
from karat24.refimpl.bounds import bound_for
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.trace import Trace
from tests.cases import detections
from tests.shared_models import require_case
from tests.support.runtimes import Runtimes
from tests.support.tflite_control_flow import branching

LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")


@pytest.fixture(scope="module", params=LANES)
def lane(request: pytest.FixtureRequest, runtimes: Runtimes) -> Delegate:
    return runtimes(request.param)


@pytest.fixture(scope="module")
def reference(runtimes: Runtimes) -> Delegate:
    return runtimes("litert-ref")


def judged(content: bytes, delegate: Delegate, mode: Mode = "isolated", count: int = 2) -> Report:
    graph = read_tflite(content)
    samples = [random_feeds(graph, seed) for seed in range(count)]
    return verify(content, graph, delegate, samples, mode=mode, threads=1)


def verdicts(report: Report) -> list[Verdict]:
    return [layer.verdict for layer in report.layers]


def network(tail: str, *, back_to_integers: bool = True) -> Graph:
    """An int8 convolution, DEQUANTIZE, a float layer called ``tail``, QUANTIZE, an int8 ReLU."""
    rng = np.random.default_rng(6)
    builder = GraphBuilder()
    q = Quantization.per_tensor
    x = builder.input("x", (1, 6, 6, 3), "int8", q(0.05, 2))
    kernel = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    bias = builder.constant("b", np.arange(4, dtype=np.int32), q(0.05 * 0.01))
    conv = builder.layer(
        "CONV_2D",
        [x, builder.constant("w", kernel, q(0.01)), bias],
        [builder.tensor("conv", (1, 6, 6, 4), "int8", q(0.1, -3))],
        padding="SAME",
        stride_w=1,
        stride_h=1,
    )
    real = builder.layer("DEQUANTIZE", [conv], [builder.tensor("real", (1, 6, 6, 4), "float32")])
    inputs, options = [real], {}
    if tail == "CONV_2D":
        inputs.append(builder.constant("f", rng.normal(size=(4, 3, 3, 4)).astype(np.float32)))
        inputs.append(builder.constant("fb", rng.normal(size=4).astype(np.float32)))
        options = {"padding": "SAME", "stride_w": 1, "stride_h": 1}
    last = builder.layer(tail, inputs, [builder.tensor("tail", (1, 6, 6, 4), "float32")], **options)
    if back_to_integers:
        for op in ("QUANTIZE", "RELU"):
            last = builder.layer(op, [last], [builder.tensor(op, (1, 6, 6, 4), "int8", q(0.1, -3))])
    return with_lowest_versions(builder.build([last]))


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
def test_a_float_layer_between_integers_is_within_its_bound(lane: Delegate, mode: Mode) -> None:
    report = judged(write_tflite(network("CONV_2D")), lane, mode)
    assert verdicts(report) == ["bit_exact", "bit_exact", "within_bound", "bit_exact", "bit_exact"]
    assert [output.verdict for output in report.outputs] == ["bit_exact"]
    assert (report.verdict, report.exit_code()) == ("within_bound", 0)
    bound = report.layers[2].bound
    assert bound is not None
    assert 0 < bound.largest <= 1


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
def test_behind_a_layer_the_oracle_lacks_the_rest_is_judged(reference: Delegate, mode: Mode) -> None:
    """SIN of a float value: no bound is known, and the layers behind it get the runtime's own values."""
    report = judged(write_tflite(network("SIN")), reference, mode)
    assert verdicts(report) == ["bit_exact", "bit_exact", "not_compared", "bit_exact", "bit_exact"]
    assert "no implementation for SIN" in report.layers[2].reason
    assert [output.verdict for output in report.outputs] == ["bit_exact"]
    assert report.exit_code() == 3


class Hiding:
    """A runtime that keeps a tensor to itself, and says so."""

    name = "litert-ref-hiding"

    def __init__(self, runtime: Delegate, tensor: str) -> None:
        self.fit, self.profile = runtime.fit, runtime.profile
        self._runtime, self._tensor = runtime, tensor

    def run(self, model: Model, feeds: object, **options: object) -> DelegateRun:
        found = self._runtime.run(model, feeds, **options)  # type: ignore[arg-type]
        assert isinstance(model, bytes)
        (index,) = (t.index for t in read_tflite(model).tensors if t.name == self._tensor)
        tensors = {other: values for other, values in found.trace.tensors.items() if other != index}
        trace = Trace(found.trace.producer, found.trace.profile, tensors)
        return replace(found, trace=trace, unreadable={index: "it is hidden"})

    def __getattr__(self, name: str) -> object:
        return getattr(self._runtime, name)


def test_behind_a_hidden_float_edge_integers_are_held_to_a_set(reference: Delegate) -> None:
    """In one of the samples a sum lies so near a tie that two integers are allowed."""
    hiding = Hiding(reference, "tail")
    report = judged(write_tflite(network("CONV_2D")), hiding, "cumulative", 40)  # type: ignore[arg-type]
    assert verdicts(report) == ["bit_exact", "bit_exact", "not_compared", "within_bound", "bit_exact"]
    assert "it is hidden" in report.layers[2].reason
    assert [output.verdict for output in report.outputs] == ["within_bound"]
    assert report.exit_code() == 3


@pytest.mark.parametrize("tensor", ["QUANTIZE", "RELU"])
def test_an_integer_outside_its_set_is_a_mismatch(reference: Delegate, tensor: str) -> None:
    """Also where a wrong integer is shown behind the hidden edge, and what follows from it is right."""
    altered = Altered(reference, tensor, 100)
    report = judged(write_tflite(network("CONV_2D")), Hiding(altered, "tail"), "cumulative")  # type: ignore[arg-type]
    assert report.exit_code() == 1


class Altered:
    """A runtime one of whose tensors has another value at ``place``: in what it shows, and as an output."""

    name = "litert-ref-altered"

    def __init__(self, runtime: Delegate, tensor: str, value: float, place: int = 0) -> None:
        self.fit, self.profile = runtime.fit, runtime.profile
        self._runtime, self._tensor, self._value, self._place = runtime, tensor, value, place

    def executed_graph(self, model: Model, graph: Graph) -> ExecutedGraph:
        return self._runtime.executed_graph(model, graph)

    def run(self, model: Model, feeds: object, **options: object) -> DelegateRun:
        found = self._runtime.run(model, feeds, **options)  # type: ignore[arg-type]
        assert isinstance(model, bytes)
        graph = read_tflite(model)
        (index,) = (tensor.index for tensor in graph.tensors if tensor.name == self._tensor)
        tensors = dict(found.trace.tensors)
        if index in tensors:
            tensors[index] = self._moved(tensors[index])
        outputs = [
            self._moved(value) if tensor == index else value
            for tensor, value in zip(graph.outputs, found.outputs, strict=True)
        ]
        trace = Trace(found.trace.producer, found.trace.profile, tensors)
        return replace(found, trace=trace, outputs=tuple(outputs))

    def _moved(self, values: np.ndarray) -> np.ndarray:
        moved = values.copy()
        moved.reshape(-1)[self._place] = self._value
        return moved

    def run_many(self, jobs: object, **options: object) -> object:
        return self._runtime.run_many(jobs, **options)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._runtime, name)


def test_one_unit_beyond_the_bound_is_a_mismatch(reference: Delegate) -> None:
    content = write_tflite(network("CONV_2D", back_to_integers=False))
    graph = read_tflite(content)
    samples = [random_feeds(graph, 1)]
    shown = reference.run(content, samples[0]).trace.tensors
    view = graph.view(2)
    interval = bound_for(view)([shown[t.index] if t.data is None else t.data for t in view.inputs if t])
    highest = interval.high.reshape(-1)[0]
    for value, verdict, code in (
        (highest, "within_bound", 0),
        (np.nextafter(highest, np.float32(np.inf)), "mismatch", 1),
    ):
        altered = Altered(reference, "tail", value)
        report = verify(content, graph, altered, samples, threads=1)  # type: ignore[arg-type]
        assert (report.layers[2].verdict, report.outputs[0].verdict) == (verdict, verdict)
        assert (report.verdict, report.exit_code()) == (verdict, code)
        assert report.layers[2].diff is not None
        assert report.layers[2].diff.mismatch_count == code, "the one value that was moved"


def test_what_a_float_layer_reads_may_not_hide_a_difference(reference: Delegate) -> None:
    """Its interval follows the inputs the runtime had: a wrong input is seen where it is read."""
    content = write_tflite(network("CONV_2D", back_to_integers=False))
    report = judged(content, Altered(reference, "real", 1e3))  # type: ignore[arg-type]
    assert report.exit_code() == 1


def test_reported_float_tail(lane: Delegate) -> None:
    content = require_case("tflite/tf55349_int8_conv_float_tail.tflite").read_bytes()
    report = judged(content, lane)
    assert verdicts(report) == ["bit_exact", "bit_exact", "within_bound", "within_bound"]
    assert [output.verdict for output in report.outputs] == ["within_bound"]
    assert report.exit_code() == 0


def test_reported_detection_postprocessing(lane: Delegate) -> None:
    """The file declares scalars where boxes come out, and a runtime does not write every place for them."""
    content = require_case("tflite/tfmodels7451_ssd_detection_postprocess_uint8.tflite").read_bytes()
    report = judged(content, lane)
    assert verdicts(report) == ["bit_exact"] * 5
    assert report.exit_code() == 0
    assert any("as memory was: they are not compared" in note for note in report.notes)


def test_places_that_no_detection_fills_do_not_count(reference: Delegate) -> None:
    """A value in the last place, which nothing was written to, is no difference; in the first place it is."""
    (case,) = (case for case in detections.cases() if case.edge == "overlap at the threshold")
    content = write_tflite(case.graph)
    for place, verdict in ((-1, "bit_exact"), (0, "mismatch")):
        runtime = Altered(reference, "out2", 7.0, place)
        report = verify(content, case.graph, runtime, [list(case.feeds)], mode="cumulative", threads=1)  # type: ignore[arg-type]
        assert report.verdict == verdict


def test_layers_around_control_flow_are_judged(reference: Delegate) -> None:
    """IF is named and not compared, what lies behind it goes on with the runtime's values."""
    report = judged(branching(), reference)
    assert verdicts(report) == ["bit_exact", "not_compared", "bit_exact"]
    assert "computes no control flow" in report.layers[1].reason
    assert report.exit_code() == 3


def test_reported_file_of_two_signatures(lane: Delegate) -> None:
    """Each subgraph is read by its signature, and judged as a model of its own."""
    content = require_case("tflite/litert80_two_signatures_two_subgraphs_int8.tflite").read_bytes()
    keys = [signature for subgraph in tflite_subgraphs(content) for signature in subgraph.signatures]
    assert keys == ["encode", "decode"]
    for key in keys:
        report = judged(write_tflite(read_tflite(content, key)), lane)
        assert (report.verdict, report.exit_code()) == ("bit_exact", 0), report.table()
