"""Every ONNX op's definition and kernel against ONNX Runtime, one node at a time, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from delegates import Delegate, delegate_named
from export.onnx import read_onnx
from refimpl.engine import Implementation, compile_graph
from refimpl.graph import Array
from tests.cases import onnx_float_ops, onnx_ops
from tests.cases.onnx_models import node, onnx_model
from tests.cases.onnx_ops import OnnxCase
from tests.cases.quantized import seeded

CASES = onnx_ops.cases() + onnx_float_ops.cases()
CPU = Path("/proc/cpuinfo")


@pytest.fixture(scope="module")
def runtime() -> Iterator[Delegate]:
    with delegate_named("ort", time_limit=60.0) as delegate:
        probe = delegate.probe()
        if not probe.available:
            pytest.skip(f"{probe.reason}; {probe.remedy}")
        flags = CPU.read_text(encoding="utf-8") if CPU.is_file() else "vnni"
        if "vnni" not in flags and "asimddp" not in flags:
            pytest.skip("this CPU has no VNNI: u8s8 sums saturate, which is profile ort-1.31-avx2")
        yield delegate


def outputs(case: OnnxCase, implementation: Implementation) -> tuple[Array, ...]:
    program = compile_graph(read_onnx(case.model), "ort-1.31", 1, implementation)
    return program.run(case.feeds).outputs


def same(left: Array, right: Array) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_spec_and_kernel_equal_the_runtime(runtime: Delegate, case: OnnxCase) -> None:
    (expected,) = runtime.run(case.model, case.feeds, tensors="outputs").outputs
    for implementation in ("spec", "kernels"):
        (found,) = outputs(case, implementation)  # type: ignore[arg-type]
        assert same(found, expected), f"{case.edge}: {np.count_nonzero(found != expected)} differ"


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_transposed_convolution_is_exact_on_any_number_of_threads(runtime: Delegate, threads: int) -> None:
    """The most channels that stay in one piece, and pixels that threads divide unevenly."""
    draw = seeded("threads")
    x, w = (draw.normal(size=shape).astype(np.float32) for shape in ((1, 128, 17, 33), (128, 24, 4, 4)))
    nodes = [node("ConvTranspose", ["x", "w"], strides=[2, 2], pads=[1, 1, 1, 1])]
    content = onnx_model(nodes, {"x": x}, {"y": "float32"}, {"w": w})
    (expected,) = runtime.run(content, {"x": x}, tensors="outputs", threads=threads).outputs
    (found,) = compile_graph(read_onnx(content), "ort-1.31").run({"x": x}).outputs
    assert same(found, expected)


def test_cases_meet_both_ends_of_the_range() -> None:
    """Otherwise saturation is not tested at all."""
    for op in ("qlinear_conv_plain_uint8_int8", "ties_int8_3", "QLinearAdd_int8_0", "QLinearMul_uint8_3"):
        case = next(case for case in CASES if case.name.startswith(op))
        (values,) = outputs(case, "spec")
        limits = np.iinfo(values.dtype)
        assert (values.min(), values.max()) == (limits.min, limits.max), case.name
