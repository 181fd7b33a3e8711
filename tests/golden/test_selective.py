"""Selective networks: the branch taken, layers of all three parts, and faults in either."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.delegates.oracle import OracleDelegate
from karat24.delegates.protocol import DelegateRun
from karat24.delegates.selective import SelectiveNetwork, branch_of, run_selective
from karat24.export.quantize import PER_CHANNEL_INT8, Range, quantize_model, run_float
from karat24.export.tflite import write_tflite
from karat24.golden.report import EXIT_CANNOT_COMPARE, EXIT_MATCH, EXIT_MISMATCH
from karat24.golden.selective import SelectiveReport, verify_selective
from karat24.refimpl.errors import FeedError, ModelError
from karat24.refimpl.graph import Graph
from karat24.refimpl.networks import resnet50, selector, vgg16
from tests.support.runtimes import Runtimes

pytest.importorskip("onnxruntime")

INPUT = {"input": Range(0, 1)}


def images(number: int) -> list[np.ndarray]:
    """Dark and bright images in turns."""
    return [
        np.random.default_rng(n).integers(-128, -100, (1, 32, 32, 3)).astype(np.int8) ^ (-1 if n % 2 else 0)
        for n in range(number)
    ]


def quantized(graph: Graph, given: dict[str, Range] = INPUT) -> bytes:
    samples = np.random.default_rng(1).random((2, 1, 32, 32, 3), dtype=np.float32)
    return write_tflite(quantize_model(graph, list(samples), PER_CHANNEL_INT8, given))


def brightness_selector() -> Graph:
    """Calls bright images distorted: the sum of the hidden units against that of an image between both."""
    weights = {
        t.name: np.array(t.data) for t in selector(seed=5).tensors if t.dtype == "float32" and t.is_constant
    }
    weights["output/filter"] = np.stack([np.zeros((1, 1, 16)), np.ones((1, 1, 16))]).astype(np.float32)
    weights["output/bias"] = np.zeros(2, np.float32)
    grey = np.full((1, 32, 32, 3), 0.5, np.float32)
    ((middle,),) = run_float(selector(weights=weights), [grey])
    weights["output/bias"] = np.array([middle.reshape(-1)[1], 0], np.float32)
    return selector(weights=weights)


@pytest.fixture(scope="module")
def network() -> SelectiveNetwork:
    return SelectiveNetwork(
        quantized(brightness_selector()), quantized(vgg16(0.25, seed=1)), quantized(vgg16(0.25, seed=2))
    )


def test_only_the_chosen_network_runs(network: SelectiveNetwork) -> None:
    runs: list[bytes] = []

    class Watched(OracleDelegate):
        def run(self, model, feeds, **options) -> DelegateRun:
            runs.append(model)
            return super().run(model, feeds, **options)

    for image in images(4):
        run = run_selective(network, Watched(), image)
        assert runs[-2:] == [network.selector, network.model(run.branch)]
        assert run.branch == branch_of(run.selector.outputs[0])
        assert run.output.shape == (1, 1, 1, 100)
    assert len(runs) == 8


def test_branches() -> None:
    assert branch_of(np.array([[3, 4]], np.int8)) == "distorted"
    assert branch_of(np.array([4, 3], np.int8)) == "clean"
    assert branch_of(np.array([[[[-5, -5]]]], np.int8)) == "clean"
    assert branch_of(np.array([-128, 127], np.int8)) == "distorted"


def test_every_part_is_exact_on_litert(network: SelectiveNetwork, runtimes: Runtimes) -> None:
    report = verify_selective(network, runtimes("litert-xnnpack"), images(4))
    assert report.expected == ("clean", "distorted") * 2
    assert report.exit_code == EXIT_MATCH, report.summary()
    assert [part.verdict for part in report.parts.values() if part] == ["bit_exact"] * 3
    assert "0 other than the oracle's" in report.summary()
    assert "final outputs that differ: 0 of 4" in report.summary()


def test_a_branch_that_no_image_took_is_no_pass(network: SelectiveNetwork) -> None:
    with OracleDelegate() as delegate:
        report = verify_selective(network, delegate, images(1))
    assert report.exit_code == EXIT_CANNOT_COMPARE
    assert "NOT COMPARED: no image took this branch" in report.summary()


def test_another_branch_or_another_output_is_a_mismatch(network: SelectiveNetwork) -> None:
    class Wrong(OracleDelegate):
        """Computes the layers rightly, and changes one whole model's output."""

        def __init__(self, model: bytes, flip: bool) -> None:
            super().__init__()
            self._model, self._flip = model, flip

        def run(self, model, feeds, **options) -> DelegateRun:
            run = super().run(model, feeds, **options)
            if model != self._model or options.get("tensors") != "outputs":
                return run
            output = run.outputs[0]
            return replace(run, outputs=(output[..., ::-1] if self._flip else output ^ 1,))

    report = verify_selective(network, Wrong(network.selector, flip=True), images(2))
    assert report.exit_code == EXIT_MISMATCH
    assert report.taken != report.expected
    report = verify_selective(network, Wrong(network.clean, flip=False), images(3))
    assert report.exit_code == EXIT_MISMATCH
    assert report.taken == report.expected
    assert report.differing == (0, 2)


def test_another_branch_is_a_mismatch_whatever_came_out_of_it() -> None:
    assert SelectiveReport({}, ("clean",), ("distorted",), ()).exit_code == EXIT_MISMATCH
    assert SelectiveReport({}, ("clean",), ("clean",), ()).exit_code == EXIT_CANNOT_COMPARE


def test_networks_that_do_not_belong_together_are_refused(network: SelectiveNetwork) -> None:
    other = quantized(vgg16(0.25), {"input": Range(-1, 1)})
    with pytest.raises(ModelError, match=r"the distorted network reads int8 .* one range for their inputs"):
        SelectiveNetwork(network.selector, network.clean, other)
    with pytest.raises(ModelError, match=r"the selector gives \[1, 1, 1, 100\]"):
        SelectiveNetwork(network.clean, network.clean, network.distorted)
    ten = quantized(vgg16(0.25, classes=10))
    with pytest.raises(ModelError, match=r"give \[1, 1, 1, 100\] and \[1, 1, 1, 10\]"):
        SelectiveNetwork(network.selector, network.clean, ten)
    with pytest.raises(FeedError, match="at least one"):
        verify_selective(network, OracleDelegate(), [])


def test_a_quarter_of_resnet50_is_exact_in_int8(runtimes: Runtimes) -> None:
    """Bottlenecks, projections with stride 2, sums and the global mean."""
    from karat24.export.tflite import read_tflite
    from karat24.golden.verify import verify

    content = quantized(resnet50(0.25))
    report = verify(content, read_tflite(content), runtimes("litert-xnnpack"), [[images(1)[0]]])
    assert report.verdict == "bit_exact", report.table()
    assert len(report.layers) == 71
