"""Exact fused multiply-add, saturating pairs, and which profile describes which format."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from karat24.delegates import conformance_models as models
from karat24.export.onnx import read_onnx
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UsageError
from karat24.refimpl.profiles import PROFILES, profile_for
from karat24.refimpl.spec.onnx.arithmetic import sum_saturating_pairs
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.step import Implementation
from tests.cases.onnx_models import node, onnx_model, qdq_pair
from tests.cases.onnx_ops import convolutions


def rounded(exact: Fraction) -> np.float32:
    """The float32 nearest to ``exact``, ties to even, found by comparing neighbours."""
    near = np.float32(float(exact))
    candidates = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    distances = [abs(Fraction(float(c)) - exact) for c in candidates]
    best = min(distances)
    closest = [c for c, d in zip(candidates, distances, strict=True) if d == best]
    return min(closest, key=lambda c: int(c.view(np.uint32)) & 1)


def test_a_sum_that_float64_would_round_twice() -> None:
    """1 + 2^-24 is a float32 tie; what lies 2^-60 beside it vanishes in float64 and must still decide."""
    one, half_step, sliver = np.float32(1), np.float32(2.0**-24), np.float32(2.0**-60)
    a, c = np.float32(1 + 2.0**-12), np.float32(2.0**-60)
    product = Fraction(float(a)) * Fraction(float(a)) + Fraction(float(c))
    for left, right, addend in (
        (a, a, c),
        (a, a, -c),
        (np.float32(2.0**-30), np.float32(2.0**-30), np.float32(1 + 2.0**-23)),
        (sliver, one, half_step),
    ):
        exact = Fraction(float(left)) * Fraction(float(right)) + Fraction(float(addend))
        found = fused_multiply_add(np.array([left]), np.array([right]), np.array([addend]))[0]
        assert found == rounded(exact)
    naive = np.float32(np.float64(a) * np.float64(a) + np.float64(c))
    assert rounded(product) != naive, "this case must tell double rounding apart"


def test_fused_multiply_add_is_exact_on_many() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=2000).astype(np.float32) for _ in range(2))
    c = (-a * b * (1 + rng.normal(size=2000) * 1e-7)).astype(np.float32)  # cancels: every bit counts
    found = fused_multiply_add(a, b, c)
    for i in range(a.size):
        assert found[i] == rounded(Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i])))


def test_pairs_of_products_saturate_at_16_bits() -> None:
    """255 * 127 * 2 = 64,770 becomes 32,767; a pair of opposite signs cancels before anything saturates."""
    left = np.array([[255, 255, 255, 255, 255]])
    assert sum_saturating_pairs(left, np.array([127, 127, 127, -127, 127])) == [32767 + 0 + 255 * 127]
    assert sum_saturating_pairs(left, np.array([-128, -128, 0, 0, -128])) == [-32768 - 255 * 128]


def test_avx2_saturates_only_uint8_by_int8() -> None:
    differing = set()
    for case in convolutions():
        if "qlinear_conv" in case.name and "padded" in case.name:
            graph = read_onnx(case.model)
            exact, avx2 = (
                compile_graph(graph, name, 1).run(case.feeds).outputs[0]
                for name in ("ort-1.31", "ort-1.31-avx2")
            )
            if (exact != avx2).any():
                differing.add("_".join(case.name.split("_")[3:5]))
    assert differing == {"uint8_int8"}


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_of_another_format_is_refused(name: str) -> None:
    graphs = {"onnx": read_onnx(qdq_pair()), "tflite": models.chain()}
    profile = PROFILES[name]
    other = graphs["onnx" if profile.format == "tflite" else "tflite"]
    assert profile_for(graphs[profile.format], name) is profile
    with pytest.raises(UsageError, match=rf"profile {name} describes runtimes of \.{profile.format} files"):
        compile_graph(other, name)


def test_the_canonical_profile_depends_on_the_format() -> None:
    assert compile_graph(read_onnx(qdq_pair())).profile.name == "ort-1.31"
    assert compile_graph(models.chain()).profile.name == "litert-2.3-ref"


@pytest.mark.parametrize("implementation", ["spec", "kernels"])
def test_single_values_without_a_dimension(implementation: Implementation) -> None:
    """A feed of shape () stays one: NumPy's own way to make arrays contiguous gives it a dimension."""
    scales = {f"s{k}": np.array(0.5, np.float32) for k in "abc"}
    zeros = {f"z{k}": np.array(3, np.uint8) for k in "abc"}
    values = {name: np.array(number, np.uint8) for name, number in (("a", 10), ("b", 20))}
    nodes = [node("com.microsoft:QLinearAdd", ["a", "sa", "za", "b", "sb", "zb", "sc", "zc"])]
    graph = read_onnx(onnx_model(nodes, values, {"y": "uint8"}, {**scales, **zeros}))
    (result,) = compile_graph(graph, "ort-1.31", 1, implementation).run(values).outputs
    assert (result.shape, int(result)) == ((), 27)
