"""Networks of powers of two: exported, run, and exact on LiteRT and ONNX Runtime layer by layer."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.delegates import Delegate
from karat24.export.onnx import read_onnx, write_quantized_onnx
from karat24.export.quantize import MOBILE_INT8, PER_TENSOR_UINT8, QuantizationScheme, Range
from karat24.export.quantize.powers_of_two import (
    BatchNorm,
    quantize_rounded,
    round_network,
    shift_add,
)
from karat24.export.tflite import read_tflite, write_tflite
from karat24.feeds import random_feeds
from karat24.golden.report import Report
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.networks import fine_tune, tomogan, trained_weights
from tests.support.one_convolution import by_name, conv_graph
from tests.support.runtimes import Runtimes
from tests.support.smooth_samples import smooth_samples

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def litert(runtimes: Runtimes) -> Delegate:
    return runtimes("litert-xnnpack")


@pytest.fixture(scope="module")
def ort(runtimes: Runtimes) -> Delegate:
    return runtimes("ort")


def trained_tomogan() -> Graph:
    return tomogan(16, 24, weights=trained_weights("tomogan"))


def assert_exact(report: Report, layers: int) -> None:
    assert [
        entry.verdict for entry in (*report.layers, *report.outputs) if entry.verdict != "bit_exact"
    ] == []
    assert len(report.layers) >= layers


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_tomogan_of_powers_of_two_is_exact_on_two_runtimes(
    bits: int, litert: Delegate, ort: Delegate
) -> None:
    graph = trained_tomogan()
    network = round_network(graph, bits, max_span=6)
    quantized = quantize_rounded(network, smooth_samples(graph, 2))
    filters = {layer.name: layer for layer in network.layers}
    assert len(filters) == 16
    for name, layer in filters.items():
        tensor = by_name(quantized, name)
        assert tensor.dtype == "int8"
        assert np.array_equal(
            tensor.data * np.array(tensor.quantization.scale).reshape(-1, 1, 1, 1), layer.filter.real
        )
        assert {abs(int(value)) for value in tensor.data.reshape(-1)} <= {0, 1, 2, 4, 8, 16, 32, 64}
    content = write_tflite(quantized)
    reading = read_tflite(content)
    assert_exact(verify(content, reading, litert, [random_feeds(reading, 1)]), 25)
    content = write_quantized_onnx(quantized, "qoperator")
    reading = read_onnx(content)
    assert_exact(verify(content, reading, ort, [random_feeds(reading, 1)]), 25)
    assert network.memory.fixed_factor == 32 / {3: 3, 4: 4, 5: 4}[bits]


def test_spans_over_six_run_as_two_convolutions(ort: Delegate) -> None:
    """Refused for int8 and for .tflite by name; in ONNX exact, and the sums are those of shifts."""
    graph = trained_tomogan()
    network = round_network(graph, 5)
    samples = smooth_samples(graph, 1)
    with pytest.raises(
        UnsupportedOp, match=r"layer 1 \(CONV_2D, 'box1/conv1'\): .* span 7, and int8 holds 6"
    ):
        quantize_rounded(network, samples)
    quantized = quantize_rounded(network, samples, wide=True)
    wide = [t.name for t in quantized.tensors if t.dtype == "int16"]
    assert "bottom/conv/filter" in wide
    assert "mix/filter" not in wide
    with pytest.raises(UnsupportedOp, match=r"a \.tflite file cannot hold the int16 filter"):
        write_tflite(quantized)
    with pytest.raises(UnsupportedOp, match="use the flavour qoperator"):
        write_quantized_onnx(quantized, "qdq")
    with pytest.raises(ModelError):
        compile_graph(quantized, "litert-2.3-ref")
    content = write_quantized_onnx(quantized, "qoperator")
    reading = read_onnx(content)
    assert sum(layer.op == "ConvInteger" for layer in reading.layers) == 2 * len(wide)
    assert_exact(verify(content, reading, ort, [random_feeds(reading, 1)]), 100)


def test_sums_of_two_convolutions_are_those_of_shifts() -> None:
    """A 1×1 layer over one row of pixels: the int32 sums of the file against shifts and additions."""
    random = np.random.default_rng(4)
    kernel = (random.choice([-1, 1], (3, 20)) * 2.0 ** random.integers(-7, 1, (3, 20))).reshape(3, 1, 1, 20)
    kernel[:, 0, 0, :2] = [1, 2**-7]
    graph = conv_graph(kernel, np.zeros(3), "RELU", (1, 5))
    network = round_network(graph, 5)
    sample = random.random((1, 1, 5, 20), dtype=np.float32)
    quantized = quantize_rounded(network, [sample], wide=True, given={"x": Range(-1, 1)})
    reading = read_onnx(write_quantized_onnx(quantized, "qoperator"))
    feeds = random_feeds(reading, 7)
    trace = compile_graph(reading, "ort-1.31").run(feeds, trace=True).trace
    found = trace.tensors[by_name(reading, "y/sum").index].reshape(3, 5).T
    (image,) = feeds.values() if isinstance(feeds, dict) else feeds
    rows = image.reshape(20, 5).T.astype(np.int64) - by_name(quantized, "x").zero_point
    layer = network.layers[0].filter
    flat = type(layer)(layer.signs.reshape(3, 20), layer.exponents.reshape(3, 20), layer.powers)
    sums, least = shift_add(rows, flat)
    assert least.tolist() == [-7, -7, -7]
    assert np.array_equal(found, sums)


@pytest.mark.parametrize("scheme", [QuantizationScheme(filters="per_tensor"), MOBILE_INT8])
def test_other_int8_schemes(scheme: QuantizationScheme, litert: Delegate) -> None:
    graph = fine_tune(16, 16)
    network = round_network(graph, 4)
    quantized = quantize_rounded(network, smooth_samples(graph, 1), scheme)
    content = write_tflite(quantized)
    reading = read_tflite(content)
    assert_exact(verify(content, reading, litert, [random_feeds(reading, 2)]), 2)


def test_schemes_that_change_filters_are_refused() -> None:
    graph = fine_tune(8, 8)
    for scheme in (PER_TENSOR_UINT8, QuantizationScheme(equalize=True)):
        with pytest.raises(UsageError, match="without equalization"):
            quantize_rounded(round_network(graph, 4), smooth_samples(graph, 1), scheme)


def test_batch_normalization_in_a_network(litert: Delegate) -> None:
    """γ of both signs and 0: scales hold its magnitude, filters its sign, and the layer stays exact."""
    random = np.random.default_rng(6)
    graph = conv_graph(random.standard_normal((4, 3, 3, 2)), random.standard_normal(4), "RELU", (6, 6))
    norm = BatchNorm(
        np.array([1.5, -0.7, 0.0, 0.2]), np.array([0.1, 0.5, 0.3, 0.4]), random.standard_normal(4),
        np.array([1.0, 0.5, 2.0, 0.1]),
    )  # fmt: skip
    network = round_network(graph, 4, norms={"y": norm})
    samples = [random.random((1, 6, 6, 2), dtype=np.float32)]
    quantized = quantize_rounded(network, samples)
    filter_, plain = by_name(quantized, "w"), round_network(graph, 4).layers[0].filter
    assert np.array_equal(np.sign(filter_.data[0]), plain.signs[0])
    assert np.array_equal(np.sign(filter_.data[1]), -plain.signs[1])
    assert not filter_.data[2].any()
    for channel in (0, 1, 3):
        exponent = np.float32(abs(norm.factors[channel])) * np.float32(2.0 ** plain.exponents[channel].min())
        assert filter_.quantization.scale[channel] == pytest.approx(float(exponent), rel=1e-6)
    content = write_tflite(quantized)
    reading = read_tflite(content)
    assert_exact(verify(content, reading, litert, [random_feeds(reading, 3)]), 1)
    with pytest.raises(UsageError, match="filters per channel"):
        quantize_rounded(network, samples, QuantizationScheme(filters="per_tensor"))
    with pytest.raises(ModelError, match="no layer 'z'"):
        round_network(graph, 4, norms={"z": norm})
    with pytest.raises(ModelError, match="needs a bias"):
        round_network(conv_graph(np.ones((4, 1, 1, 2))), 4, norms={"y": norm})


def test_a_network_keeps_its_layers_and_biases() -> None:
    graph = fine_tune(8, 8, seed=3)
    network = round_network(graph, 3)
    assert network.graph.layers == graph.layers
    for old, new in zip(graph.tensors, network.graph.tensors, strict=True):
        assert (old == new) != old.name.endswith("/filter")
    weights = {t.name: t.data for t in graph.tensors if t.is_constant}
    weights["repair/filter"] = np.full((16, 3, 3, 1), 3.4e38, np.float32)
    with pytest.raises(ModelError, match=r"layer 0 .*'repair/filter': .* rounds to 2\^128"):
        round_network(fine_tune(8, 8, weights), 3)
