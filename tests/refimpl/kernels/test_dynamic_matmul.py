"""Products of dynamically quantized matrices against their specs: zero points, parts, NaN, int32."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.export.onnx import read_onnx
from karat24.refimpl.contract import Target
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.kernels.onnx import dynamic_matmul
from karat24.refimpl.spec.onnx.dynamic_quantize_linear import quantized_to_its_range
from karat24.refimpl.step import prepare_step
from tests.cases import onnx_dynamic, onnx_ops
from tests.cases.onnx_models import node, onnx_model
from tests.cases.onnx_ops import OnnxCase
from tests.cases.quantized import seeded

OPS = ("MatMulInteger", "com.microsoft:MatMulIntegerToFloat", "com.microsoft:DynamicQuantizeMatMul")
CASES = [
    case
    for case in (*onnx_ops.matrices(), *onnx_dynamic.products())
    if read_onnx(case.model).layers[0].op in OPS
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_equals_spec(case: OnnxCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are taken three at a time, the last time fewer."""
    monkeypatch.setattr(dynamic_matmul, "COLUMNS", 3)
    graph = read_onnx(case.model)
    kernel, spec = (compile_graph(graph, "ort-1.31", 1, way) for way in ("kernels", "spec"))
    assert not kernel.steps[0].by_spec
    found, expected = (program.run(case.feeds, accumulators=True) for program in (kernel, spec))
    assert found.outputs[0].tobytes() == expected.outputs[0].tobytes()
    for index, values in expected.trace.accumulators.items():
        np.testing.assert_array_equal(found.trace.accumulators[index], values)


def test_sums_beyond_int32_wrap() -> None:
    a, b = np.full((1, 33100), 255, np.uint8), np.full((33100, 1), 255, np.uint8)
    graph = read_onnx(onnx_model([node("MatMulInteger", ["a", "b"])], {"a": a}, {"y": "int32"}, {"b": b}))
    for way in ("kernels", "spec"):
        (found,) = compile_graph(graph, "ort-1.31", 1, way).run([a]).outputs
        assert found[0, 0] == 33100 * 255 * 255 - 2**32


def test_pairs_that_saturate_stay_with_the_spec() -> None:
    case = next(case for case in CASES if case.name.startswith("matmul_integer_uint8_int8"))
    graph = read_onnx(case.model)
    step = prepare_step(graph.view(0), compile_graph(graph, "ort-1.31-avx2").profile, Target())
    assert step.by_spec


@pytest.mark.parametrize("size", [1, 7, 8, 31, 32, 45, 101])
def test_values_that_are_no_numbers(size: int) -> None:
    """Two ways to say what is forgotten: every position once, many at once, infinity beside them."""
    draw = seeded(f"nan {size}").normal(size=size).astype(np.float32)
    rows = np.where(np.eye(size, dtype=bool), np.float32(np.nan), draw)
    many = np.where(seeded(f"many {size}").random((20, size)) < 0.2, np.float32(np.nan), draw)
    many[10:, size // 2] = np.inf
    for values in (*rows, *many, np.full(size, np.nan, np.float32), draw):
        stored, parameters = quantized_to_its_range(values)
        found, scale, zero = dynamic_matmul.to_bytes(values)
        np.testing.assert_array_equal(found, stored)
        np.testing.assert_array_equal(scale, parameters.scale[0])
        assert zero == parameters.zero_point[0]
