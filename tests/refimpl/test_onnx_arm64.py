"""ONNX Runtime's arithmetic on 64-bit Arm, by hand: sums in integers, products fused with what is added."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.export.onnx import read_onnx
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from tests.cases.onnx_arm64 import SCALES, pairs
from tests.cases.onnx_models import node, onnx_model
from tests.cases.onnx_ops import binary

ARM, X86 = "ort-1.31-arm64", "ort-1.31"


def added(a: list[int], scales: tuple[float, ...], profile: str) -> list[int]:
    """QLinearAdd of int8 values and zeros."""
    left = np.array(a, np.int8)
    case = binary("by hand", "QLinearAdd", left, np.zeros_like(left), scales, "")
    (found,) = compile_graph(read_onnx(case.model), profile, 1, "spec").run(case.feeds).outputs
    return [int(value) for value in found]


def test_halves_are_rounded_away_from_zero() -> None:
    """Before the zero point is added; x86-64 rounds them to the even result. Zero points are from -128."""
    halves = [1, 3, 5, -1, -3, -5]
    assert added(halves, (1.0, 128, 1.0, 128, 2.0, 128), ARM) == [1, 2, 3, -1, -2, -3]
    assert added(halves, (1.0, 128, 1.0, 128, 2.0, 128), X86) == [0, 2, 2, 0, -2, -2]
    assert added(halves, (1.0, 128, 1.0, 128, 2.0, 131), ARM) == [4, 5, 6, 2, 1, 0]


def test_ratios_have_22_bits() -> None:
    """1 + 2^-23 becomes 1: 2^21 of 22 bits. The float32 sum would lie beyond the half of a step."""
    scales = (1 + 2.0**-23, 128, 1.0, 128, 2.0, 128)
    assert added([1, -1], scales, ARM) == [1, -1]
    assert added([1, -1], scales, X86) == [1, -1]
    below = (1 - 2.0**-24, 128, 1.0, 128, 2.0, 128)  # a half less something, which 22 bits do not hold
    assert added([1, -1], below, ARM) == [1, -1]
    assert added([1, -1], below, X86) == [0, 0]


@pytest.mark.parametrize("edge", list(SCALES)[5:])
def test_scales_without_such_integers_are_added_in_float32(edge: str) -> None:
    """A half then goes to the even result: the zero point is added before rounding."""
    s_a, z_a, s_b, z_b, s_c, z_c = SCALES[edge]
    del z_a, z_b, z_c
    steps = [*range(-128, 128)]
    found = added(steps, (s_a, 128, s_b, 128, s_c, 128), ARM)
    exact = np.array(steps) * (np.float64(np.float32(s_a)) / np.float64(np.float32(s_c)))
    expected = np.rint(np.clip(exact, -128, 127))
    surely = np.abs(np.abs(exact - np.rint(exact)) - 0.5) > 1e-4
    assert np.array_equal(np.array(found)[surely], expected[surely])


def only(content: bytes, feeds: dict[str, Array], profile: str) -> Array:
    return compile_graph(read_onnx(content), profile, 1, "spec").run(feeds).outputs[0]


def test_a_product_is_not_rounded_before_the_bias() -> None:
    """``3 * f32(1/3) - 1`` is 2^-25 exactly, and 0 where the product is rounded first."""
    a = np.array([[3]], np.uint8)
    third = np.asarray(np.float32(1) / np.float32(3))
    constants = {
        "b": np.array([[1]], np.int8), "sa": third, "sb": np.asarray(np.float32(1)),
        "za": np.array(0, np.uint8), "zb": np.array(0, np.int8), "c": np.array([-1], np.float32),
    }  # fmt: skip
    nodes = [node("com.microsoft:MatMulIntegerToFloat", ["a", "b", "sa", "sb", "za", "zb", "c"])]
    content = onnx_model(nodes, {"a": a}, {"y": "float32"}, constants)
    assert only(content, {"a": a}, ARM).item() == 2.0**-25
    assert only(content, {"a": a}, X86).item() == 0


def test_the_kernel_of_products_equals_the_spec() -> None:
    """All pairs at all scales; fused and not, they differ somewhere."""
    differing = 0
    for case in pairs():
        if "QLinearMul" in case.name:
            graph = read_onnx(case.model)
            spec, kernel, unfused = (
                compile_graph(graph, profile, 1, implementation).run(case.feeds).outputs[0]
                for profile, implementation in ((ARM, "spec"), (ARM, "kernels"), (X86, "spec"))
            )
            assert kernel.tobytes() == spec.tobytes(), str(case)
            differing += int(np.count_nonzero(spec != unfused))
    assert differing > 0
