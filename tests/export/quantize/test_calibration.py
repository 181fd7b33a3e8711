"""Histograms, range methods and calibration over a dataset."""

from __future__ import annotations

import math

import numpy as np
import pytest

from karat24.export.quantize import (
    Range,
    RangeMethod,
    calibrate,
    calibration,
    observe,
    quantize_graph,
    quantize_model,
)
from karat24.export.quantize.affine import parameters_of_range
from karat24.export.quantize.histogram import HALF, Histogram
from karat24.export.quantize.ranges import choose_range
from karat24.export.tflite import write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import FeedError, ModelError, UnsupportedOp
from karat24.refimpl.graph import Array
from karat24.refimpl.networks import fine_tune, tomogan
from tests.support.litert import run_reference
from tests.support.one_convolution import by_name, conv_graph, quantized_conv
from tests.support.smooth_samples import smooth_samples


def test_histogram_does_not_depend_on_order_or_grouping() -> None:
    random = np.random.default_rng(2)
    parts = [random.standard_normal(500).astype(np.float32) * scale for scale in (1e-30, 1e-3, 0, 1, 77, 1e6)]
    together, forwards, backwards = Histogram(), Histogram(), Histogram()
    together.add(np.concatenate(parts))
    for part in parts:
        forwards.add(part)
    for part in reversed(parts):
        backwards.add(part)
    for other in (forwards, backwards):
        assert np.array_equal(other.counts, together.counts)
        assert other.width == together.width
        assert (other.minimum, other.maximum) == (together.minimum, together.maximum)
    assert together.total == 3000


def test_histogram_edges_are_exact() -> None:
    """A bin holds its lower edge; powers of two, the greatest of each octave, stay inside."""
    seen = Histogram()
    seen.add(np.array([0, 1, -1, 0.999], np.float32))
    assert seen.width == 2.0 / HALF
    bins = np.flatnonzero(seen.counts) - HALF
    assert bins.tolist() == [-HALF // 2, 0, int(0.999 / seen.width), HALF // 2]
    largest = Histogram()
    largest.add(np.array([np.finfo(np.float32).max, np.finfo(np.float32).min, 1e-45], np.float32))
    assert largest.total == 3


def test_minmax_is_exact() -> None:
    seen = Histogram()
    seen.add(np.array([-0.3, 0.1], np.float32))
    seen.add(np.array([0.7], np.float32))
    assert choose_range(seen, RangeMethod("minmax")) == Range(float(np.float32(-0.3)), float(np.float32(0.7)))


def outliers() -> Histogram:
    """100,000 values in -1 … 1 and one of 100."""
    seen = Histogram()
    seen.add(np.linspace(-1, 1, 100_000, dtype=np.float32))
    seen.add(np.array([100], np.float32))
    return seen


def test_percentile_leaves_the_outlier_outside() -> None:
    seen = outliers()
    low, high = choose_range(seen, RangeMethod("percentile", 99.9))
    # A tenth of a percent of the values, give or take a bin.
    assert high == pytest.approx(0.998, abs=2 * seen.width)
    assert low == pytest.approx(-0.998, abs=2 * seen.width)
    assert choose_range(seen, RangeMethod("percentile", 100)) == Range(-1, 100)


def squared_error(data: Array, values: Range, symmetric: bool = False) -> float:
    q = parameters_of_range(values, "int8", symmetric)
    rounded = np.clip(np.rint(data / q.scale[0]) + q.zero_point[0], -128, 127)
    return float(np.square((rounded - q.zero_point[0]) * q.scale[0] - data).mean())


@pytest.mark.parametrize("symmetric", [False, True])
def test_least_error_finds_what_a_full_search_finds(symmetric: bool) -> None:
    """Long-tailed values, the two tails unlike: within 1 % of the best of 625 ranges, better than all."""
    random = np.random.default_rng(0)
    data = random.laplace(size=20_000)
    data = np.where(data < 0, data, 3 * data)
    seen = Histogram()
    seen.add(data.astype(np.float32))
    low, high = seen.minimum, seen.maximum
    fractions = np.linspace(1, 0.04, 25)
    best = min(squared_error(data, Range(low * a, high * b), symmetric) for a in fractions for b in fractions)
    chosen = choose_range(seen, RangeMethod("mse"), symmetric)
    assert squared_error(data, chosen, symmetric) < 1.01 * best
    assert squared_error(data, chosen, symmetric) < squared_error(data, Range(low, high), symmetric)


def test_least_error_keeps_uniform_values_whole() -> None:
    seen = Histogram()
    seen.add(np.linspace(0, 1, 10_000, dtype=np.float32))
    chosen = choose_range(seen, RangeMethod("mse"))
    assert chosen.low == 0
    assert chosen.high == pytest.approx(1, abs=0.011)


def test_ranges_are_those_of_the_values_themselves() -> None:
    """A 1×1 convolution worked out by hand, over two samples."""
    graph = conv_graph(np.array([2.0, -1.0]).reshape(2, 1, 1, 1), np.array([0.5, 0.0]), size=(2, 2))
    samples = [np.full((1, 2, 2, 1), value, np.float32) for value in (-1.0, 3.0)]
    ranges = calibrate(graph, iter(samples))
    assert ranges == {graph.inputs[0]: Range(-1.0, 3.0), graph.outputs[0]: Range(-3.0, 6.5)}


def test_every_activation_is_observed() -> None:
    graph = tomogan(8, 8, "transposed")
    ranges = calibrate(graph, smooth_samples(graph, 1))
    assert set(ranges) == {tensor.index for tensor in graph.tensors if not tensor.is_constant}


def test_observing_in_several_runs_sees_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by exposing few tensors at a time; the histograms do not change."""
    graph = tomogan(16, 16)
    samples = smooth_samples(graph, 2)
    whole = observe(graph, samples)
    monkeypatch.setattr(calibration, "EXPOSED_BYTES", 20_000)
    assert len(calibration._sessions(graph)) > 5
    parts = observe(graph, samples)
    assert set(parts) == set(whole)
    for index, seen in whole.items():
        assert np.array_equal(parts[index].counts, seen.counts)


def test_bad_samples_are_named() -> None:
    graph = fine_tune(8, 8)
    good = np.zeros((1, 8, 8, 1), np.float32)
    bad = {
        "NaN or infinite": np.where(np.arange(64).reshape(1, 8, 8, 1) == 9, np.nan, good),
        "has shape": good[0],
        "is uint8": good.astype(np.uint8),
        "is complex64": good.astype(np.complex64),
    }
    for message, sample in bad.items():
        with pytest.raises(FeedError, match=f"sample 1 for tensor 0 .'input'.* {message}"):
            calibrate(graph, [good, sample])
    with pytest.raises(FeedError, match=r"sample 0 .*NaN or infinite"):
        calibrate(graph, [np.full((1, 8, 8, 1), 1e300)])


def test_overflow_inside_the_network_names_sample_and_tensor() -> None:
    graph = conv_graph(np.full((1, 1, 1, 1), 1e30))
    with pytest.raises(FeedError, match=r"sample 1 makes tensor . .'y'. NaN or infinite"):
        calibrate(graph, [np.full((1, 1, 1, 1), value, np.float32) for value in (1, 1e30)])


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(FeedError, match="empty"):
        calibrate(fine_tune(8, 8), [])


def test_constant_and_dead_activations_quantize() -> None:
    """All-zero input, and a layer whose ReLU never opens."""
    graph = conv_graph(np.full((1, 1, 1, 1), 1.0), np.array([-5.0]), "RELU")
    ranges = calibrate(graph, [np.zeros((1, 1, 1, 1), np.float32)])
    assert set(ranges.values()) == {Range(0.0, 0.0)}
    quantized = quantize_graph(graph, ranges)
    assert by_name(quantized, "y").quantization == parameters_of_range(Range(0, 1), "int8")
    (output,) = run_reference(write_tflite(quantized), np.full((1, 1, 1, 1), 127, np.int8))
    assert output == -128


def test_graphs_that_cannot_be_quantized_say_why() -> None:
    graph = fine_tune(8, 8)
    quantized = quantize_model(graph, smooth_samples(graph, 1))
    with pytest.raises(ModelError, match="quantized already"):
        quantize_model(quantized, smooth_samples(graph, 1))
    with pytest.raises(ModelError, match=r"no range for tensor 3 .'repair'"):
        quantize_graph(graph, {0: Range(0, 1)})
    ranges = calibrate(graph, smooth_samples(graph, 1))
    with pytest.raises(ModelError, match=r"tensor 3 .'repair'.*finite"):
        quantize_graph(graph, {**ranges, 3: Range(0, math.nan)})
    builder = GraphBuilder()
    x = builder.input("x", (1, 4), "float32")
    tanh = builder.build((builder.layer("TANH", (x,), (builder.tensor("y", (1, 4), "float32"),)),))
    with pytest.raises(UnsupportedOp, match=r"layer 0 \(TANH, 'y'\)"):
        quantize_model(tanh, [np.zeros((1, 4), np.float32)])
    with pytest.raises(ModelError, match="'w' holds NaN"):
        quantized_conv(np.full((1, 1, 1, 1), np.nan))
