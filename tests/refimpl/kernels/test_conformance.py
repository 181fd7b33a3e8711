"""Kernels of every op but the convolutions against the slow specs, on the cases written for the specs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from karat24.refimpl.contract import Target, Values
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Rule
from karat24.refimpl.spec.onnx.table import ONNX_OPS
from karat24.refimpl.step import has_kernel
from tests.cases import (
    activations,
    copies,
    elementwise,
    glue,
    pooling,
    quantization,
    resize_bilinear,
    slicing,
    tables,
)
from tests.cases.case import Case
from tests.cases.single_layer import Feed, Result, ramp, single_layer
from tests.support.guard_pages import GuardPages, exit_code, read_behind_the_end

MODULES = (
    activations, copies, elementwise, glue, pooling, quantization, resize_bilinear, slicing, tables
)  # fmt: skip
ELSEWHERE = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", *ONNX_OPS}
"""Convolutions have tests of their own; ONNX ops meet theirs in tests/parity/test_onnx_single_ops.py."""


def cases() -> list[Case]:
    shared = (case for module in MODULES for case in module.cases())
    return [*(case for case in shared if case.graph.layers[0].op in KERNELS), *clamped_pools()]


def clamped_pools() -> Iterator[Case]:
    """Windows of one value, so that the lower bound of a clamp is met as often as the upper one."""
    for op, dtype, activation in itertools.product(
        ("MAX_POOL_2D", "AVERAGE_POOL_2D"), ("int8", "uint8"), ("RELU", "RELU6", "RELU_N1_TO_1")
    ):
        zero_point = 3 if dtype == "int8" else 121
        yield single_layer(
            f"{op.lower()}_{dtype}_{activation.lower()}", "every value, clamped below and above", op,
            [Feed(ramp((1, 16, 16, 1), dtype), 0.1, zero_point)],
            [Result((1, 16, 16, 1), dtype, 0.1, zero_point)],
            padding="VALID", stride_w=1, stride_h=1, filter_width=1, filter_height=1,
            fused_activation_function=activation,
        )  # fmt: skip


def rules(case: Case) -> dict[Rule, str]:
    """Every way some profile rounds the case's layer, with that profile's name."""
    found: dict[Rule, str] = {}
    view = case.graph.view(0)
    for name, profile in PROFILES.items():
        try:
            found.setdefault(profile.rule(view), name)
        except UnsupportedOp:
            continue  # this runtime refuses such a layer
    return found


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernel_equals_spec(case: Case) -> None:
    found = rules(case)
    assert found, "no profile has a rule for this case"
    for rule, profile in found.items():
        try:
            expected = compile_graph(case.graph, profile, threads=1, implementation="spec").run(case.feeds)
        except UnsupportedOp:
            with pytest.raises(UnsupportedOp):
                compile_graph(case.graph, profile, threads=1)
            continue
        for threads in (1, 2):
            run = compile_graph(case.graph, profile, threads=threads).run(case.feeds)
            for result, wanted in zip(run.outputs, expected.outputs, strict=True):
                assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape)
                # Bytes, so that -0 and 0, or two NaNs, count as what they are.
                assert result.tobytes() == wanted.tobytes(), f"{rule}: {np.flatnonzero(result != wanted)}"


def test_every_kernel_of_an_op_meets_a_case() -> None:
    met = {case.graph.layers[0].op for case in cases()}
    tflite = {op for op in KERNELS if op.isupper()}  # ONNX ops are written in camel case
    assert tflite & set(OPS) - ELSEWHERE == met - ELSEWHERE


def _operands(case: Case) -> tuple[LayerView, Values]:
    view = case.graph.view(0)
    fed = dict(zip(case.graph.inputs, case.feeds, strict=True))
    values = [None if t is None else fed.get(t.index, t.data) for t in view.inputs]
    return view, values


def _guarded_runs(case: Case, seen: set[object]) -> Iterator[tuple[list[Array], list[Array]]]:
    """Plain outputs and those of a run whose every buffer touches a guard page.

    ``seen`` collects what decides which addresses a kernel touches; each is run once.
    """
    view, values = _operands(case)
    tensors = tuple(None if t is None else (t.shape, t.dtype) for t in (*view.inputs, *view.outputs))
    stored = tuple(t.data.tobytes() for t in view.inputs if t is not None and t.data is not None)
    for rule in rules(case):
        pattern = (view.op, tensors, stored, tuple(view.layer.attributes.items()), rule.method, rule.tail)
        if pattern in seen or not has_kernel(view, rule):
            continue
        seen.add(pattern)
        try:
            OPS[view.op].check(view)
            kernel = KERNELS[view.op](view, rule, Target(threads=1))
        except UnsupportedOp:
            continue
        plain = [np.empty(t.shape, DTYPES[t.dtype]) for t in view.outputs]
        kernel(values, plain, None)
        for at_end in (False, True):
            pages = GuardPages()
            inputs = [None if value is None else pages.array(value, at_end) for value in values]
            outputs = [pages.array(np.zeros_like(output), at_end) for output in plain]
            kernel(inputs, outputs, None)
            yield plain, outputs


def _run_cases_between_guard_pages() -> None:
    runs, seen = 0, set[object]()
    for case in cases():
        for plain, guarded in _guarded_runs(case, seen):
            runs += 1
            if any(a.tobytes() != b.tobytes() for a, b in zip(plain, guarded, strict=True)):
                raise SystemExit(3)
    raise SystemExit(0 if runs > 1000 else 4)


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages need mprotect, which is POSIX")
def test_nothing_is_read_or_written_outside_the_buffers() -> None:
    assert exit_code(read_behind_the_end) not in (0, None)  # the guard bites
    assert exit_code(_run_cases_between_guard_pages) == 0
