"""Two runtimes against each other: same format, two formats, and pairings that cannot be made."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.delegates import Delegate, delegate_named
from karat24.export.onnx import read_onnx, to_onnx, write_onnx
from karat24.export.quantize import PRESETS, quantize_model
from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.golden.against import compare_runtimes, relayout
from karat24.golden.report import Report
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.networks import tomogan
from tests.support.runtimes import Runtimes


@pytest.fixture(scope="module")
def graph() -> Graph:
    network = tomogan(16, 16, seed=3)
    shape = network.tensors[network.inputs[0]].shape
    samples = [np.random.default_rng(i).random(shape, np.float32) for i in range(2)]
    return quantize_model(network, samples, PRESETS["int8"])


def compare(graph: Graph, first: Delegate, second: Delegate, **options: object) -> Report:
    return compare_runtimes(
        write_tflite(graph), graph, first, second, [random_feeds(graph, 1)], **options  # type: ignore[arg-type]
    )  # fmt: skip


def test_runtimes_that_round_alike_agree_across_formats(graph: Graph, runtimes: Runtimes) -> None:
    """ONNX Runtime and XNNPACK requantize alike, in NCHW and NHWC; bilinear resizing they do not share."""
    report = compare(graph, runtimes("ort"), runtimes("litert-xnnpack"))
    verdicts = {(v.op, v.verdict) for v in report.layers}
    assert ("CONV_2D", "bit_exact") in verdicts
    assert {op for op, verdict in verdicts if verdict != "bit_exact"} <= {"RESIZE_BILINEAR"}
    assert len(report.layers) == len(graph.layers)


def test_a_difference_between_sound_runtimes_is_explained(graph: Graph, runtimes: Runtimes) -> None:
    one, two = runtimes("litert-xnnpack"), runtimes("litert-ref")
    report = compare(graph, one, two)
    assert report.verdict == "explained"
    reasons = {v.reason for v in report.layers if v.verdict == "explained"}
    said = f"litert-xnnpack {one.profile} and litert-ref {two.profile}"
    assert reasons == {f"each runtime computes what its own profile says: {said}"}


def test_a_runtime_agrees_with_itself(graph: Graph, runtimes: Runtimes) -> None:
    for mode in ("isolated", "cumulative"):
        report = compare(graph, runtimes("litert-ref"), delegate_named("oracle"), mode=mode)
        assert report.verdict == "bit_exact"


def test_two_files_are_matched_by_name(graph: Graph, runtimes: Runtimes) -> None:
    """The first layers of both files are convolutions, which both runtimes round alike."""
    converted = write_onnx(to_onnx(graph, "qoperator"))
    report = compare(
        graph, runtimes("litert-xnnpack"), runtimes("ort"),
        other=(converted, read_onnx(converted)), mode="cumulative",
    )  # fmt: skip
    assert [v.verdict for v in report.layers[:5]] == ["bit_exact"] * 5
    assert all(v.diff is not None for v in report.layers)


def test_pairings_that_cannot_be_made(graph: Graph, runtimes: Runtimes) -> None:
    converted = to_onnx(graph, "qoperator")
    one, two = runtimes("ort"), runtimes("litert-ref")
    feeds = [random_feeds(converted, 1)]
    with pytest.raises(UsageError, match="--other"):
        compare_runtimes(write_onnx(converted), converted, one, two, feeds)
    with pytest.raises(UsageError, match="--cumulative"):
        compare_runtimes(
            write_onnx(converted), converted, one, two, feeds, other=(write_tflite(graph), graph)
        )


def test_layouts_go_there_and_back() -> None:
    values = np.arange(24).reshape(1, 2, 3, 4)
    assert relayout(values, "tflite", "onnx").shape == (1, 4, 2, 3)
    np.testing.assert_array_equal(relayout(relayout(values, "tflite", "onnx"), "onnx", "tflite"), values)
    assert relayout(values[0], "tflite", "onnx").shape == (2, 3, 4)
