"""The wheels of LiteRT and ONNX Runtime for 64-bit Arm, emulated, against the profiles of them."""

from __future__ import annotations

from itertools import combinations

import pytest

from karat24.delegates import delegate_named
from karat24.delegates.onnx_lanes import ONNX_LANES
from karat24.delegates.onnxruntime import OnnxDelegate
from karat24.delegates.tflite import LITERT_PYTHON
from karat24.export.onnx import read_onnx
from karat24.export.tflite import write_tflite
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import profile_named
from tests.cases import hybrid, hybrid_products, onnx_arm64, onnx_ops, small_products
from tests.cases.case import Case
from tests.cases.onnx_ops import OnnxCase
from tests.support.arm_runtime import arm_python

_SUMS = ("qlinear_conv", "qlinear_matmul", "matmul_integer", "qgemm")
_OTHERS = ("QLinearAdd", "QLinearMul", "matmul_to_float", "resize_linear")
"""Ops that ONNX Runtime's kernels for Arm round otherwise than those for x86-64."""


def spec(case: Case, profile: str) -> bytes:
    view = case.graph.view(0)
    fed = dict(zip(case.graph.inputs, case.feeds, strict=True))
    values = [None if t is None else fed.get(t.index, t.data) for t in view.inputs]
    return OPS[view.op].spec(view, values, profile_named(profile).rule(view)).outputs[0].tobytes()


@pytest.mark.parametrize("lane", ["litert-ref", "litert-builtin", "litert-xnnpack"])
def test_lanes_take_their_profile_and_equal_it_on_ties(lane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some cases; `tests/parity/test_single_ops.py` runs all where LITERT_PYTHON names the machine."""
    monkeypatch.setenv(LITERT_PYTHON, arm_python(monkeypatch))
    with delegate_named(lane) as delegate:
        assert delegate.profile.startswith(f"litert-2.3-{lane.removeprefix('litert-')}-arm64")
        some = list(small_products.cases()[::6])
        for case in (*hybrid.cases()[::4], *hybrid_products.cases()[::6]):
            view = case.graph.view(0)
            if lane not in case.broken_in and not profile_named(delegate.profile).silence(view):
                some.append(case)
        answers = delegate.run_many([(write_tflite(case.graph), case.feeds) for case in some])
        for case, answer in zip(some, answers, strict=True):
            assert not isinstance(answer, Exception), f"{case}: {answer}"
            assert answer.outputs[0].tobytes() == spec(case, delegate.profile), str(case)


def test_onnx_runtime_is_exact_on_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every eighth case of 8-bit sums and of the ops that are rounded otherwise there; a default session."""
    pytest.importorskip("onnx")
    lane = next(known for known in ONNX_LANES if known.name == "ort")
    known = onnx_ops.cases()
    some = [case for case in known if case.name.startswith(_SUMS)][::8]
    some += [*[case for case in known if case.name.startswith(_OTHERS)][::8], *onnx_arm64.cases()[::8]]
    with OnnxDelegate(lane, python=arm_python(monkeypatch)) as delegate:
        assert delegate.profile == "ort-1.31-arm64"
        for case in some:
            expected = delegate.run(case.model, case.feeds, tensors="outputs").outputs
            assert onnx_spec(case, delegate.profile) == [found.tobytes() for found in expected], str(case)


def onnx_spec(case: OnnxCase, profile: str) -> list[bytes]:
    outputs = compile_graph(read_onnx(case.model), profile, 1, "spec").run(case.feeds).outputs
    return [output.tobytes() for output in outputs]


@pytest.mark.parametrize(
    "name",
    ["QLinearAdd", "QLinearMul", "to_float", "resize_linear", "dynamic", "Hard", "Reciprocal", "range"],
)
def test_onnx_cases_tell_the_profiles_of_arm_apart(name: str) -> None:
    """Otherwise they prove nothing: of each op some case differs between the profiles."""
    cases = [case for case in (*onnx_arm64.cases(), *onnx_ops.cases()) if name in case.name]
    assert any(onnx_spec(case, "ort-1.31") != onnx_spec(case, "ort-1.31-arm64") for case in cases)


def test_cases_tell_the_profiles_of_arm_apart() -> None:
    """Otherwise they prove nothing: in each op, profiles of x86-64 and of Arm differ on some case."""
    names = [f"litert-2.3-{lane}{machine}" for lane in ("builtin", "xnnpack") for machine in ("", "-arm64")]
    differing = set()
    for case in small_products.cases():
        bits = {name: spec(case, name) for name in names}
        differing |= {(a, b) for a, b in combinations(names, 2) if bits[a] != bits[b]}
    assert differing == set(combinations(names, 2))
