"""Quantized graphs as ONNX: structure, and the values ONNX Runtime computes against LiteRT's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from karat24.export import read_model
from karat24.export.onnx import lower_qdq, read_onnx, to_onnx, write_onnx, write_quantized_onnx
from karat24.export.onnx.layout import from_onnx_layout, to_onnx_layout
from karat24.export.quantize import quantize_model
from karat24.export.quantize.scheme import PRESETS
from karat24.export.tflite import with_lowest_versions, write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.cost import count
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Array, Graph, Quantization
from karat24.refimpl.networks import chain, fine_tune, tomogan
from tests.shared_models import require
from tests.support.litert import run_reference
from tests.support.ort_session import LEVEL, session
from tests.support.random_values import random_feeds
from tests.support.small_network import small_graph
from tests.support.smooth_samples import smooth_samples

BOTH = ("qdq", "qoperator")


def run(content: bytes, feeds: list[Array], level=LEVEL.ORT_DISABLE_ALL) -> list[Array]:
    opened = session(content, int8_allowed=True, level=level)
    named = {x.name: to_onnx_layout(feed) for x, feed in zip(opened.get_inputs(), feeds, strict=True)}
    return [from_onnx_layout(values) for values in opened.run(None, named)]


@cache
def network(preset: str, upsampling: str) -> Graph:
    graph = chain(tomogan(16, 24, upsampling), fine_tune(16, 24))
    return quantize_model(graph, smooth_samples(graph, 2), PRESETS[preset])


NETWORKS = [(preset, upsampling) for preset in PRESETS for upsampling in ("bilinear", "transposed")]


@pytest.mark.parametrize(("preset", "upsampling"), NETWORKS)
def test_networks_keep_names_shapes_and_parameters(preset: str, upsampling: str) -> None:
    """Every quantized activation of the .tflite is in both files, in NCHW, and both read back."""
    graph = network(preset, upsampling)
    for flavour in BOTH if preset != "int16x8" else ("qdq",):
        content = write_quantized_onnx(graph, flavour)
        assert content == write_quantized_onnx(graph, flavour)
        found = {tensor.name: tensor for tensor in read_onnx(content).tensors}
        for tensor in graph.tensors:
            if not tensor.is_constant:
                other = found[tensor.name]
                assert other.shape == tuple(tensor.shape[axis] for axis in (0, 3, 1, 2))
                assert (other.dtype, other.quantization) == (tensor.dtype, tensor.quantization)


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_both_formats_cost_the_same(upsampling: str) -> None:
    graph = network("int8", upsampling)
    cost = count(graph)
    for flavour in BOTH:
        other = count(to_onnx(graph, flavour))
        assert (other.operations, other.operations_at_output) == (cost.operations, cost.operations_at_output)
        assert other.parameters == cost.parameters > 600_000


@pytest.mark.parametrize(
    ("preset", "upsampling"), [n for n in NETWORKS if n[0] not in ("int8-symmetric", "int16x8")]
)
def test_both_flavours_are_one_model(preset: str, upsampling: str) -> None:
    """Lowering the QDQ file gives the layers of the QOperator file, and ONNX Runtime the same bits:
    optimizing the first gives what the second says."""
    graph = network(preset, upsampling)
    lowered, integer = lower_qdq(to_onnx(graph, "qdq"), int8_allowed=True), to_onnx(graph, "qoperator")
    quantized_edges = [
        {t.name for view in g.views() for t in view.outputs if t.dtype in ("int8", "uint8")}
        for g in (lowered, integer)
    ]
    assert quantized_edges[0] == quantized_edges[1]
    feeds = random_feeds(graph)
    expected = run(write_onnx(integer), feeds)
    for content in (write_quantized_onnx(graph, "qdq"), write_onnx(integer)):
        (found,) = run(content, feeds, LEVEL.ORT_ENABLE_ALL)
        np.testing.assert_array_equal(found, expected[0])
    convolutions = [layer.op for layer in graph.layers].count("CONV_2D")
    assert [layer.op for layer in integer.layers].count("QLinearConv") == convolutions > 15
    assert "Conv" not in {layer.op for layer in lowered.layers}


def test_relu_above_the_least_value_stays_in_float() -> None:
    """With zero points of 0 a ReLU is no matter of range: QDQ stays float there, QOperator clips."""
    graph = network("int8-symmetric", "bilinear")
    lowered, integer = lower_qdq(to_onnx(graph, "qdq"), int8_allowed=True), to_onnx(graph, "qoperator")
    rectified = [layer.attributes.get("fused_activation_function") for layer in graph.layers].count("RELU")
    assert [layer.op for layer in lowered.layers].count("Relu") == rectified > 15
    assert [layer.op for layer in integer.layers].count("Clip") == rectified
    assert "Conv" not in {layer.op for layer in integer.layers}


SMALL_MODELS = [
    "mlperf_tiny/kws_ref_model.tflite",
    "mlperf_tiny/vww_96_int8.tflite",
    "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mlperf_tiny/ad01_int8.tflite",
    "tinymaix/cifar10_q.tflite",
    "tinymaix/mnist_dw_q.tflite",
    "cfu/model_micro_speech.tflite",
    "mltk/rock_paper_scissors.tflite",
]


@pytest.mark.parametrize("flavour", BOTH)
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_public_models(name: str, flavour: str) -> None:
    """MobileNets, residual networks, autoencoders: the output is LiteRT's to one step of 256."""
    path = require(name)
    graph = read_model(path)
    feeds = random_feeds(graph)
    content = write_quantized_onnx(graph, flavour)
    assert write_onnx(read_onnx(content)) == write_onnx(read_onnx(write_onnx(read_onnx(content))))
    for found, expected in zip(run(content, feeds), run_reference(path.read_bytes(), *feeds), strict=True):
        assert np.abs(found.astype(int) - expected).max() <= 1


X, Y = Quantization.per_tensor(0.05, -3), Quantization.per_tensor(0.07, 5)
AFFINE = {"stride_w": 1, "stride_h": 1, "fused_activation_function": "NONE", "padding": "SAME"}


def one_layer(op, shape, out, constants=(), parameters=Y, activations=1, **attributes) -> Graph:
    """One int8 layer of random constants: ``(values, quantization)`` behind (or, TRANSPOSE_CONV, before)
    the activations."""
    builder = GraphBuilder("one")
    x = [builder.input(f"x{i}", shape, "int8", X) for i in range(activations)]
    stored = [builder.constant(f"c{i}", values, q) for i, (values, q) in enumerate(constants)]
    inputs = [stored[0], stored[1], *x, *stored[2:]] if op == "TRANSPOSE_CONV" else [*x, *stored]
    y = builder.tensor("y", out, "int8", parameters)
    builder.layer(op, inputs, (y,), **attributes)
    return with_lowest_versions(builder.build((y,)))


def weights(*shape: int, axis: int = 0) -> tuple[Array, Quantization]:
    """int8 filter, per channel along ``axis``."""
    random = np.random.default_rng(5)
    scales = random.uniform(0.005, 0.01, shape[axis]).astype(np.float32).tolist()
    return random.integers(-127, 128, shape).astype(np.int8), Quantization(
        tuple(scales), (0,) * len(scales), axis
    )


def bias(filter_: tuple[Array, Quantization]) -> tuple[Array, Quantization]:
    scales = np.float32(X.scale[0]) * np.array(filter_[1].scale, np.float32)
    values = np.random.default_rng(6).integers(-900, 900, scales.size).astype(np.int32)
    return values, Quantization(tuple(scales.tolist()), (0,) * scales.size)


def ints(*values) -> tuple[Array, None]:
    return np.array(values, np.int32), None


W, D, T, F = weights(6, 3, 3, 4), weights(1, 3, 3, 8, axis=3), weights(5, 4, 4, 4), weights(7, 48)
IMAGE = (1, 6, 8, 4)
POOL = {"filter_width": 2, "filter_height": 3, "padding": "SAME", "stride_w": 2, "stride_h": 2,
        "fused_activation_function": "NONE"}  # fmt: skip
CONSTANT = (np.arange(-60, 68, 32, dtype=np.int8), Quantization.per_tensor(0.02, 7))
SOFT = Quantization.per_tensor(1 / 256, -128)

LAYERS = {
    "conv": lambda: one_layer("CONV_2D", IMAGE, (1, 6, 8, 6), (W, bias(W)), **AFFINE),
    "conv, stride 2, relu at another zero point": lambda: one_layer(
        "CONV_2D", IMAGE, (1, 3, 4, 6), (W, bias(W)),
        **{**AFFINE, "stride_w": 2, "stride_h": 2, "fused_activation_function": "RELU"}),
    "conv, relu6": lambda: one_layer(
        "CONV_2D", IMAGE, (1, 6, 8, 6), (W, bias(W)), **{**AFFINE, "fused_activation_function": "RELU6"}),
    "depthwise, multiplier 2": lambda: one_layer(
        "DEPTHWISE_CONV_2D", IMAGE, (1, 6, 8, 8), (D, bias(D)), depth_multiplier=2, **AFFINE),
    "transposed conv": lambda: one_layer(
        "TRANSPOSE_CONV", IMAGE, (1, 12, 16, 5), (ints(1, 12, 16, 5), T, bias(T)),
        **{**AFFINE, "stride_w": 2, "stride_h": 2}),
    "transposed conv, no bias": lambda: one_layer(
        "TRANSPOSE_CONV", IMAGE, (1, 6, 8, 5), (ints(1, 6, 8, 5), T), **AFFINE),
    "fully connected on an image": lambda: one_layer(
        "FULLY_CONNECTED", (2, 3, 4, 4), (2, 7), (F, bias(F)), fused_activation_function="NONE",
        weights_format="DEFAULT", keep_num_dims=False),
    "add": lambda: one_layer("ADD", IMAGE, IMAGE, activations=2, fused_activation_function="RELU"),
    "add a channel vector": lambda: one_layer(
        "ADD", IMAGE, IMAGE, (CONSTANT,), fused_activation_function="NONE"),
    "sub": lambda: one_layer("SUB", IMAGE, IMAGE, activations=2, fused_activation_function="NONE"),
    "mul": lambda: one_layer("MUL", IMAGE, IMAGE, activations=2, fused_activation_function="NONE"),
    "average pool": lambda: one_layer("AVERAGE_POOL_2D", IMAGE, (1, 3, 4, 4), parameters=X, **POOL),
    "max pool": lambda: one_layer("MAX_POOL_2D", IMAGE, (1, 3, 4, 4), parameters=X, **POOL),
    "nearest": lambda: one_layer("RESIZE_NEAREST_NEIGHBOR", IMAGE, (1, 12, 20, 4), (ints(12, 20),), X,
                                 align_corners=False, half_pixel_centers=False),
    "nearest, half pixel": lambda: one_layer("RESIZE_NEAREST_NEIGHBOR", IMAGE, (1, 9, 5, 4), (ints(9, 5),), X,
                                             align_corners=False, half_pixel_centers=True),
    "bilinear": lambda: one_layer("RESIZE_BILINEAR", IMAGE, (1, 12, 16, 4), (ints(12, 16),), X,
                                  align_corners=False, half_pixel_centers=True),
    "concatenation": lambda: one_layer("CONCATENATION", IMAGE, (1, 6, 8, 8), parameters=X, activations=2,
                                       axis=-1, fused_activation_function="NONE"),
    "relu": lambda: one_layer("RELU", IMAGE, IMAGE),
    "relu6": lambda: one_layer("RELU6", IMAGE, IMAGE),
    "leaky relu": lambda: one_layer("LEAKY_RELU", IMAGE, IMAGE, alpha=0.2),
    "logistic": lambda: one_layer("LOGISTIC", IMAGE, IMAGE, parameters=SOFT),
    "tanh": lambda: one_layer("TANH", IMAGE, IMAGE, parameters=Quantization.per_tensor(1 / 128, 0)),
    "hard swish": lambda: one_layer("HARD_SWISH", IMAGE, IMAGE),
    "softmax of rows": lambda: one_layer("SOFTMAX", (3, 9), (3, 9), parameters=SOFT, beta=1.0),
    "softmax of an image": lambda: one_layer("SOFTMAX", IMAGE, IMAGE, parameters=SOFT, beta=1.0),
    "pad": lambda: one_layer("PAD", IMAGE, (1, 9, 8, 5), (ints([0, 0], [1, 2], [0, 0], [0, 1]),), X),
    "mean": lambda: one_layer("MEAN", IMAGE, (1, 1, 1, 4), (ints(1, 2),), keep_dims=True),
    "mean, dims dropped": lambda: one_layer("MEAN", IMAGE, (1, 4), (ints(1, 2),), keep_dims=False),
    "mean over channels": lambda: one_layer("MEAN", IMAGE, (1, 6, 8, 1), (ints(3),), keep_dims=True),
    "reshape, image to rows": lambda: one_layer("RESHAPE", IMAGE, (2, 96), (ints(2, 96),), X),
    "reshape, rows to image": lambda: one_layer("RESHAPE", (2, 96), IMAGE, (ints(*IMAGE),), X),
    "reshape, image to image": lambda: one_layer("RESHAPE", IMAGE, (1, 3, 4, 16), (ints(1, 3, 4, 16),), X),
    "requantize": lambda: one_layer("QUANTIZE", IMAGE, IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("flavour", BOTH)
@pytest.mark.parametrize("case", [*LAYERS])
def test_single_layers(case: str, flavour: str) -> None:
    """Within one step of LiteRT's reference kernels, whose rounding differs; most values are equal, so
    that a shift, a swapped axis or a wrong padding would be seen."""
    graph = LAYERS[case]()
    feeds = random_feeds(graph, 3)
    (expected,) = run_reference(write_tflite(graph), *feeds)
    (found,) = run(write_quantized_onnx(graph, flavour), feeds)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.8
    assert len(np.unique(expected)) > 3


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_the_tensorrt_flavour(upsampling: str) -> None:
    """Float ends and biases, zero points of 0, scales of filters per output channel; the same values as
    the QDQ file gives."""
    graph = network("int8-symmetric", upsampling)
    content = write_quantized_onnx(graph, "tensorrt")
    written = read_onnx(content)
    assert {written.tensors[i].dtype for i in (*written.inputs, *written.outputs)} == {"float32"}
    assert "uint8" not in {tensor.dtype for tensor in written.tensors}
    for view in written.views():
        if view.op in ("QuantizeLinear", "DequantizeLinear"):
            assert view.input(2).dtype == "int8"
            assert not view.input(2).data.any()
        if view.op in ("Conv", "ConvTranspose"):
            filter_ = next(v for v in written.views() if view.input(1) in v.outputs)
            assert filter_.op == "DequantizeLinear"
            axis = 0 if view.op == "Conv" else 1
            assert filter_.integer("axis", axis) == axis
            assert filter_.input(1).data.size == view.input(1).shape[axis]
            assert view.optional_input(2) is None or view.input(2).dtype == "float32"
    (feed,) = smooth_samples(graph, 1)
    image = graph.tensors[graph.inputs[0]]
    (found,) = run(content, [feed])
    steps = np.clip(np.rint(feed / np.float32(image.scale)), -128, 127).astype(np.int8)
    (expected,) = run(write_quantized_onnx(graph, "qdq"), [steps])
    scale = graph.tensors[graph.outputs[0]].scale
    assert np.abs(found / np.float32(scale) - expected).max() <= 1.01


PARSE = """
import sys
import tensorrt_rtx_bindings as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
parsed = parser.parse(open(sys.argv[1], "rb").read())
engine = builder.build_serialized_network(network, builder.create_builder_config()) if parsed else None
print(parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)], engine is not None)
"""


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_tensorrt_parses_and_builds_it(upsampling: str, tmp_path: Path) -> None:
    """TensorRT-RTX builds engines without a GPU; in a process of its own, where it may crash."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("tensorrt_rtx_bindings is not installed")
    path = tmp_path / "model.onnx"
    path.write_bytes(write_quantized_onnx(network("int8-symmetric", upsampling), "tensorrt"))
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "True [] True", done.stderr[-2000:]


def test_what_cannot_be_written_is_refused_by_layer() -> None:
    with pytest.raises(ModelError, match="has a zero point other than 0"):
        to_onnx(small_graph(), "tensorrt")
    with pytest.raises(ModelError, match="is uint8, which TensorRT"):
        to_onnx(network("uint8-2019", "bilinear"), "tensorrt")
    with pytest.raises(UsageError, match="no ONNX flavour 'onnx'"):
        to_onnx(small_graph(), "onnx")
    with pytest.raises(UnsupportedOp, match=r"layer 0 \(L2_NORMALIZATION, 'y'\): no quantized ONNX"):
        to_onnx(one_layer("L2_NORMALIZATION", IMAGE, IMAGE, fused_activation_function="NONE"))
    with pytest.raises(UnsupportedOp, match="different quantization parameters"):
        to_onnx(one_layer("MAX_POOL_2D", IMAGE, (1, 3, 4, 4), **POOL))
    with pytest.raises(ModelError, match="is onnx already"):
        to_onnx(to_onnx(small_graph()))


def test_files_are_valid_and_say_their_layout() -> None:
    for flavour in BOTH:
        model = onnx.load_model_from_string(write_quantized_onnx(small_graph(), flavour))
        onnx.checker.check_model(model, full_check=True)
        assert "NCHW" in model.doc_string
