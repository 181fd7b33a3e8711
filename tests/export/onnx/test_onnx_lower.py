"""The lowering against the graphs ONNX Runtime itself writes after optimizing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from karat24.export import graph_under
from karat24.export.onnx import lower_qdq, read_onnx, write_onnx
from karat24.export.onnx.lowering.pairs import Parameters, merged
from karat24.export.onnx.lowering.quantize_constants import quantized_filter
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Graph
from karat24.refimpl.profiles import profile_named
from tests.cases.onnx_models import node, onnx_model
from tests.cases.onnx_transformers import Way, block, convolutions
from tests.cases.onnx_transformers import quantized as quantized_by_range
from tests.cases.qdq_groups import GROUPS, i64, scale_in_a_list, stored_in_float
from tests.cases.qdq_networks import qdq_network
from tests.shared_models import require_case
from tests.support.onnx_sketches import (
    MODELS,
    WAYS,
    Sketch,
    feed_of,
    quantized,
)
from tests.support.optimized_graphs import NO_TRANSPOSES, differences, optimized
from tests.support.ort_session import LEVEL, session
from tests.support.small_network import small_graph

QDQ_WAYS = [way for way in WAYS if way.startswith("qdq")]

SESSIONS = pytest.mark.parametrize("int8_allowed", [False, True], ids=["default", "int8-allowed"])


def assert_lowered_as_ort_does(content: bytes, int8_allowed: bool) -> Graph:
    lowered = lower_qdq(read_onnx(content), int8_allowed)
    assert not differences(lowered, optimized(content, int8_allowed))
    return lowered


def assert_computes_as_ort_does(content: bytes, int8_allowed: bool, lowered: Graph, model: Any) -> None:
    """The lowered graph, written and run unoptimized, gives the bits the optimized original gives."""
    feeds = feed_of(model, 3)
    expected = session(content, int8_allowed=int8_allowed).run(None, feeds)
    found = session(write_onnx(lowered), level=LEVEL.ORT_DISABLE_ALL).run(None, feeds)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


@SESSIONS
@pytest.mark.parametrize("way", QDQ_WAYS)
@pytest.mark.parametrize("name", [*MODELS])
def test_models_of_the_quantizer(name: str, way: str, int8_allowed: bool) -> None:
    content = quantized(name, way)
    lowered = assert_lowered_as_ort_does(content, int8_allowed)
    source = read_onnx(content)
    for before, now in zip(source.tensors, lowered.tensors, strict=False):
        assert (before.name, before.shape) == (now.name, now.shape)
        assert before.dtype == now.dtype or (before.dtype, now.dtype, int8_allowed) == (
            "int8",
            "uint8",
            False,
        )
    assert (lowered.inputs, lowered.outputs) == (source.inputs, source.outputs)
    assert read_onnx(write_onnx(lowered)).layers
    if not {"Conv", "MatMul", "Gemm"} & {layer.op for layer in lowered.layers}:
        # What is left in float is summed in another order when ONNX Runtime optimizes it.
        assert_computes_as_ort_does(content, int8_allowed, lowered, MODELS[name]())


@SESSIONS
@pytest.mark.parametrize("opset", [13, 18, 21, 23])
@pytest.mark.parametrize("case", [*GROUPS])
def test_single_groups(case: str, opset: int, int8_allowed: bool) -> None:
    sketch = Sketch(7)
    model = sketch.model([1, 3, 6, 6], *GROUPS[case](sketch), opset=opset)
    lowered = assert_lowered_as_ort_does(model.SerializeToString(), int8_allowed)
    if "Conv" not in {layer.op for layer in lowered.layers}:
        # A Conv left in float is summed in another order when ONNX Runtime optimizes it.
        assert_computes_as_ort_does(model.SerializeToString(), int8_allowed, lowered, model)


def turned_filter(s: Sketch, axis: int | None, op: str) -> Any:
    """As PyTorch writes a linear layer: quantized as it is stored, then transposed."""
    w = s.node("Transpose", stored_in_float(s, 5, 6, axis=axis), perm=[1, 0])
    y = s.node("MatMul", s.node("Reshape", s.pair("x"), s.constant(i64(-1, 6))), w)
    if op == "QGemm":
        y = s.node("Add", y, s.weight(5))
    return s.model([1, 3, 6, 6], s.pair(y, 0.1))


@SESSIONS
@pytest.mark.parametrize("op", ["QGemm", "QLinearMatMul"])
@pytest.mark.parametrize("axis", [None, 0])
def test_a_transposed_filter_is_stored_transposed(axis: int | None, op: str, int8_allowed: bool) -> None:
    """Held against the optimizer with its own pass for transposes."""
    model = turned_filter(Sketch(7), axis, op)
    content = model.SerializeToString()
    lowered = lower_qdq(read_onnx(content), int8_allowed)
    assert not differences(lowered, optimized(content, int8_allowed, NO_TRANSPOSES))
    assert [layer.op.rpartition(":")[2] for layer in lowered.layers] == [
        "QuantizeLinear", "Reshape", op, "DequantizeLinear",
    ]  # fmt: skip
    assert_computes_as_ort_does(content, int8_allowed, lowered, model)


RANDOM_NETWORKS = range(200)


@SESSIONS
def test_random_networks(int8_allowed: bool) -> None:
    """Blocks in random order, in the styles of several tools; the runtime refuses a few itself.

    Its default session makes int8 zero points uint8 and leaves ``output_dtype`` as it is, where quantization
    has spread in operator set 21.
    """
    wrong, refused, fused = [], [], 0
    for seed in RANDOM_NETWORKS:
        content = qdq_network(seed)
        try:
            runtime = optimized(content, int8_allowed, NO_TRANSPOSES)
        except Fail as error:
            refused.append(str(error))
            continue
        lowered = lower_qdq(read_onnx(content), int8_allowed)
        fused += any(layer.op.rpartition(":")[2].startswith("QLinear") for layer in lowered.layers)
        wrong += [f"seed {seed}: {text}" for text in differences(lowered, runtime)]
    assert not wrong, "\n".join(wrong)
    assert all("output_dtype INT8 does not match" in reason for reason in refused)
    assert len(refused) < (1 if int8_allowed else len(RANDOM_NETWORKS) // 20)
    assert fused > len(RANDOM_NETWORKS) * 3 // 4


REPORTED = [
    "aimet4105_linear_transpose_after_dq",
    "modelopt869_fp32_qdq_conv_clip",
    "ort18811_a16w8_opset21",
    "ort24711_constw_bias_match",
    "ort24711_constw_bias_mismatch",
    "ort28030_double_qdq_avgpool",
    "ort32132_qlinearadd_vs_float",
    "ort7982_shared_bias_quantize_static_u8s8",
    "perchannel_square_axis_missing",
    "q_conv1d_s8s8",
    "qat_floatw_q_dq_conv_pertensor",
    "trt1706_pytorchquant_floatw_q_dq_floatbias",
]


@SESSIONS
@pytest.mark.parametrize("name", REPORTED)
def test_reported_files(name: str, int8_allowed: bool) -> None:
    content = require_case(f"onnx/{name}.onnx").read_bytes()
    lowered = lower_qdq(read_onnx(content), int8_allowed)
    assert not differences(lowered, optimized(content, int8_allowed, NO_TRANSPOSES))


def test_a_bias_of_unknown_scale_leaves_the_op_in_float() -> None:
    """Data with a list of one scale, a filter with a single one."""
    s = Sketch(7)
    content = s.model([1, 3, 6, 6], *scale_in_a_list(s, 0.01)).SerializeToString()
    assert "Conv" in {node.op_type for node in optimized(content, False).graph.node}
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
    assert "Conv" not in {node.op_type for node in optimized(model.SerializeToString(), False).graph.node}
    assert_computes_as_ort_does(model.SerializeToString(), False, lowered, model)


def two_pairs(left: Parameters, right: Parameters, opset: int = 21) -> Any:
    """A model that quantizes its input twice, each time as told."""
    s = Sketch()
    once, twice = ((float(side.scale), side.zero_point, np.dtype(side.dtype).type) for side in (left, right))
    return s.model([1, 4], s.node("Tanh", s.pair(s.pair("x", *once), *twice)), opset=opset)


def random_parameters(dtype: str, seed: int) -> tuple[Parameters, Parameters]:
    random = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    first = float(10 ** random.uniform(-3, 1))
    scales = first, first * float(10 ** random.uniform(-0.5, 0.5))
    zero_points = random.integers(info.min, info.max + 1, 2)
    return tuple(
        Parameters(np.float32(scale), int(zero_point), dtype)
        for scale, zero_point in zip(scales, zero_points, strict=True)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("seed", range(12))
def test_two_pairs_in_a_row_get_the_parameters_the_optimizer_invents(dtype: str, seed: int) -> None:
    left, right = random_parameters(dtype, seed)
    lowered = assert_lowered_as_ort_does(two_pairs(left, right).SerializeToString(), True)
    assert [layer.op for layer in lowered.layers] == ["QuantizeLinear", "DequantizeLinear", "Tanh"]


@pytest.mark.parametrize(
    ("dtype", "zero_points", "expected"),
    [("uint8", (83, 168), 125), ("uint8", (87, 172), 131), ("int8", (-45, 40), -4), ("int8", (-41, 44), 3)],
)
def test_a_merged_zero_point_that_ties(dtype: str, zero_points: tuple[int, int], expected: int) -> None:
    """124.5, 130.5, -3.5 and 2.5 are rounded away from zero, as the runtime does."""
    left, right = (Parameters(np.float32(1.5), zero_point, dtype) for zero_point in zero_points)
    assert merged(left, right) == (np.float32(1), expected, dtype)
    assert_lowered_as_ort_does(two_pairs(left, right).SerializeToString(), True)


def test_two_pairs_without_a_common_value_are_refused() -> None:
    """ONNX Runtime's graph has a scale of 0 there."""
    left, right = Parameters(np.float32(0.1), 0, "uint8"), Parameters(np.float32(0.2), 255, "uint8")
    content = two_pairs(left, right).SerializeToString()
    scales = [numpy_helper.to_array(proto) for proto in optimized(content, True).graph.initializer]
    assert any(values.dtype == np.float32 and not values.any() for values in scales)
    with pytest.raises(UnsupportedOp, match=r"quantizes again what .* quantized"):
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
    model = optimized(s.model([1, 3, 6, 6], s.pair(y, 0.2)).SerializeToString(), False)
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


@pytest.mark.parametrize(("profile", "dtypes"), [("tensorrt", {"int8"}), ("ort-1.31", {"uint8"})])
def test_a_profile_says_whether_int8_stays(profile: str, dtypes: set[str]) -> None:
    """A default session makes uint8 of int8 where one layer reads it; TensorRT has no uint8."""
    s = Sketch(7)
    c = s.pair(s.node("Conv", s.pair("x", dtype=np.int8), s.filter(4, 3, 3, 3)), 0.3, 4, np.int8)
    graph = read_onnx(s.model([1, 3, 6, 6], c).SerializeToString())
    views = graph_under(graph, profile_named(profile)).views()
    assert {view.input(0).dtype for view in views if view.op == "QLinearConv"} == dtypes


def test_graphs_without_pairs_stay() -> None:
    graph = read_onnx(quantized("residual", "qop-u8s8"))
    assert lower_qdq(graph).layers == graph.layers
    with pytest.raises(ModelError, match="only ONNX graphs"):
        lower_qdq(small_graph())


@pytest.mark.parametrize("block", [4, 8])
def test_a_product_with_weights_in_blocks_stays_in_float(block: int) -> None:
    """No integer op takes a scale per block; the runtime leaves the MatMul as well."""
    blocked = {"axis": 0, "block_size": block}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("DequantizeLinear", ["w", "sw"], "wf", **blocked),
        node("MatMul", ["d", "wf"], "m"),
        node("QuantizeLinear", ["m", "s", "z"], "q2"),
        node("DequantizeLinear", ["q2", "s", "z"]),
    ]
    constants = {
        "s": np.float32(0.02), "z": np.array(120, np.uint8), "w": np.ones((8, 6), np.int8),
        "sw": np.full((8 // block, 6), 0.1, np.float32),
    }  # fmt: skip
    content = onnx_model(nodes, {"x": np.zeros((3, 8), np.float32)}, {"y": "float32"}, constants)
    lowered = assert_lowered_as_ort_does(content, False)
    assert "MatMul" in {layer.op for layer in lowered.layers}


@pytest.mark.parametrize("weights", ["dynamic", "dynamic per channel"])
def test_dynamic_chains_are_joined_as_the_optimizer_does(weights: Way) -> None:
    """One product that alone reads its data, with a row behind it; the convolutions' chains stay."""
    content = quantized_by_range(convolutions(), weights)
    lowered = assert_lowered_as_ort_does(content, False)
    ops = [layer.op for layer in lowered.layers]
    assert (ops.count("ConvInteger"), ops.count("com.microsoft:DynamicQuantizeMatMul")) == (2, 1)


def test_data_that_several_products_read_are_quantized_once() -> None:
    """Three products of one DynamicQuantizeLinear, each with a row, and four that are alone."""
    lowered = lower_qdq(read_onnx(quantized_by_range(block(), "dynamic")))
    ops = [layer.op for layer in lowered.layers]
    names = (
        "DynamicQuantizeLinear",
        "com.microsoft:MatMulIntegerToFloat",
        "com.microsoft:DynamicQuantizeMatMul",
    )
    assert [ops.count(name) for name in names] == [1, 3, 3]
    assert "MatMulInteger" not in ops
