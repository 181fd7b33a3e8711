"""A fault put into a real runtime's model is caught, at the layer it was put into.

Each fault is a change of the model LiteRT is given (the oracle keeps the sound
one), so LiteRT really computes the wrong values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from karat24.delegates.protocol import Delegate, DelegateRun, ExecutedGraph, Job, Model
from karat24.export.quantize import PRESETS, quantize_model
from karat24.export.tflite import read_tflite, write_tflite
from karat24.feeds import random_feeds
from karat24.golden.report import Mode
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import DelegateError
from karat24.refimpl.graph import Graph, Layer, LayerView, Quantization, Tensor
from karat24.refimpl.networks import network
from tests.support.runtimes import Runtimes

Fault = Callable[[Graph, LayerView], Graph]


def with_tensor(graph: Graph, tensor: Tensor) -> Graph:
    tensors = list(graph.tensors)
    tensors[tensor.index] = tensor
    return replace(graph, tensors=tuple(tensors))


def weight_bit(graph: Graph, view: LayerView, channel: int = 0) -> Graph:
    """One bit of the centre tap, which meets every pixel: the highest below the sign."""
    filter_ = view.input(1)
    data = np.array(filter_.data)
    data[0, 1, 1, channel] ^= 1 << 6
    return with_tensor(graph, replace(filter_, data=data))


def output_zero_point(graph: Graph, view: LayerView) -> Graph:
    """The layer writes with a zero point one too large."""
    output = view.output()
    assert output.quantization is not None
    zero_point = output.zero_point + (1 if output.zero_point < 127 else -1)
    return with_tensor(graph, replace(output, quantization=Quantization((output.scale,), (zero_point,))))


def swapped_channels(graph: Graph, view: LayerView) -> Graph:
    """Output channels 0 and 1 of the filter change places."""
    filter_ = view.input(1)
    data = np.array(filter_.data)
    data[[0, 1]] = data[[1, 0]]
    return with_tensor(graph, replace(filter_, data=data))


def padding_with_zero(graph: Graph, view: LayerView) -> Graph:
    """SAME padding contributes the number 0 instead of the input's zero point."""
    data, output = view.input(0), view.output()
    assert data.zero_point != 0
    count = len(graph.tensors)
    height, width = data.shape[1:3]
    padded = Tensor(count, "padded", (1, height + 2, width + 2, data.shape[3]), data.dtype, data.quantization)
    paddings = Tensor(
        count + 1, "paddings", (4, 2), "int32", None, np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
    )
    value = Tensor(count + 2, "zero", (1,), "int8", data.quantization, np.zeros(1, np.int8))
    position = view.layer.index
    pad = Layer(position, "PADV2", (data.index, count + 1, count + 2), (count,), {}, 2)
    conv = replace(
        view.layer,
        index=position + 1,
        inputs=(count, *view.layer.inputs[1:]),
        attributes={**view.layer.attributes, "padding": "VALID"},
    )
    later = [replace(layer, index=layer.index + 1) for layer in graph.layers[position + 1 :]]
    assert output.index in conv.outputs
    return replace(
        graph,
        tensors=(*graph.tensors, padded, paddings, value),
        layers=(*graph.layers[:position], pad, conv, *later),
    )


class FaultyRuntime:
    """LiteRT's reference kernels, given a model in which one layer is wrong."""

    name = "litert-ref-with-a-fault"

    def __init__(self, runtime: Delegate, fault: Fault, target: str) -> None:
        self.fit, self.profile = runtime.fit, runtime.profile
        self._runtime, self._fault, self._target = runtime, fault, target

    def _spoil(self, model: Model) -> Model:
        assert isinstance(model, bytes)
        graph = read_tflite(model)
        for view in graph.views():
            if view.output().name == self._target:
                return write_tflite(self._fault(graph, view))
        return model

    def executed_graph(self, model: Model, graph: Graph) -> ExecutedGraph:
        return self._runtime.executed_graph(model, graph)

    def run(self, model: Model, feeds: object, **options: object) -> DelegateRun:
        return self._runtime.run(self._spoil(model), feeds, **options)  # type: ignore[arg-type]

    def run_many(self, jobs: Iterable[Job], **options: object) -> Iterator[DelegateRun | DelegateError]:
        spoiled = [(self._spoil(model), feeds) for model, feeds in jobs]
        return self._runtime.run_many(spoiled, **options)  # type: ignore[arg-type]

    def versions(self) -> object:
        return self._runtime.versions()

    def probe(self) -> object:
        return self._runtime.probe()


@pytest.fixture(scope="module")
def sound() -> Graph:
    float_graph = network("tomogan", 16, 16, "bilinear", None, 3)
    shape = float_graph.tensors[float_graph.inputs[0]].shape
    samples = [np.random.default_rng(i).random(shape, np.float32) for i in range(2)]
    return quantize_model(float_graph, samples, PRESETS["int8"])


@pytest.fixture(scope="module")
def runtime(runtimes: Runtimes) -> Delegate:
    return runtimes("litert-ref")


def convolutions(graph: Graph) -> list[LayerView]:
    """3x3 convolutions whose input zero point is not 0."""
    return [
        view
        for view in graph.views()
        if view.op == "CONV_2D" and view.input(1).shape[1] == 3 and view.input(0).zero_point != 0
    ]


CAUSES = {
    weight_bit: "one weight bit",
    output_zero_point: "zero point off",
    swapped_channels: "channels swapped",
    padding_with_zero: "padding with 0",
}


@pytest.mark.parametrize("fault", CAUSES)
@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize("position", [0, 4, -1])
def test_fault_is_caught_at_its_layer(
    sound: Graph, runtime: Delegate, fault: Fault, mode: Mode, position: int
) -> None:
    target, cause = convolutions(sound)[position], CAUSES[fault]
    if fault is weight_bit:
        # A weight on an input channel that ReLU has silenced changes nothing.
        trace = compile_graph(sound).run(random_feeds(sound, 1), trace=True).trace
        assert trace is not None
        fault = partial(weight_bit, channel=int(trace.tensors[target.input(0).index].std((0, 1, 2)).argmax()))
    faulty = FaultyRuntime(runtime, fault, target.output().name)
    report = verify(write_tflite(sound), sound, faulty, [random_feeds(sound, 1)], mode=mode)  # type: ignore[arg-type]
    assert report.verdict == "mismatch"
    assert report.exit_code() == report.exit_code(accept_explained=True) == 1
    first = report.first_divergence
    assert first is not None
    assert (first.layer, first.op, first.origin) == (target.layer.index, "CONV_2D", "introduced")
    introduced = [v.layer for v in report.layers if v.origin == "introduced"]
    assert introduced == [target.layer.index], "only the faulty layer introduced a difference"
    assert first.attribution is not None
    assert cause in [found.kind for found in first.attribution.causes], first.reason
    assert first.tie_distance is not None
    assert 0 <= first.tie_distance <= 0.5


def test_another_rounding_rule_is_caught_and_named(sound: Graph, runtimes: Runtimes) -> None:
    """XNNPACK rounds once, the reference kernels twice: layers differ by 1 LSB and the rule is named."""
    xnnpack = runtimes("litert-xnnpack")
    report = verify(write_tflite(sound), sound, xnnpack, [random_feeds(sound, 1)], profile="litert-2.3-ref")
    differing = [v for v in report.layers if v.verdict != "bit_exact"]
    assert differing
    assert report.verdict == "explained"
    for verdict in differing:
        assert verdict.diff is not None
        assert verdict.diff.max_abs_diff_lsb == 1
        assert "litert-2.3-xnnpack" in verdict.reason
        if verdict.op == "CONV_2D":
            assert verdict.tie_distance is not None
            assert verdict.tie_distance < 0.01


def test_sound_model_has_no_difference(sound: Graph, runtime: Delegate) -> None:
    for mode in ("isolated", "cumulative"):
        report = verify(write_tflite(sound), sound, runtime, [random_feeds(sound, 1)], mode=mode)  # type: ignore[arg-type]
        assert report.verdict == "bit_exact"
        assert report.exit_code() == 0
