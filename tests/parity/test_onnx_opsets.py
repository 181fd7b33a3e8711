"""One QDQ model in every operator set that is read: the same layers, the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from delegates import Delegate, delegate_named
from export.onnx import lower_qdq, read_onnx
from export.onnx.schema import OPSETS
from refimpl.engine import Implementation, compile_graph
from refimpl.graph import Array
from tests.cases.quantized import seeded

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.export.onnx_models import Sketch

SHAPE = (1, 3, 12, 10)


@cache
def model(opset: int) -> bytes:
    """Ops whose definitions changed on the way: pads, splits, reductions, pools and resizes."""
    s = Sketch(13)
    x = s.pair("x")
    filter_, bias = s.filter(8, 3, 3, 3), s.weight(8)
    a = s.pair(s.node("Relu", s.node("Conv", x, filter_, bias, pads=[1, 1, 1, 1])), 0.3, 0)
    p = s.node("Pad", a, s.constant(np.array([0, 0, 1, 0, 0, 0, 1, 0])), s.constant(np.float32(0)))
    p = s.pair(p, 0.3, 0)
    halves = {"num_outputs": 2} if opset >= 18 else {}
    b, c = s.node("Split", p, outputs=2, axis=1, **halves)
    d = s.pair(s.node("Add", s.pair(b, 0.3, 0), s.pair(c, 0.3, 0)), 0.4)
    e = s.pair(s.node("MaxPool", d, kernel_shape=[2, 2], strides=[2, 2]), 0.4)
    f = s.pair(s.node("AveragePool", d, kernel_shape=[2, 2], strides=[2, 2]), 0.4)
    g = s.pair(s.node("Concat", e, f, axis=1), 0.4)
    h = s.node(
        "Resize", g, "", s.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    i = s.pair(s.node("LeakyRelu", s.pair(h, 0.4), alpha=0.1), 0.4)
    j = s.pair(s.node("Transpose", i, perm=[0, 2, 3, 1]), 0.4)
    axes = np.array([1, 2])
    # Over leading axes (the batch is one), where the order of the sum is known.
    given = {"axes": axes.tolist()} if opset < 18 else {}
    k = s.node("ReduceMean", j, *([] if given else [s.constant(axes)]), keepdims=0, **given)
    m = s.pair(s.node("Gemm", s.pair(k, 0.1), s.filter(8, 5), s.weight(5)), 0.4)
    y = s.pair(s.node("Softmax", m, axis=1), 1 / 256, 0)
    return bytes(s.model(SHAPE, m, y, opset=opset).SerializeToString())


def feed() -> Array:
    return seeded("opsets").normal(size=SHAPE).astype(np.float32) * np.float32(3)


@cache
def outputs(opset: int, profile: str, implementation: Implementation) -> tuple[bytes, ...]:
    program = compile_graph(lower_qdq(read_onnx(model(opset))), profile, 1, implementation)
    return tuple(value.tobytes() for value in program.run({"x": feed()}).outputs)


@pytest.fixture(scope="module")
def runtime() -> Iterator[Delegate]:
    with delegate_named("ort", time_limit=60.0) as delegate:
        yield delegate


@pytest.mark.parametrize("opset", OPSETS)
def test_every_operator_set_gives_the_same_bits(runtime: Delegate, opset: int) -> None:
    """As the oldest one, from both implementations, and as ONNX Runtime."""
    graph = read_onnx(model(opset))
    assert {layer.version for layer in graph.layers} == {opset}
    lowered = [layer.op for layer in lower_qdq(graph).layers]
    assert lowered == [layer.op for layer in lower_qdq(read_onnx(model(OPSETS[0]))).layers]
    assert "QLinearConv" in lowered
    here = runtime.profile
    assert (
        outputs(opset, here, "kernels") == outputs(OPSETS[0], here, "kernels") == outputs(opset, here, "spec")
    )
    found = runtime.run(model(opset), {"x": feed()}, tensors="outputs").outputs
    assert outputs(opset, here, "kernels") == tuple(values.tobytes() for values in found)
    assert len(np.unique(found[0])) > 3


def test_operator_sets_are_those_documented() -> None:
    assert (OPSETS[0], OPSETS[-1]) == (13, 23)
