"""ONNX Runtime's arithmetic on 64-bit Arm, by hand: sums in integers, products fused with what is added."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

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


SEEN = {
    "Reciprocal": (
        (0xC1C770A4, 0xBD244CD0), (0xC189AE14, 0xBD6E004E), (0x402D70A4, 0x3EBCEE0C),
        (0x41C770A4, 0x3D244CD0), (0x80000000, 0xFF800000), (0x7F800000, 0x00000000),
        (0x000116C2, 0xFF800000), (0x0020AAC8, 0x7F7AC5A7), (0x3FF30866, 0x3F06D45C),
        (0xBFA4C179, 0xBF46E36B),
    ),
    "HardSigmoid": ((0xC01F5C29, 0x3B031247), (0xBFB70A3D, 0x3E5B22D1), (0x401EB852, 0x3F7EF9DB)),
    "HardSwish": ((0xC03F5C29, 0xBBA34AD1), (0xC01147AE, 0xBE8D67E6), (0x3FFEB852, 0x3FD3D796)),
}  # fmt: skip
"""Bits given and found on the emulated processor. Of Reciprocal the last two lie behind vectors of four,
where it divides."""


@pytest.mark.parametrize("op", SEEN)
def test_values_seen_on_arm(op: str) -> None:
    """The first three of each are other ones on x86-64."""
    given, expected = np.array(SEEN[op], np.uint32).T
    x = np.ascontiguousarray(given).view(np.float32)
    content = onnx_model([node(op, "x")], {"x": x}, {"y": "float32"}, {})
    found, other = (only(content, {"x": x}, profile).view(np.uint32) for profile in (ARM, X86))
    assert found.tolist() == expected.tolist()
    assert (found != other)[:3].all()


@pytest.mark.parametrize(("place", "zero_point"), [(1, 255), (4, 85)])
def test_a_range_is_lost_in_a_vector_of_four_only(place: int, zero_point: int) -> None:
    """From -1 to 2 otherwise: what is no number is passed over behind the last vector."""
    x = np.array([-1, 0, 2, 1, 0], np.float32)
    x[place] = np.nan
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])]
    content = onnx_model(nodes, {"x": x}, {"y": "uint8", "s": "float32", "z": "uint8"}, {})
    outputs = compile_graph(read_onnx(content), ARM, 1, "spec").run({"x": x}).outputs
    assert outputs[2] == zero_point
    assert np.isnan(outputs[1]) == (zero_point == 255)


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
