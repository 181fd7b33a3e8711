"""``Quant`` of Brevitas, FINN and QONNX: read as a pair of standard nodes, or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from karat24.export.onnx import lower_qdq, read_onnx
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import KaratError, UnsupportedOp
from karat24.refimpl.graph import Array
from tests.support.lying_onnx import wrong_fields

DOMAINS = ("onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general")


def quant(values: Array, scale: Array, zero: Array, bits: float, signed: int, narrow: int) -> Array:
    """QONNX's own words (``custom_op/general/quant.py``)."""
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    steps = np.round(np.clip(values / scale + zero, low, high)).astype(np.float32)
    return np.asarray((steps - zero) * scale, np.float32)


def network(domain: str = DOMAINS[0], **changed: Any) -> tuple[bytes, dict[str, Array]]:
    """A product of quantized data and a quantized constant, and what its Quant nodes read."""
    rng = np.random.default_rng(1)
    given: dict[str, Any] = {
        "w": rng.normal(size=(8, 6)).astype(np.float32),
        "ws": (rng.uniform(1, 2, (1, 6)) / 16).astype(np.float32),
        "wz": np.float32(0), "wb": np.float32(4), "s": np.float32(0.25), "z": np.float32(0),
        "b": np.float32(8), "narrow": 1, "rounding": "ROUND", **changed,
    }  # fmt: skip
    rounding, narrow = given.pop("rounding"), given.pop("narrow")
    common = {"domain": domain, "rounding_mode": rounding}
    nodes = [
        helper.make_node("Quant", ["w", "ws", "wz", "wb"], ["wq"], signed=1, narrow=narrow, **common),
        helper.make_node("Quant", ["x", "s", "z", "b"], ["xq"], signed=0, narrow=0, **common),
        helper.make_node("MatMul", ["xq", "wq"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (3, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in given.items()],
    )
    versions = [helper.make_opsetid("", 13), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8).SerializeToString(), given


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_pair_gives_what_quant_does(domain: str) -> None:
    """4 bits per column, narrow, for the constant; 8 bits for the data, which meets ties and both ends."""
    content, given = network(domain)
    graph = read_onnx(content)
    assert [layer.op for layer in graph.layers] == [
        "DequantizeLinear", "QuantizeLinear", "DequantizeLinear", "MatMul",
    ]  # fmt: skip
    x = (np.arange(-2, 22) * 3.125).reshape(3, 8).astype(np.float32)
    x[0, :3] = 0.125, 0.375, -0.125
    trace = compile_graph(graph, "ort-1.31", 1).run({"x": x}, trace=True).trace
    assert trace is not None
    named = {graph.tensors[index].name: values for index, values in trace.tensors.items()}
    expected = quant(given["w"], given["ws"], given["wz"], 4, 1, 1)
    np.testing.assert_array_equal(named["wq"], expected)
    np.testing.assert_array_equal(named["xq"], quant(x, given["s"], given["z"], 8, 0, 0))
    assert expected.min() == (-7 * given["ws"]).min()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"z": np.float32(3)}, "zero point 3"),
        ({"b": np.float32(4)}, "quantizes to 0 … 15"),
        ({"b": np.float32(9)}, "9.0.* bits"),
        ({"rounding": "FLOOR"}, "rounds by 'FLOOR'"),
        ({"wz": np.float32(0.5)}, "must be integers"),
        ({"ws": np.ones((8, 6), np.float32)}, "one axis is read"),
    ],
)
def test_what_means_something_else_is_refused_by_name(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedOp, match=rf"Quant.*{said}"):
        read_onnx(network(**changed)[0])


def test_damaged_nodes_are_read_or_refused() -> None:
    content, _ = network()
    read, refused = 0, 0
    for seed in range(200):
        try:
            lower_qdq(read_onnx(wrong_fields(content, seed)))
            read += 1
        except KaratError:
            refused += 1
    assert min(read, refused) > 20, (read, refused)
