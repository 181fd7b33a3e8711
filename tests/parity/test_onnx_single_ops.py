"""Every ONNX op's definition and kernel against ONNX Runtime, one node at a time, bit for bit.

On this machine's processor, and on an emulated one whose sums of u8s8 products saturate.
"""

from __future__ import annotations

import numpy as np
import pytest

from karat24.delegates import Delegate
from karat24.export.onnx import read_onnx
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from karat24.refimpl.step import Implementation
from tests.cases import onnx_dynamic, onnx_float_ops, onnx_ops
from tests.cases.onnx_models import node, onnx_model
from tests.cases.onnx_ops import OnnxCase
from tests.cases.quantized import seeded
from tests.support.runtimes import Runtimes, available

CASES = onnx_ops.cases() + onnx_float_ops.cases() + onnx_dynamic.cases()


@pytest.fixture(scope="module", params=["this processor", "emulated AVX2"])
def runtime(request: pytest.FixtureRequest, runtimes: Runtimes, emulated_runtimes: Runtimes) -> Delegate:
    return available(runtimes("ort")) if request.param == "this processor" else emulated_runtimes("ort")


def outputs(case: OnnxCase, profile: str, implementation: Implementation) -> tuple[Array, ...]:
    program = compile_graph(read_onnx(case.model), profile, 1, implementation)
    return program.run(case.feeds).outputs


def same(left: Array, right: Array) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_spec_and_kernel_equal_the_runtime(runtime: Delegate, case: OnnxCase) -> None:
    expected = runtime.run(case.model, case.feeds, tensors="outputs").outputs
    for implementation in ("spec", "kernels"):
        computed = outputs(case, runtime.profile, implementation)  # type: ignore[arg-type]
        for found, value in zip(computed, expected, strict=True):
            assert same(found, value), f"{case.edge}: {np.count_nonzero(found != value)} differ"


def test_precise_sums_saturate_in_one_op_only_without_vnni(emulated_runtimes: Runtimes) -> None:
    """``session.x64quantprecision`` makes uint8 of int8 factors, but not of QLinearMatMul's."""
    kinds = ("uint8_int8", "dynamic_matmul_int8")
    cases = [case for case in CASES if any(kind in case.name for kind in kinds)]
    precise = emulated_runtimes("ort-x64quantprecision")
    assert precise.profile == "ort-1.31-avx2-precise"
    for case in cases:
        (expected,) = precise.run(case.model, case.feeds, tensors="outputs").outputs
        (found,) = outputs(case, precise.profile, "kernels")
        assert same(found, expected), f"{case}: {np.count_nonzero(found != expected)} differ"


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_transposed_convolution_is_exact_on_any_number_of_threads(runtime: Delegate, threads: int) -> None:
    """The most channels that stay in one piece, and pixels that threads divide unevenly."""
    draw = seeded("threads")
    x, w = (draw.normal(size=shape).astype(np.float32) for shape in ((1, 128, 17, 33), (128, 24, 4, 4)))
    nodes = [node("ConvTranspose", ["x", "w"], strides=[2, 2], pads=[1, 1, 1, 1])]
    content = onnx_model(nodes, {"x": x}, {"y": "float32"}, {"w": w})
    (expected,) = runtime.run(content, {"x": x}, tensors="outputs", threads=threads).outputs
    (found,) = compile_graph(read_onnx(content), runtime.profile).run({"x": x}).outputs
    assert same(found, expected)


def test_cases_meet_both_ends_of_the_range() -> None:
    """Otherwise saturation is not tested at all."""
    for op in ("qlinear_conv_plain_uint8_int8", "ties_int8_3", "QLinearAdd_int8_0", "QLinearMul_uint8_3"):
        case = next(case for case in CASES if case.name.startswith(op))
        (values,) = outputs(case, "ort-1.31", "spec")
        limits = np.iinfo(values.dtype)
        assert (values.min(), values.max()) == (limits.min, limits.max), case.name


SATURATING = (
    "qlinear_conv_padded_uint8_int8", "qlinear_matmul_uint8_int8_4x8", "matmul_integer_uint8_int8_4x8",
    "matmul_to_float_uint8_int8_4x8", "qgemm_uint8_int8", "dynamic_matmul_int8_5x33",
    "computed_matmul_uint8_int8", "computed_to_float_uint8_int8",
)  # fmt: skip


@pytest.mark.parametrize("start", SATURATING)
def test_cases_tell_saturating_pairs_from_exact_sums(start: str) -> None:
    """Otherwise the emulated processor proves nothing; a convolution in integers is exact on both."""
    case = next(case for case in CASES if case.name.startswith(start))
    (exact,), (saturating,) = (outputs(case, name, "spec") for name in ("ort-1.31", "ort-1.31-avx2"))
    assert np.count_nonzero(exact != saturating) > 0
