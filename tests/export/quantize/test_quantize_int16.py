"""int16 activations with int8 filters: parameters, biases of 64 and 32 bits, sums, LiteRT's results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from karat24.export.onnx import to_onnx, write_quantized_onnx
from karat24.export.quantize import INT16X8, QuantizationScheme, Range, RangeMethod, gains, quantize_graph
from karat24.export.tflite import write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.networks import fine_tune
from tests.support.litert import run_reference
from tests.support.one_convolution import by_name
from tests.support.smooth_samples import smooth_samples

NARROW = replace(INT16X8, biases="int32")


def convolution(weight: float = 0.01, bias: float = 0.5, channels: int = 3) -> Graph:
    """A 3×3 convolution, ADD of its own input, MEAN of the channels, all float32."""
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 4, channels), "float32")
    kernel = builder.constant("w", np.full((channels, 3, 3, channels), weight, np.float32))
    biases = builder.constant("b", np.full(channels, bias, np.float32))
    y = builder.tensor("y", (1, 4, 4, channels), "float32")
    builder.layer(
        "CONV_2D", (x, kernel, biases), (y,), padding="SAME", stride_w=1, stride_h=1,
        fused_activation_function="RELU",
    )  # fmt: skip
    z = builder.tensor("z", (1, 4, 4, channels), "float32")
    builder.layer("ADD", (x, y), (z,), fused_activation_function="NONE")
    m = builder.tensor("m", (1, 4, 4, 1), "float32")
    builder.layer("MEAN", (z, builder.constant("axis", np.array([3], np.int32))), (m,), keep_dims=True)
    return builder.build((m,))


def ranges(graph: Graph, high: float = 2.0) -> dict[int, Range]:
    return {by_name(graph, name).index: Range(-1.0, high) for name in "xyzm"}


def test_activations_are_symmetric_and_biases_have_64_bits() -> None:
    graph = convolution()
    quantized = quantize_graph(graph, ranges(graph), INT16X8)
    assert [by_name(quantized, name).dtype for name in "xyzwb"] == ["int16"] * 3 + ["int8", "int64"]
    for name in "xyz":
        assert by_name(quantized, name).quantization.zero_point == (0,)
        assert by_name(quantized, name).scale == np.float32(2.0 / 32767)
    assert by_name(quantized, "w").quantization.per_channel
    scale = np.float32(by_name(quantized, "x").scale) * np.float32(
        by_name(quantized, "w").quantization.scale[0]
    )
    assert by_name(quantized, "b").data[0] == round(0.5 / float(scale))
    assert [(layer.op, layer.version) for layer in quantized.layers] == [
        ("CONV_2D", 4),
        ("ADD", 3),
        ("MEAN", 3),
    ]


def test_a_bias_beyond_int32_stays_what_it_is() -> None:
    """2^31 steps and more: the filter keeps its scale, where an int32 bias takes a coarser one."""
    graph = convolution(weight=1e-4, bias=30.0)
    wide, narrow = (quantize_graph(graph, ranges(graph, 40.0), scheme) for scheme in (INT16X8, NARROW))
    assert by_name(wide, "b").data[0] > 2**31
    assert np.abs(by_name(wide, "w").data).min() == 127
    assert by_name(narrow, "b").data[0] <= 2**30 * (1 + 1e-6)
    assert np.abs(by_name(narrow, "w").data).max() < 127


@pytest.mark.parametrize("scheme", [INT16X8, NARROW])
def test_litert_computes_what_the_oracle_does(scheme: QuantizationScheme) -> None:
    """An int32 bias is named in the file; unnamed, the kernel would read it as int64."""
    graph = convolution()
    quantized = quantize_graph(graph, ranges(graph), scheme)
    assert quantized.layers[0].attributes.get("quantized_bias_type") == (
        "int32" if scheme is NARROW else None
    )
    data = np.random.default_rng(3).integers(-32768, 32768, (1, 4, 4, 3)).astype(np.int16)
    (found,) = run_reference(write_tflite(quantized), data)
    assert np.array_equal(found, compile_graph(quantized, "litert-2.3-ref").run([data]).outputs[0])


def test_sums_beyond_int32_need_64_bits() -> None:
    graph = convolution(channels=80)
    quantize_graph(graph, ranges(graph, 30.0), INT16X8)
    with pytest.raises(ModelError, match="more than int32 holds"):
        quantize_graph(graph, ranges(graph, 30.0), NARROW)


def test_a_product_of_which_32_bits_do_not_hold_the_result_is_refused() -> None:
    graph = convolution()
    narrow_output = {**ranges(graph), by_name(graph, "y").index: Range(0.0, 1e-6)}
    with pytest.raises(ModelError, match="leaves int32; the range of 'y' is too narrow"):
        quantize_graph(graph, narrow_output, INT16X8)


def test_what_no_runtime_takes_is_refused() -> None:
    for changed, message in (
        ({"symmetric_activations": False}, "zero point 0"),
        ({"input_output": "int8"}, "go with int16 inputs"),
        ({"activations": "int8"}, "go with int16 inputs"),
        ({"biases": "int16"}, "neither 'int32' nor 'int64'"),
        ({"range_method": RangeMethod("mse")}, "use minmax"),
    ):
        with pytest.raises(UsageError, match=message):
            replace(INT16X8, **changed)
    with pytest.raises(UsageError, match="int16 activations only"):
        QuantizationScheme(biases="int64")


def test_every_step_but_ranges_of_least_error_is_tried() -> None:
    graph = fine_tune(8, 8)
    samples = smooth_samples(graph, 2)
    rows = gains(graph, samples, samples[1:], INT16X8)
    assert [row.step for row in rows] == [
        "min/max", "percentile", "+ equalization", "+ bias correction", "+ filter ranges",
    ]  # fmt: skip
    assert max(row.deviation.snr_db for row in rows) > 35


@pytest.mark.parametrize("scheme", [INT16X8, NARROW])
def test_onnx_with_16_bits_computes_what_it_says(scheme: QuantizationScheme) -> None:
    """A bias of 64 bits is stored as float32, which it exceeds; means have their axes as an input by then."""
    graph = convolution()
    quantized = quantize_graph(graph, ranges(graph), scheme)
    onnx_graph = to_onnx(quantized)
    assert {layer.version for layer in onnx_graph.layers} == {21}
    data = np.random.default_rng(4).integers(-32768, 32768, (1, 4, 4, 3)).astype(np.int16)
    session = onnxruntime.InferenceSession(
        write_quantized_onnx(quantized), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": data.transpose(0, 3, 1, 2)})
    (exact,) = compile_graph(quantized, "litert-2.3-ref").run([data]).outputs
    assert np.abs(found.transpose(0, 2, 3, 1).astype(int) - exact).max() <= 2


@pytest.mark.parametrize("flavour", ["qoperator", "tensorrt"])
def test_integer_ops_of_16_bits_are_refused(flavour: str) -> None:
    graph = convolution()
    with pytest.raises(UnsupportedOp, match="only the flavour qdq has int16"):
        to_onnx(quantize_graph(graph, ranges(graph), INT16X8), flavour)
