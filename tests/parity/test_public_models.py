"""Every public model, every layer, every LiteRT lane: not one value differs."""

from __future__ import annotations

import pytest

from karat24.export import read_model
from karat24.export.cut import up_to
from karat24.export.tflite import write_tflite
from karat24.feeds import image_feed, random_feeds
from karat24.golden.report import Mode, Report
from karat24.golden.verify import verify
from karat24.refimpl.graph import Array, Graph
from tests.shared_models import CUT_BEFORE_CUSTOM, MODELS, NOT_RUNNABLE, model_names, require, runnable_models
from tests.support.runtimes import Runtimes, available

LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")
PICTURES = ("coral/grace_hopper.bmp", "coral/cat.bmp")


def load(name: str) -> tuple[bytes, Graph]:
    """The model, cut before the custom op where it ends in one."""
    path = require(name)
    graph = read_model(path)
    custom = CUT_BEFORE_CUSTOM.get(name)
    if custom is None:
        return path.read_bytes(), graph
    needed = next(layer.inputs for layer in graph.layers if layer.op == custom)
    graph = up_to(graph, needed).graph
    return write_tflite(graph), graph


def samples_for(graph: Graph) -> list[dict[int, Array]]:
    """Random values, and a photograph where the model takes an image, else random values again."""
    samples = [random_feeds(graph, seed) for seed in range(2)]
    shape = graph.tensors[graph.inputs[0]].shape
    if len(graph.inputs) == 1 and len(shape) == 4 and shape[3] in (1, 3) and min(shape[1:3]) >= 28:
        picture = next((MODELS / p for p in PICTURES if (MODELS / p).is_file()), None)
        if picture is not None:
            samples[1] = {graph.inputs[0]: image_feed(graph.tensors[graph.inputs[0]], picture)}
    return samples


def failures(report: Report) -> str:
    return report.table() if report.verdict != "bit_exact" else ""


@pytest.mark.slow
@pytest.mark.parametrize("name", runnable_models() or ["folder of public models"])
def test_every_layer_is_bit_exact(name: str, runtimes: Runtimes) -> None:
    """The values of a whole run are those of its layers: one input shows what whole runs add."""
    model, graph = load(name)
    samples = samples_for(graph)
    modes: dict[Mode, list[dict[int, Array]]] = {"isolated": samples, "cumulative": samples[-1:]}
    for lane in LANES:
        for mode, given in modes.items():
            report = verify(model, graph, runtimes(lane), given, mode=mode, implementation="kernels")
            assert report.verdict == "bit_exact", f"{name}\n{failures(report)}"
            assert len(report.layers) == sum(len(layer.outputs) for layer in graph.layers)


@pytest.mark.slow
@pytest.mark.parametrize("lane", ["tflite-2.14-ref", "tflite-2.14-builtin"])
def test_every_layer_is_bit_exact_on_tflite_2_14(lane: str, runtimes: Runtimes) -> None:
    """Isolated only: this runtime computes some layers in place, so a whole run hides their inputs."""
    names = runnable_models()
    if not names:
        require("folder of public models")
    runtime = available(runtimes(lane))
    for name in names:
        model, graph = load(name)
        report = verify(model, graph, runtime, samples_for(graph)[-1:], implementation="kernels")
        assert report.verdict == "bit_exact", f"{name}\n{failures(report)}"


def test_out_of_scope_models_are_named_with_a_reason() -> None:
    """The list holds nothing that is not there, and every model is either run or listed."""
    names = model_names()
    if not names:
        require("folder of public models")
    assert set(NOT_RUNNABLE) <= set(names)
    assert all(NOT_RUNNABLE.values())
    assert set(runnable_models()) | set(NOT_RUNNABLE) == set(names)


def test_a_different_profile_is_told_apart(runtimes: Runtimes) -> None:
    """XNNPACK held to the reference kernels' arithmetic differs, and the difference gets its name."""
    model, graph = load("mlperf_tiny/pretrainedResnet_quant.tflite")
    report = verify(
        model,
        graph,
        runtimes("litert-xnnpack"),
        [random_feeds(graph, 0)],
        profile="litert-2.3-ref",
        implementation="kernels",
    )
    assert report.verdict == "explained"
    assert report.exit_code() == 1
    assert report.exit_code(accept_explained=True) == 0
    assert all("litert-2.3-xnnpack" in v.reason for v in report.layers if v.verdict == "explained")
