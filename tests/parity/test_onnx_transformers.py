"""Networks as ONNX Runtime's tool quantizes them, dynamically, to 8 and to 16 bits: every layer is judged."""

from __future__ import annotations

import pytest

from karat24.delegates import Delegate
from karat24.export.onnx import read_onnx
from karat24.golden.report import Mode
from karat24.golden.verify import verify
from tests.cases.onnx_transformers import NETWORKS, Way, feed, quantized
from tests.support.runtimes import Runtimes

pytest.importorskip("onnxruntime")

WAYS: tuple[Way, ...] = ("dynamic", "dynamic per channel", "8 bits", "16 bits")

IN_FLOAT = {
    "Conv", "Erf", "Gemm", "LayerNormalization", "MatMul", "Softmax", "com.microsoft:FusedConv",
    "com.microsoft:FusedGemm", "com.microsoft:FusedMatMul", "com.microsoft:Gelu", "com.microsoft:MatMulNBits",
    "com.microsoft:SkipLayerNormalization",
}  # fmt: skip
"""Layers that may be judged within a bound; all others must be exact."""


@pytest.fixture(scope="module")
def runtime(runtimes: Runtimes) -> Delegate:
    return runtimes("ort")


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_judged(runtime: Delegate, name: str, way: Way, mode: Mode) -> None:
    network = NETWORKS[name]()
    content = quantized(network, way)
    report = verify(content, read_onnx(content), runtime, [{"x": feed(network)}], mode=mode, threads=1)
    for layer in report.layers:
        allowed = ("bit_exact", "within_bound") if layer.op in IN_FLOAT else ("bit_exact",)
        assert layer.verdict in allowed, f"{layer.op} {layer.name}: {layer.verdict}, {layer.reason}"
    assert {output.verdict for output in report.outputs} <= {"bit_exact", "within_bound"}


DYNAMIC = {"DynamicQuantizeLinear", "com.microsoft:DynamicQuantizeMatMul"}


@pytest.mark.parametrize("name", ["block", "convolutions"])
def test_the_dynamic_forms_are_met(runtime: Delegate, name: str) -> None:
    """Otherwise the tests above prove nothing of them."""
    content = quantized(NETWORKS[name](), "dynamic")
    executed = runtime.executed_graph(content, read_onnx(content)).graph
    met = {layer.op for layer in executed.layers}
    wanted = {"ConvInteger"} if name == "convolutions" else {"com.microsoft:MatMulIntegerToFloat"}
    assert met >= DYNAMIC | wanted
