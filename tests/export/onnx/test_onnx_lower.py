"""The lowering against the graphs ONNX Runtime itself writes after optimizing."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.onnx import lower_qdq, read_onnx, write_onnx
from export.onnx.lowering.quantize_constants import quantized_filter
from refimpl.errors import ModelError, UnsupportedOp
from refimpl.graph import Graph
from tests.support.onnx_sketches import (
    MODELS,
    WAYS,
    Sketch,
    feed_of,
    quantized,
)
from tests.support.ort_session import LEVEL, session
from tests.support.small_network import small_graph

QDQ_WAYS = [way for way in WAYS if way.startswith("qdq")]


def optimized(content: bytes) -> Any:
    """What ONNX Runtime makes of a model, but in the file's layout: without the passes that reorder axes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        session(content, LEVEL.ORT_ENABLE_ALL, save=path,
                disabled_optimizers=["NhwcTransformer", "TransposeOptimizer"])  # fmt: skip
        return onnx.load(path)


INLINED = {"HardSwish": ["HardSigmoid", "Mul"]}
"""Ops ONNX Runtime replaces by float ones that mean the same."""


def integer_layers_of_model(model: Any, quantized_names: set[str]) -> Counter[tuple[str, ...]]:
    """(op, quantized tensors it writes) of each node."""
    found: Counter[tuple[str, ...]] = Counter()
    for node in model.graph.node:
        op = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
        if node.op_type == "FusedConv":
            op = "Conv"
            found[(next(a.s.decode() for a in node.attribute if a.name == "activation"),)] += 1
        found[(op, *(name for name in node.output if name in quantized_names))] += 1
    return found


def integer_layers_of_graph(graph: Graph) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for view in graph.views():
        written = [tensor.name for tensor in view.outputs if tensor.dtype in ("int8", "uint8")]
        for op in INLINED.get(view.op, [view.op]):
            found[(op, *written)] += 1
    return found


def assert_lowered_as_ort_does(content: bytes) -> Graph:
    lowered = lower_qdq(read_onnx(content))
    model = optimized(content)
    names = {tensor.name for tensor in lowered.tensors if tensor.dtype in ("int8", "uint8")}
    found, expected = integer_layers_of_graph(lowered), integer_layers_of_model(model, names)
    # One DequantizeLinear serves several readers here; ONNX Runtime repeats it for each.
    for layers in (found, expected):
        layers.pop(("DequantizeLinear",), None)
    assert found == expected
    return lowered


def assert_computes_as_ort_does(content: bytes, lowered: Graph, model: Any) -> None:
    """The lowered graph, written and run unoptimized, gives the bits the optimized original gives."""
    feeds = feed_of(model, 3)
    expected = session(content, LEVEL.ORT_ENABLE_ALL).run(None, feeds)
    found = session(write_onnx(lowered), LEVEL.ORT_DISABLE_ALL).run(None, feeds)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("way", QDQ_WAYS)
@pytest.mark.parametrize("name", [*MODELS])
def test_models_of_the_quantizer(name: str, way: str) -> None:
    content = quantized(name, way)
    lowered = assert_lowered_as_ort_does(content)
    source = read_onnx(content)
    assert lowered.tensors[: len(source.tensors)] == source.tensors
    assert (lowered.inputs, lowered.outputs) == (source.inputs, source.outputs)
    assert read_onnx(write_onnx(lowered)).layers
    assert_computes_as_ort_does(content, lowered, MODELS[name]())


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def reshape_before_matmul(s: Sketch) -> list[str]:
    """Quantization spreads forward over the Reshape, so that the MatMul can run on integers."""
    r = s.node("Reshape", s.pair("x"), s.constant(i64(1, -1, 4)))
    return [s.pair(s.node("MatMul", r, s.filter(4, 6)), 0.3)]


def reshape_after_conv(s: Sketch) -> list[str]:
    """... and backward, so that the Conv can."""
    r = s.node("Reshape", s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3)), s.constant(i64(1, -1)))
    return [s.pair(r, 0.3)]


def pool_at_the_end(s: Sketch) -> list[str]:
    return [s.node("MaxPool", s.pair("x"), kernel_shape=[2, 2])]


def clipped_conv(s: Sketch, scale: float) -> list[str]:
    c = s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3))
    return [s.pair(s.node("Clip", c, s.constant(np.float32(0)), s.constant(np.float32(6))), scale, 0)]


def rectified_conv(s: Sketch, zero_point: int) -> list[str]:
    c = s.node("Relu", s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3)))
    return [s.pair(c, 6 / 255, zero_point)]


def float_bias(s: Sketch) -> list[str]:
    return [s.pair(s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3), s.weight(4)), 6 / 255)]


def float_filter(s: Sketch, bias: bool) -> list[str]:
    """A filter in float becomes int8, whose parameters the optimizer chooses."""
    filter_ = s.weight(4, 3, 3, 3)
    return [s.pair(s.node("Conv", s.pair("x"), filter_, *([s.weight(4)] if bias else [])), 6 / 255)]


def float_filter_transposed(s: Sketch, bias: bool) -> list[str]:
    """... and stays in a float op where there is no integer one."""
    filter_, more = s.weight(3, 4, 4, 4), [s.weight(4)] if bias else []
    y = s.node("ConvTranspose", s.pair("x"), filter_, *more, strides=[2, 2])
    return [s.pair(s.node("Relu", y), 6 / 255, 0)]


def float_filter_product(s: Sketch) -> list[str]:
    x = s.node("Reshape", s.pair("x"), s.constant(i64(-1, 6)))
    return [s.pair(s.node("Gemm", x, s.weight(5, 6), s.weight(5), transB=1), 0.1)]


def float_filter_of_an_output(s: Sketch) -> list[str]:
    """Nothing is quantized where the result stays float."""
    return [s.node("ConvTranspose", s.pair("x"), s.weight(3, 4, 3, 3))]


def scale_in_a_list(s: Sketch, filter_scale: float | list[float]) -> list[str]:
    """One scale counts as one for all, in a list of one number too."""
    scale, zero_point = s.constant(np.array([0.05], np.float32)), s.constant(np.array([3], np.uint8))
    x = s.node("DequantizeLinear", s.node("QuantizeLinear", "x", scale, zero_point), scale, zero_point)
    values = s.constant(s.random.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8))
    filter_ = s.node("DequantizeLinear", values, s.constant(np.array(filter_scale, np.float32)))
    return [s.pair(s.node("Conv", x, filter_, s.weight(4)), 6 / 255)]


def product(s: Sketch, op: str) -> list[str]:
    """No QuantizeLinear behind it: integers in, float out."""
    x = s.node("Reshape", s.pair("x"), s.constant(i64(-1, 6)))
    return [s.node(op, x, s.filter(6, 5))]


def same_twice(s: Sketch) -> list[str]:
    x = s.pair("x")
    return [s.pair(s.node("Add", x, x), 1 / 256, 0)]


def behind_identity(s: Sketch) -> list[str]:
    return [s.pair(s.node("Sigmoid", s.node("Identity", s.pair("x"))), 1 / 256, 0)]


def two_readers(s: Sketch) -> list[str]:
    """What quantization spreads to has one reader on integers and one in float."""
    x = s.node("Slice", s.pair("x"), s.constant(i64(1)), s.constant(i64(3)), s.constant(i64(2)))
    r = s.node("Transpose", x, perm=[0, 2, 1, 3])
    return [s.pair(s.node("Sigmoid", r), 0.1), s.node("Tanh", r)]


def spread_beside_a_group(s: Sketch) -> list[str]:
    """Quantization spreads over the Reshape though a Sigmoid reads the same DequantizeLinear."""
    x = s.pair("x")
    m = s.node("MatMul", s.node("Reshape", x, s.constant(i64(1, -1, 4))), s.filter(4, 6))
    return [s.pair(m, 0.3), s.pair(s.node("Sigmoid", x), 1 / 256, 0)]


def no_spread_beside_float(s: Sketch) -> list[str]:
    """... but not where the other reader stays float."""
    x = s.pair("x")
    return [s.node("Reshape", x, s.constant(i64(1, -1, 4))), s.node("Tanh", x)]


def mixed_types(s: Sketch) -> list[str]:
    """int8 in, uint8 out: stays float."""
    return [s.pair(s.node("Sigmoid", s.pair("x", dtype=np.int8)), 1 / 256, 0)]


def other_parameters(s: Sketch) -> list[str]:
    """A MaxPool whose output has parameters of its own stays float."""
    return [s.pair(s.node("MaxPool", s.pair("x"), kernel_shape=[2, 2]), 0.07)]


def quantized_output(s: Sketch) -> list[str]:
    """A Conv whose float result is an output as well stays float."""
    c = s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3))
    return [c, s.pair(c, 0.3)]


def requantized_at_the_end(s: Sketch) -> list[str]:
    """Two QuantizeLinear in a row, the last one an output: both stay."""
    s.weights.append(helper.make_tensor("s", 1, [], [0.1]))
    s.weights.append(helper.make_tensor("z", 3, [], [5]))
    y = s.node("QuantizeLinear", s.pair("x"), "s", "z")
    return [s.node("Cast", y, to=1)]


def pair_twice(s: Sketch) -> list[str]:
    """Two equal pairs in a row are one."""
    return [s.node("Tanh", s.pair(s.pair("x")))]


def pair_twice_in_other_types(s: Sketch) -> list[str]:
    return [s.node("Tanh", s.pair(s.pair("x"), 0.1, 5, np.int8))]


def pair_twice_with_a_reader_between(s: Sketch) -> list[str]:
    x = s.pair("x")
    return [s.node("Tanh", s.pair(x, 0.1)), s.node("Tanh", x)]


def quantized_twice(s: Sketch) -> list[str]:
    """Two readers with a QuantizeLinear each, and a zero point each: both stay, and the Conv in float."""
    c = s.node("Conv", s.pair("x"), s.filter(3, 3, 1, 1))
    return [s.pair(s.node("Sub", s.pair(c, 0.3), s.pair(c, 0.3)), 0.6)]


CASES = {
    "quantized twice": quantized_twice,
    "requantized at the end": requantized_at_the_end,
    "pair twice": pair_twice,
    "pair twice, other types": pair_twice_in_other_types,
    "pair twice, a reader between": pair_twice_with_a_reader_between,
    "reshape before MatMul": reshape_before_matmul,
    "reshape after Conv": reshape_after_conv,
    "pool at the end": pool_at_the_end,
    "redundant Clip": lambda s: clipped_conv(s, 6 / 255),
    "real Clip": lambda s: clipped_conv(s, 8 / 255),
    "redundant Relu": lambda s: rectified_conv(s, 0),
    "real Relu": lambda s: rectified_conv(s, 3),
    "float bias": float_bias,
    "float filter": lambda s: float_filter(s, False),
    "float filter and bias": lambda s: float_filter(s, True),
    "float filter of ConvTranspose": lambda s: float_filter_transposed(s, False),
    "float filter and bias of ConvTranspose": lambda s: float_filter_transposed(s, True),
    "float filter of Gemm": float_filter_product,
    "float filter of an output": float_filter_of_an_output,
    "scale in a list": lambda s: scale_in_a_list(s, [0.01]),
    "Gemm, float result": lambda s: product(s, "Gemm"),
    "MatMul, float result": lambda s: product(s, "MatMul"),
    "same tensor twice": same_twice,
    "behind Identity": behind_identity,
    "two readers": two_readers,
    "spread beside a group": spread_beside_a_group,
    "no spread beside float": no_spread_beside_float,
    "mixed types": mixed_types,
    "other parameters": other_parameters,
    "float output too": quantized_output,
}


@pytest.mark.parametrize("opset", [13, 18, 21, 23])
@pytest.mark.parametrize("case", [*CASES])
def test_single_groups(case: str, opset: int) -> None:
    sketch = Sketch(7)
    model = sketch.model([1, 3, 6, 6], *CASES[case](sketch), opset=opset)
    lowered = assert_lowered_as_ort_does(model.SerializeToString())
    if "Conv" not in {layer.op for layer in lowered.layers}:
        # A Conv left in float is summed in another order when ONNX Runtime optimizes it.
        assert_computes_as_ort_does(model.SerializeToString(), lowered, model)


def test_a_bias_of_unknown_scale_leaves_the_op_in_float() -> None:
    """Data with a list of one scale, a filter with a single one."""
    s = Sketch(7)
    content = s.model([1, 3, 6, 6], *scale_in_a_list(s, 0.01)).SerializeToString()
    assert "Conv" in {node.op_type for node in optimized(content).graph.node}
    assert "Conv" in {layer.op for layer in lower_qdq(read_onnx(content)).layers}


def test_equal_quantizations_with_shared_constants_are_one() -> None:
    """Which of the two names survives is ONNX Runtime's whim; the values are the same."""
    s = Sketch(7)
    c = s.node("Conv", s.pair("x"), s.filter(3, 3, 1, 1))
    scale, zero_point = s.constant(np.float32(0.3)), s.constant(np.uint8(4))
    pairs = [
        s.node("DequantizeLinear", s.node("QuantizeLinear", c, scale, zero_point), scale, zero_point)
        for _ in range(2)
    ]
    model = s.model([1, 3, 6, 6], s.pair(s.node("Add", *pairs), 0.6))
    lowered = lower_qdq(read_onnx(model.SerializeToString()))
    assert "Conv" not in {layer.op for layer in lowered.layers}
    assert "Conv" not in {node.op_type for node in optimized(model.SerializeToString()).graph.node}
    assert_computes_as_ort_does(model.SerializeToString(), lowered, model)


def test_what_the_optimizer_would_invent_is_refused() -> None:
    """ONNX Runtime makes up parameters here: its graph has scales the file has not."""
    s = Sketch()
    content = s.model([1, 3, 6, 6], s.node("Tanh", s.pair(s.pair("x"), 0.2))).SerializeToString()
    merged = [node.op_type for node in optimized(content).graph.node]
    assert merged == ["QuantizeLinear", "DequantizeLinear", "Tanh"]
    with pytest.raises(UnsupportedOp, match=r"quantizes what .* just did"):
        lower_qdq(read_onnx(content))


FILTERS = {
    "usual": np.random.default_rng(0).normal(size=(3, 4, 5, 2)),
    "positive": np.random.default_rng(1).random((3, 4, 5, 2)) + 1,
    "negative": -np.random.default_rng(2).random((3, 4, 5, 2)) - 1,
    "zero": np.zeros((3, 4, 5, 2)),
    "ties": np.arange(-60, 60).reshape(3, 4, 5, 2) / 2,
    "one large": np.where(np.arange(120) == 7, 1e30, 1e-30).reshape(3, 4, 5, 2),
}


@pytest.mark.parametrize("name", [*FILTERS])
def test_a_float_filter_is_quantized_as_the_optimizer_does(name: str) -> None:
    values = FILTERS[name].astype(np.float32)
    s = Sketch()
    y = s.node("ConvTranspose", s.pair("x"), s.constant(values))
    model = optimized(s.model([1, 3, 6, 6], s.pair(y, 0.2)).SerializeToString())
    (node,) = (node for node in model.graph.node if node.op_type == "ConvTranspose")
    (source,) = (other for other in model.graph.node if node.input[1] in other.output)
    constants = {proto.name: numpy_helper.to_array(proto) for proto in model.graph.initializer}
    for found, name_of in zip(quantized_filter(values), source.input, strict=True):
        np.testing.assert_array_equal(found, constants[name_of])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_float_filter_without_a_range_is_refused_or_quantized(value: float) -> None:
    """Values no scale fits are a clear error, not a crash."""
    s = Sketch()
    values = np.full((3, 4, 2, 2), value, np.float32)
    values[0] = -value
    y = s.node("ConvTranspose", s.pair("x"), s.constant(values))
    graph = read_onnx(s.model([1, 3, 6, 6], s.pair(y, 0.2)).SerializeToString())
    with pytest.raises(ModelError, match="scale"):
        lower_qdq(graph)


def test_graphs_without_pairs_stay() -> None:
    graph = read_onnx(quantized("residual", "qop-u8s8"))
    assert lower_qdq(graph).layers == graph.layers
    with pytest.raises(ModelError, match="only ONNX graphs"):
        lower_qdq(small_graph())
