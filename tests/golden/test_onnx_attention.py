"""QAttention, as ``quantize_dynamic`` writes it for models of the BERT kind: read, named, and left out."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from karat24.export.onnx import read_onnx
from karat24.golden.verify import verify
from karat24.refimpl.errors import ModelError
from tests.support.runtimes import Runtimes, available

ROWS, WIDTH, HEADS = 6, 16, 2


def model(heads: int = HEADS, past: int | None = None) -> bytes:
    """DynamicQuantizeLinear, QAttention, Relu, on ``[1, ROWS, WIDTH]``."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-128, 128, (WIDTH, 3 * WIDTH)).astype(np.int8),
        "b": rng.normal(size=3 * WIDTH).astype(np.float32),
        "ws": np.array(0.01, np.float32),
        "wz": np.array(0, np.int8),
    }
    inputs = ["xq", "w", "b", "xs", "ws", "", "xz", "wz"]
    outputs = ["att"]
    if past is not None:
        constants["past"] = np.zeros((2, 1, heads, past, WIDTH // heads), np.float32)
        inputs, outputs = [*inputs, "past"], ["att", "present"]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("QAttention", inputs, outputs, domain="com.microsoft", num_heads=heads),
        helper.make_node("Relu", ["att"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, ROWS, WIDTH]) for n in "xy"]
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "attention", ends[:1], ends[1:], stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


def test_its_shapes_follow_from_weights_and_heads() -> None:
    """The keys and values kept are those of the steps before, too."""
    graph = read_onnx(model(past=4))
    result, kept = graph.view(1).outputs
    assert (result.shape, result.dtype) == ((1, ROWS, WIDTH), "float32")
    assert (kept.shape, kept.dtype) == ((2, 1, HEADS, ROWS + 4, WIDTH // HEADS), "float32")


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_that_do_not_divide_the_weights_are_refused(heads: int) -> None:
    with pytest.raises(ModelError, match=f"{heads} heads of sizes"):
        read_onnx(model(heads))


def test_it_is_not_compared_by_name_and_the_others_are(runtimes: Runtimes) -> None:
    feeds = {"x": np.random.default_rng(1).normal(size=(1, ROWS, WIDTH)).astype(np.float32)}
    report = verify(model(), read_onnx(model()), available(runtimes("ort")), [feeds])
    verdicts = {layer.op: (layer.verdict, layer.reason) for layer in report.layers}
    assert verdicts["DynamicQuantizeLinear"][0] == verdicts["Relu"][0] == "bit_exact"
    verdict, reason = verdicts["com.microsoft:QAttention"]
    assert verdict == "not_compared"
    assert "softmax are summed in float32" in reason
