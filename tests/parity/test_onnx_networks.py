"""Whole networks, quantized by ONNX Runtime's own tool, judged layer by layer in its integer lane."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from karat24.delegates import Delegate
from karat24.export.onnx import (
    FLAVOURS,
    Flavour,
    lower_qdq,
    read_onnx,
    write_float_onnx,
    write_quantized_onnx,
)
from karat24.export.quantize import quantize_model
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.networks import network
from karat24.refimpl.profiles import profile_named
from tests.cases.onnx_models import (
    ARCHITECTURES,
    float_network,
    images,
    node,
    on_the_grid,
    onnx_model,
    photograph,
    quantized,
)
from tests.cases.quantized import seeded
from tests.support.onnx_sketches import MODELS, Sketch, feed_of
from tests.support.onnx_sketches import quantized as quantized_sketch
from tests.support.runtimes import Runtimes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FORMS = [(form, activations) for form in ("QDQ", "QOperator") for activations in ("QUInt8", "QInt8")]


@pytest.fixture(scope="module")
def runtime(runtimes: Runtimes) -> Delegate:
    """The session in which int8 stays int8, so that both types are tried."""
    return runtimes("ort-qdqisint8allowed")


def verdicts(
    content: bytes,
    delegate: Delegate,
    samples: list[dict[str, np.ndarray]],
    mode: Literal["isolated", "cumulative"],
) -> dict[str, list[str]]:
    report = verify(
        content, read_onnx(content), delegate, samples, mode=mode, threads=1, implementation="kernels"
    )
    found: dict[str, list[str]] = {}
    for layer in report.layers:
        found.setdefault(layer.verdict, []).append(f"{layer.op} {layer.name}: {layer.reason}")
    return found


def input_scale(content: bytes) -> float:
    """The scale of the first QuantizeLinear."""
    graph = read_onnx(content)
    steps = (i for i, layer in enumerate(graph.layers) if layer.op == "QuantizeLinear")
    return graph.view(next(steps)).output().scale


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize(("form", "activations"), FORMS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_of_an_architecture_is_exact(
    runtimes: Runtimes, runtime: Delegate, name: str, form: str, activations: str,
    mode: Literal["isolated", "cumulative"],
) -> None:  # fmt: skip
    """Random values, a photograph, and halves of the input's own scale, which tie when quantized."""
    content = quantized(float_network(name), form, activations, [{"x": images(i)} for i in range(3)])
    samples = [{"x": images(9)}, {"x": photograph()}, {"x": on_the_grid(input_scale(content))}]
    assert set(verdicts(content, runtime, samples, mode)) == {"bit_exact"}
    assert set(verdicts(content, runtimes("ort"), samples, mode)) <= {"bit_exact", "within_bound"}


MODES: tuple[Literal["isolated", "cumulative"], ...] = ("isolated", "cumulative")

RESTORERS = [("fine-tune", "bilinear"), ("tomogan", "bilinear"), ("tomogan", "transposed")]


@pytest.mark.parametrize(("form", "activations"), FORMS)
@pytest.mark.parametrize(("name", "upsampling"), RESTORERS)
def test_every_layer_of_the_restorers_is_exact(
    runtime: Delegate, name: str, upsampling: Literal["bilinear", "transposed"], form: str, activations: str
) -> None:
    """Random values, a photograph and ties, as above.

    TomoGAN's bilinear Resize runs in float32 in QDQ form, on stored values in QOperator form; its
    transposed convolution in float32 in both, with a filter ONNX Runtime quantizes itself in the latter:
    the file has no edge where the three dequantized ones could be seen.
    """
    model = onnx.load_from_string(write_float_onnx(network(name, 16, 24, upsampling, None, 0)))
    (image,) = model.graph.input
    shape = [size.dim_value for size in image.type.tensor_type.shape.dim]
    random = [np.random.default_rng(i).random(shape, np.float32) for i in range(3)]
    stored = quantized(model, form, activations, [{image.name: values} for values in random[:2]])
    inputs = [random[2], photograph(shape), on_the_grid(input_scale(stored), shape)]
    samples = [{image.name: values} for values in inputs]
    for mode in MODES:
        assert set(verdicts(stored, runtime, samples, mode)) <= {"bit_exact", "within_bound"}


@pytest.mark.parametrize("flavour", FLAVOURS[:2])
@pytest.mark.parametrize(("name", "upsampling"), RESTORERS)
def test_every_layer_of_what_this_project_writes_is_exact(
    runtime: Delegate, name: str, upsampling: Literal["bilinear", "transposed"], flavour: Flavour
) -> None:
    """The same networks, quantized here and written in both forms."""
    source = network(name, 16, 24, upsampling, None, 0)
    shape = source.tensors[source.inputs[0]].shape
    calibration = [np.random.default_rng(i).random(shape, np.float32) for i in range(2)]
    content = write_quantized_onnx(quantize_model(source, calibration), flavour)
    graph = read_onnx(content)
    (index,) = graph.inputs
    tensor = graph.tensors[index]
    random = np.random.default_rng(5).integers(-128, 128, tensor.shape)
    pictured = np.rint(photograph(tensor.shape) * 127)
    samples = [{tensor.name: values.astype(tensor.dtype)} for values in (random, pictured)]
    for mode in MODES:
        assert set(verdicts(content, runtime, samples, mode)) <= {"bit_exact", "within_bound"}


SUMS_IN_FLOAT = {"Conv", "ConvTranspose", "Resize"}
"""What the reference computes in float32, in an order of its own."""


@pytest.mark.parametrize(("name", "upsampling"), RESTORERS)
def test_the_reference_runs_what_this_project_writes(
    name: str, upsampling: Literal["bilinear", "transposed"], runtimes: Runtimes
) -> None:
    """The written operator set is older than the oldest DequantizeLinear the reference has."""
    source = network(name, 16, 24, upsampling, None, 0)
    shape = source.tensors[source.inputs[0]].shape
    calibration = [np.random.default_rng(i).random(shape, np.float32) for i in range(2)]
    content = write_quantized_onnx(quantize_model(source, calibration), "qdq")
    graph = read_onnx(content)
    (index,) = graph.inputs
    random = np.random.default_rng(5).integers(-128, 128, shape).astype(graph.tensors[index].dtype)
    feeds = {index: random.reshape(graph.tensors[index].shape)}
    report = verify(content, graph, runtimes("onnx-reference"), [feeds], implementation="kernels")
    found = {(layer.verdict, layer.op) for layer in report.layers}
    assert {op for verdict, op in found if verdict == "bit_exact"} >= {"QuantizeLinear", "DequantizeLinear"}
    assert {op for verdict, op in found if verdict != "bit_exact"} <= SUMS_IN_FLOAT
    assert {verdict for verdict, _ in found} <= {"bit_exact", "within_bound", "not_compared"}


WAYS_OF_FORMS = ("qdq-u8s8-channel", "qdq-s8s8-channel", "qop-u8s8", "qop-s8s8-channel")


@pytest.mark.parametrize("way", WAYS_OF_FORMS)
@pytest.mark.parametrize("name", ["residual", "activations", "moving", "upsampling"])
def test_ops_of_all_kinds_between_quantized_edges(runtime: Delegate, name: str, way: str) -> None:
    """Activation functions, moves, pools and resizes; of those that stay in float only Tanh is no
    arithmetic anybody wrote down."""
    content = quantized_sketch(name, way)
    feeds = feed_of(MODELS[name](), 5)
    (first,) = feeds
    samples = [feeds, {first: on_the_grid(input_scale(content), feeds[first].shape)}]
    for mode in MODES:
        found = verdicts(content, runtime, samples, mode)
        assert set(found) <= {"bit_exact", "within_bound"}
        assert "Tanh" in [line.split()[0] for line in found.get("within_bound", [])] or name != "activations"


FUNCTIONS: dict[str, dict[str, Any]] = {
    "AveragePool": {"kernel_shape": [2, 2]}, "Elu": {}, "Erf": {}, "Exp": {}, "Log": {}, "Softplus": {},
    "Tanh": {}, "GlobalAveragePool": {}, "ReduceMean": {"axes": [2, 3]}, "Softmax": {"axis": 1},
    "Sqrt": {}, "HardSwish": {}, "HardSigmoid": {}, "GlobalMaxPool": {}, "Reciprocal": {}, "Round": {},
}  # fmt: skip
"""float32 ops of one input."""


@pytest.mark.parametrize("op", FUNCTIONS)
def test_a_function_left_in_float_is_exact_or_within_its_bound(runtime: Delegate, op: str) -> None:
    """Its result is an output too, which keeps it in float: nothing is refused, what follows is compared."""
    sketch = Sketch(3)
    inner = sketch.node(op, sketch.pair("x", 0.04, 0), **FUNCTIONS[op])
    content = sketch.model([1, 6, 8, 8], sketch.pair(inner, 0.02, 3), inner).SerializeToString()
    found = verdicts(content, runtime, [{"x": seeded(op).random((1, 6, 8, 8), np.float32) * 9}], "isolated")
    specified = op in ("Sqrt", "HardSwish", "HardSigmoid", "GlobalMaxPool", "Reciprocal", "Round")
    expected = ["QuantizeLinear", "DequantizeLinear"] * 2 + [op] * specified
    if op == "HardSwish":  # a function of two ops, which the runtime runs in its place
        expected[-1:] = ["HardSigmoid", "Mul"]
    assert sorted(line.split()[0] for line in found["bit_exact"]) == sorted(expected)
    assert set(found) <= {"bit_exact", "within_bound", "not_compared"}
    others = [*found.get("within_bound", []), *found.get("not_compared", [])]
    assert [line.split()[0] for line in others] == [op] * (not specified)
    (lowered,) = (v for v in lower_qdq(read_onnx(content), int8_allowed=True).views() if v.op == op)
    assert profile_named("ort-1.31").rule(lowered).method == ("exact" if specified else "unspecified")
    assert_close_to_the_runtime(runtime, content)


def assert_close_to_the_runtime(runtime: Delegate, content: bytes) -> None:
    """What is not compared must still be that function, or nothing behind it would be worth judging."""
    (value,) = onnx.load_from_string(content).graph.input
    feeds = {value.name: seeded("close").random((1, 6, 8, 8), np.float32) * 9}
    expected = runtime.run(content, feeds, tensors="outputs").outputs[0]
    lowered = lower_qdq(read_onnx(content), int8_allowed=True)
    found = compile_graph(lowered, "ort-1.31", 1).run(feeds).outputs[0]
    assert np.abs(found - expected).max() <= np.float32(0.02) * np.float32(1.001), "more than one step"


@pytest.mark.parametrize(("channels", "size"), [(129, 4), (6, 1)])
def test_transposed_convolution_of_unknown_order_is_bounded(
    runtime: Delegate, channels: int, size: int
) -> None:
    """Too many channels for one chain, or a single pixel; the ReLU behind it is judged on its own."""
    shape = (1, channels, size, size)
    weights = seeded("weights").normal(size=(channels, 3, 4, 4)).astype(np.float32)
    nodes = [node("ConvTranspose", ["x", "w"], "t", strides=[2, 2]), node("Relu", "t")]
    image = seeded("image").normal(size=shape).astype(np.float32)
    content = onnx_model(nodes, {"x": image}, {"y": "float32"}, {"w": weights})
    found = verdicts(content, runtime, [{"x": image}], "isolated")
    assert set(found) == {"bit_exact", "within_bound"}
    (line,) = found["within_bound"]
    assert line.startswith("ConvTranspose")
    (line,) = found["bit_exact"]
    assert line.startswith("Relu")


def test_another_profile_is_found_out_and_explained(runtime: Delegate) -> None:
    """Held to onnx-spec, ONNX Runtime differs on ties with an odd zero point, and ort-1.31 explains it."""
    from tests.cases.onnx_ops import ties

    case = next(case for case in ties() if case.name == "ties_uint8_3")
    graph = read_onnx(case.model)
    report = verify(
        case.model, graph, runtime, [case.feeds], profile="onnx-spec", threads=1, implementation="kernels"
    )
    (layer,) = report.layers
    assert layer.verdict == "explained"
    assert "ort-1.31" in layer.reason
    assert layer.tie_distance == 0
    assert layer.diff is not None
    assert layer.diff.max_abs_diff_lsb == 1
