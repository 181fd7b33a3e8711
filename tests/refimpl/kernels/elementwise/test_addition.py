"""ADD and SUB by arithmetic: every pair of bytes, beside the spec and beside the table they replace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.elementwise.addition import (
    ApproximateSum,
    SumKernel,
    approximate_sums,
    scaled_sums,
)
from karat24.refimpl.kernels.elementwise.binary import PairLookup, prepare_add
from karat24.refimpl.profiles import profile_named
from tests.cases.case import Case
from tests.cases.single_layer import Feed, Result, single_layer

PAIRS = [np.repeat(np.arange(256), 256).astype(np.uint8), np.tile(np.arange(256), 256).astype(np.uint8)]
PROFILES = ("litert-2.3-ref", "litert-2.3-xnnpack")

SCALES = {
    "powers of two: every tie there is": (0.5, 0.25, 1.0),
    "equal scales: no shift behind the multiplier": (0.3, 0.3, 0.3),
    "unequal and odd": (0.0371, 0.9113, 0.4517),
    "sums far beyond the output's range": (1.7, 0.013, 0.0101),
    "sums far below one step": (0.011, 0.0007, 0.5),
    "one operand vanishes": (1.0, 2.0**-9, 1.0),
}


def _case(op: str, dtype: str, scales: tuple[float, float, float], shape: tuple[int, ...]) -> Case:
    zero = 0 if dtype == "int8" else 128
    values: list[Array] = [pair.view(dtype).reshape(shape) for pair in PAIRS]
    feeds = [Feed(values[0], scales[0], zero + 7), Feed(values[1], scales[1], zero - 128 + 1)]
    result = Result(shape, dtype, scales[2], zero + 127)
    return single_layer(op.lower(), "pairs", op, feeds, [result], fused_activation_function="NONE")


@pytest.mark.parametrize("op", ["ADD", "SUB"])
@pytest.mark.parametrize("name", SCALES)
def test_every_pair_of_bytes_equals_the_spec(op: str, name: str) -> None:
    seen = set()
    for dtype in ("int8", "uint8"):
        case = _case(op, dtype, SCALES[name], (65536,))
        for profile in PROFILES:
            program = compile_graph(case.graph, profile)
            assert isinstance(program.steps[0].kernel, SumKernel)
            expected = compile_graph(case.graph, profile, implementation="spec").run(case.feeds).outputs[0]
            np.testing.assert_array_equal(program.run(case.feeds).outputs[0], expected)
            seen |= set(np.unique(expected).tolist())
    assert len(seen) > 4


@pytest.mark.parametrize(
    ("name", "loop"),
    [
        ("unequal and odd", approximate_sums),
        ("powers of two: every tie there is", scaled_sums),  # too many of them
    ],
)
def test_float32_is_asked_first_where_it_tells_most_sums(name: str, loop: object) -> None:
    for op in ("ADD", "SUB"):
        program = compile_graph(_case(op, "int8", SCALES[name], (65536,)).graph, "litert-2.3-ref")
        kernel = program.steps[0].kernel
        assert isinstance(kernel, SumKernel)
        assert kernel.compiled is loop


def test_float32_that_is_further_off_than_thought_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ApproximateSum.of

    def off(*arguments: Any) -> ApproximateSum:
        nearly = original(*arguments)
        return nearly._replace(a=np.float32(nearly.a * 1.001))

    monkeypatch.setattr(ApproximateSum, "of", off)
    case = _case("ADD", "int8", SCALES["unequal and odd"], (65536,))
    kernel = compile_graph(case.graph, "litert-2.3-ref").steps[0].kernel
    assert isinstance(kernel, SumKernel)
    assert kernel.compiled is scaled_sums


def test_no_pair_hides_behind_the_doubts_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """With these scales, so far off, a single pair is wrong and not in doubt; one near it in order is."""
    original = ApproximateSum.of

    def off(*arguments: Any) -> ApproximateSum:
        nearly = original(*arguments)
        return nearly._replace(start=np.float32(nearly.start + 0.0012))

    monkeypatch.setattr(ApproximateSum, "of", off)
    case = _case("ADD", "int8", (0.092, 0.835, 0.834), (65536,))
    kernel = compile_graph(case.graph, "litert-2.3-ref").steps[0].kernel
    assert isinstance(kernel, SumKernel)
    assert kernel.compiled is scaled_sums


@pytest.mark.parametrize("profile", PROFILES)
def test_sizes_without_a_whole_vector_and_layers_that_keep_the_table(profile: str) -> None:
    case = _case("ADD", "int8", SCALES["unequal and odd"], (65536,))
    view, rule = case.graph.view(0), profile_named(profile).rule(case.graph.view(0))
    kernel = prepare_add(view, rule, None)  # type: ignore[arg-type]
    whole = np.empty(65536, np.int8)
    kernel(case.feeds, [whole], None)
    for size in (0, 1, 7, 17, 33, 1023):
        part = np.full(size + 64, 85, np.int8)
        kernel([feed[:size].copy() for feed in case.feeds], [part[:size]], None)
        np.testing.assert_array_equal(part[:size], whole[:size])
        assert (part[size:] == 85).all()
    repeated = single_layer(
        "add", "repeated", "ADD",
        [Feed(np.zeros((3, 5), np.int8), 0.5, 0), Feed(np.zeros((1, 5), np.int8), 0.5, 0)],
        [Result((3, 5), "int8", 0.5, 0)], fused_activation_function="NONE",
    ).graph.view(0)  # fmt: skip
    table = prepare_add(repeated, rule, None)  # type: ignore[arg-type]
    assert type(table) is PairLookup
