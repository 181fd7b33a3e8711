"""One QDQ model in every operator set that is read: the same layers, the same bits."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest

from karat24.delegates import Delegate
from karat24.export.onnx import lower_qdq, read_onnx
from karat24.export.onnx.schema import IR_VERSIONS
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import DelegateError, UnsupportedOp
from karat24.refimpl.graph import Array
from karat24.refimpl.spec.onnx.versions import CHANGES, OPSETS
from karat24.refimpl.step import Implementation
from tests.cases.quantized import seeded

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper

from karat24.export.onnx.reading.shapes import RULES
from tests.cases.onnx_models import node, onnx_model
from tests.support.onnx_sketches import Sketch
from tests.support.runtimes import Runtimes

LAST_THAT_RUNS = 27
"""ONNX Runtime 1.32 has no QuantizeLinear of operator set 28, whose definition is that of 25."""

SHAPE = (1, 3, 12, 10)


@cache
def model(opset: int) -> bytes:
    """Ops whose definitions changed on the way: pads, splits, reductions, pools and resizes."""
    s = Sketch(13)
    x = s.pair("x")
    # ONNX Runtime quantizes a float bias with Round, which is newer than operator set 10.
    biases = [s.weight(8)] if opset > 10 else []
    a = s.node("Relu", s.node("Conv", x, s.filter(8, 3, 3, 3), *biases, pads=[1, 1, 1, 1]))
    a = s.pair(a, 0.3, 0)
    if opset == 10:  # Pad and Resize had other inputs
        return _without_pad_and_resize(s, a)
    p = s.node("Pad", a, s.constant(np.array([0, 0, 1, 0, 0, 0, 1, 0])), s.constant(np.float32(0)))
    p = s.pair(p, 0.3, 0)
    halves = {"num_outputs": 2} if opset >= 18 else {}
    b, c = s.node("Split", p, outputs=2, axis=1, **halves)
    d = s.pair(s.node("Add", s.pair(b, 0.3, 0), s.pair(c, 0.3, 0)), 0.4)
    e = s.pair(s.node("MaxPool", d, kernel_shape=[2, 2], strides=[2, 2]), 0.4)
    f = s.pair(s.node("AveragePool", d, kernel_shape=[2, 2], strides=[2, 2]), 0.4)
    g = s.pair(s.node("Concat", e, f, axis=1), 0.4)
    region = "" if opset >= 13 else s.constant(np.zeros(0, np.float32))
    h = s.node(
        "Resize", g, region, s.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest",
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


def _without_pad_and_resize(s: Sketch, a: str) -> bytes:
    e = s.pair(s.node("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 0.3, 0)
    f = s.pair(s.node("AveragePool", a, kernel_shape=[2, 2], strides=[2, 2]), 0.3, 0)
    g = s.pair(s.node("Concat", e, f, axis=1), 0.3, 0)
    k = s.node("Flatten", s.pair(s.node("GlobalAveragePool", g), 0.1))
    m = s.pair(s.node("MatMul", s.pair(k, 0.1), s.filter(16, 5)), 4.0)
    y = s.pair(s.node("Softmax", m, axis=1), 1 / 256, 0)
    return bytes(s.model(SHAPE, m, y, opset=10).SerializeToString())


def feed() -> Array:
    return seeded("opsets").normal(size=SHAPE).astype(np.float32) * np.float32(3)


@cache
def outputs(opset: int, profile: str, implementation: Implementation) -> tuple[bytes, ...]:
    program = compile_graph(lower_qdq(read_onnx(model(opset))), profile, 1, implementation)
    return tuple(value.tobytes() for value in program.run({"x": feed()}).outputs)


@pytest.fixture(scope="module")
def runtime(runtimes: Runtimes) -> Delegate:
    return runtimes("ort")


@pytest.mark.parametrize("opset", OPSETS[1:])
def test_every_operator_set_gives_the_same_bits(runtime: Delegate, opset: int) -> None:
    """As the oldest one with these ops, from both implementations, and as ONNX Runtime."""
    graph = read_onnx(model(opset))
    assert {layer.version for layer in graph.layers} == {opset}
    lowered = [layer.op for layer in lower_qdq(graph).layers]
    assert "QLinearConv" in lowered
    here = runtime.profile
    assert outputs(opset, here, "kernels") == outputs(opset, here, "spec")
    if opset > 10:
        assert lowered == [layer.op for layer in lower_qdq(read_onnx(model(11))).layers]
        assert outputs(opset, here, "kernels") == outputs(11, here, "kernels")
    if opset > LAST_THAT_RUNS:
        with pytest.raises(DelegateError, match="Could not find an implementation for QuantizeLinear"):
            runtime.run(model(opset), {"x": feed()}, tensors="outputs")
        return
    found = runtime.run(model(opset), {"x": feed()}, tensors="outputs").outputs
    assert outputs(opset, here, "kernels") == tuple(values.tobytes() for values in found)
    assert len(np.unique(found[0])) > 3


def test_operator_sets_are_those_documented() -> None:
    assert (OPSETS[0], OPSETS[-1]) == (9, 28)


def test_the_installed_onnx_package_is_not_past_what_is_known() -> None:
    """When this fails: read the new schemas, extend CHANGES and OPSETS, the new fields and IR_VERSIONS."""
    assert onnx.defs.onnx_opset_version() <= OPSETS[-1]
    assert IR_VERSIONS[-1] >= onnx.IR_VERSION


def test_every_change_of_an_op_is_in_the_table() -> None:
    """What the schemas of the installed package say: other inputs, attributes or defaults."""
    schemas: dict[str, list[object]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in RULES and schema.since_version <= OPSETS[-1]:
            schemas.setdefault(schema.name, []).append(schema)
    found = {}
    for name, versions in schemas.items():
        ordered = sorted(versions, key=lambda schema: schema.since_version)
        for before, after in itertools.pairwise(ordered):
            if after.since_version > OPSETS[0] and interface(before) != interface(after):
                found.setdefault(name, set()).add(after.since_version)
    known = {name: set(changes) for name, changes in CHANGES.items()}
    assert found == {name: versions & set(OPSETS) for name, versions in known.items()}


def interface(schema: Any) -> tuple[object, ...]:
    """What a node can say: attributes with their defaults, and inputs that may be left out."""
    attributes = {(name, str(a.default_value), a.required) for name, a in schema.attributes.items()}
    return attributes, [(i.name, i.option) for i in schema.inputs], len(schema.outputs)


OLD = {
    "Clip": {"min": 0.0, "max": 6.0},
    "Pad": {"pads": [0, 0, 1, 1, 0, 0, 1, 1]},
    "Softmax": {"axis": 1},
}


@pytest.mark.parametrize("op", [*OLD])
def test_an_older_meaning_nobody_wrote_is_refused_for_that_op(op: str) -> None:
    """The file is read, since it declares the shape; the op is refused, by name, when it is to run."""
    s = Sketch()
    content = s.model((1, 3, 4, 4), s.node(op, "x", **OLD[op]), opset=10).SerializeToString()
    graph = read_onnx(content)
    with pytest.raises(UnsupportedOp, match=rf"{op}.*version"):
        compile_graph(graph, "ort-1.31", 1)


def test_axes_and_sizes_that_were_attributes(runtime: Delegate) -> None:
    """Squeeze, Unsqueeze, Split and ReduceSum before version 13."""
    s = Sketch()
    a, b = s.node("Split", "x", outputs=2, axis=1, split=[1, 2])
    c = s.node("Squeeze", a, axes=[1])
    d = s.node("Unsqueeze", c, axes=[1, 3])
    content = s.model((1, 3, 12, 10), b, d, s.node("Softmax", c, axis=2), opset=12).SerializeToString()
    graph = read_onnx(content)
    assert [graph.tensors[i].shape for i in graph.outputs[:2]] == [(1, 2, 12, 10), (1, 1, 12, 1, 10)]
    found = runtime.run(content, {"x": feed()}, tensors="outputs").outputs[:2]
    for implementation in ("kernels", "spec"):
        own = compile_graph(graph, "ort-1.31", 1, implementation).run({"x": feed()}).outputs[:2]
        assert [values.tobytes() for values in own] == [values.tobytes() for values in found]


def test_a_file_newer_than_the_installed_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older onnx package would drop fields it does not know without a word."""
    model_ = onnx.load_from_string(model(13))
    model_.ir_version = 14
    monkeypatch.setattr(onnx, "IR_VERSION", 13)
    with pytest.raises(UnsupportedOp, match="pip install -U onnx"):
        read_onnx(model_.SerializeToString())
    monkeypatch.undo()
    model_.ir_version = 15
    with pytest.raises(UnsupportedOp, match="3 to 14"):
        read_onnx(model_.SerializeToString())


def test_what_the_onnx_package_writes_by_default_is_read() -> None:
    """No version is asked for: those of the installed package."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    read = read_onnx(helper.make_model(graph).SerializeToString())
    assert read.layers[0].version == onnx.defs.onnx_opset_version()


def test_operator_set_9_with_the_runtimes_own_pairs(runtime: Delegate) -> None:
    """It has no QuantizeLinear yet; ONNX Runtime's own does."""
    microsoft, constants = "com.microsoft:", {"s": np.float32(0.05), "z": np.array(120, np.uint8)}
    nodes = [
        node(f"{microsoft}QuantizeLinear", "xsz", "q"),
        node(f"{microsoft}DequantizeLinear", "qsz", "d"),
        node("MaxPool", ["d"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        node(f"{microsoft}QuantizeLinear", "psz", "r"),
        node(f"{microsoft}DequantizeLinear", "rsz"),
    ]
    content = onnx_model(nodes, {"x": feed()}, {"y": "float32"}, constants, 9)
    graph = read_onnx(content)
    assert {layer.version for layer in graph.layers} == {1, 9}
    (expected,) = runtime.run(content, {"x": feed()}, tensors="outputs").outputs
    (found,) = compile_graph(lower_qdq(graph), runtime.profile, 1).run({"x": feed()}).outputs
    assert found.tobytes() == expected.tobytes()
