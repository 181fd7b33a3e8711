"""A pool whose model ONNX Runtime does not load: named, and never taken for one that was compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from karat24.delegates import Delegate, delegate_named
from karat24.export import graph_under
from karat24.export.onnx import read_onnx
from karat24.golden.report import Report
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import DelegateError, RefusedByRuntime, UnsupportedOp
from karat24.refimpl.profiles import PROFILES, profile_named
from tests.cases.onnx_models import node, onnx_model

pytest.importorskip("onnxruntime")

IMAGE = np.random.default_rng(3).integers(0, 256, (1, 2, 9, 9)).astype(np.uint8)
CONSTANTS = {
    "s": np.float32(0.1), "z": np.array(3, np.uint8), "t": np.float32(0.07), "u": np.array(5, np.uint8),
}  # fmt: skip
ORT = [profile for name, profile in PROFILES.items() if name.startswith("ort-")]


def integer_op(**dilated: list[int]) -> bytes:
    """QLinearAveragePool, as it stands in a file that was optimized before."""
    nodes = [
        node("com.microsoft:QLinearAveragePool", ["x", "s", "z", "t", "u"], kernel_shape=[3, 3], **dilated)
    ]
    return onnx_model(nodes, {"x": IMAGE}, {"y": "uint8"}, CONSTANTS)


def between_integers(**dilated: list[int]) -> bytes:
    """AveragePool of operator set 21, which has dilations, between DequantizeLinear and QuantizeLinear."""
    nodes = [
        node("DequantizeLinear", ["x", "s", "z"], "real"),
        node("AveragePool", ["real"], "mean", kernel_shape=[3, 3], **dilated),
        node("QuantizeLinear", ["mean", "t", "u"]),
    ]
    return onnx_model(nodes, {"x": IMAGE}, {"y": "uint8"}, CONSTANTS)


KINDS = {"integer op": integer_op, "between integers": between_integers}
kinds = pytest.mark.parametrize("kind", KINDS)
values = pytest.mark.parametrize("dilations", [[1, 1], [2, 2]], ids=str)


@pytest.fixture(scope="module")
def ort() -> Iterator[Delegate]:
    with delegate_named("ort", time_limit=60.0) as delegate:
        yield delegate


def judged(content: bytes, delegate: Delegate) -> Report:
    return verify(content, read_onnx(content), delegate, [{"x": IMAGE}], threads=1, implementation="spec")


@kinds
@values
def test_the_runtime_loads_no_pool_with_dilations(kind: str, dilations: list[int], ort: Delegate) -> None:
    """Dilations of 1, which change nothing, are refused like others; the same pool without any runs."""
    with pytest.raises(DelegateError, match="Unrecognized attribute: dilations"):
        ort.run(KINDS[kind](dilations=dilations), {"x": IMAGE})
    assert judged(KINDS[kind](), ort).exit_code() == 0


@kinds
@values
def test_its_profiles_say_so(kind: str, dilations: list[int]) -> None:
    """On every processor; a runtime of which nothing is known is not said to refuse the layer."""
    graph = read_onnx(KINDS[kind](dilations=dilations))
    for profile in ORT:
        with pytest.raises(RefusedByRuntime, match="has no attribute dilations"):
            compile_graph(graph_under(graph, profile), profile, 1, "spec")
    (pool,) = graph_under(graph, profile_named("tensorrt")).views()
    assert not profile_named("tensorrt").refusal(pool)


@kinds
@values
def test_the_verdict_is_not_compared(kind: str, dilations: list[int], ort: Delegate) -> None:
    report = judged(KINDS[kind](dilations=dilations), ort)
    (pool,) = report.layers
    assert (pool.op, pool.verdict) == ("com.microsoft:QLinearAveragePool", "not_compared")
    assert "has no attribute dilations" in pool.reason
    assert report.exit_code() == 3


def test_unoptimized_it_is_a_pool_of_floats_which_runs() -> None:
    """Two taps apart: a lane without optimizations computes what the file says."""
    with delegate_named("ort-disable-all", time_limit=60.0) as delegate:
        report = judged(between_integers(dilations=[2, 2]), delegate)
    verdicts = {layer.op: layer.verdict for layer in report.layers}
    assert verdicts == {
        "DequantizeLinear": "bit_exact", "AveragePool": "within_bound", "QuantizeLinear": "bit_exact",
    }  # fmt: skip
    assert report.exit_code() == 0


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_a_dilated_pool_padded_by_auto_pad_is_smaller_than_defined(op: str, ort: Delegate) -> None:
    """The runtime pads as if taps were neighbours: 7 of 9 rows are left. With given pads it is judged."""
    values = IMAGE.astype(np.float32)
    outputs, window = {"y": "float32"}, {"kernel_shape": [3, 3], "dilations": [2, 2]}
    content = onnx_model(
        [node(op, "x", auto_pad="SAME_UPPER", **window)], {"x": values}, {"y": "float32"}, {}
    )
    graph = read_onnx(content)
    assert graph.view(0).output().shape == (1, 2, 9, 9)
    with pytest.raises(UnsupportedOp, match="as if there were no dilations"):
        compile_graph(graph, "ort-1.31", 1, "spec")
    (layer,) = verify(content, graph, ort, [{"x": values}], threads=1, implementation="spec").layers
    assert layer.verdict == "not_compared"
    written = onnx_model([node(op, "x", pads=[2] * 4, **window)], {"x": values}, outputs, {})
    report = verify(written, read_onnx(written), ort, [{"x": values}], threads=1, implementation="spec")
    assert report.exit_code() == 0
