"""DIV, REDUCE_PROD, PRELU and SUM: what is malformed, what a runtime refuses, what only it can know."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import ModelError, RefusedByRuntime, UnsupportedOp
from karat24.refimpl.profiles import profile_named
from karat24.refimpl.step import check_layer
from tests.cases import quotients
from tests.cases.case import Case
from tests.cases.single_layer import Constant, Feed, Result, indices, single_layer

CASES = {case.name: case for case in quotients.cases()}
REF, BUILTIN, OLD, TFLM = "litert-2.3-ref", "litert-2.3-builtin", "tflite-2.14-ref", "tflm"


def _div(divisor: Feed | Constant, dtype: str = "int8") -> Case:
    quantized = (0.5, 3) if dtype == "int8" else ()
    left = np.array([7, -(2**31) if dtype == "int32" else 1], dtype)
    return single_layer(
        "div", "", "DIV", [Feed(left, *quantized), divisor], [Result((2,), dtype, *quantized)],
        fused_activation_function="NONE",
    )  # fmt: skip


def test_a_constant_that_stands_for_0_divides_nothing() -> None:
    with pytest.raises(ModelError, match="division by 0"):
        check_layer(_div(Constant(np.array([3], np.int8), 0.5, 3)).graph.view(0), profile_named(REF))


def test_a_fed_divisor_is_looked_at_when_the_layer_runs() -> None:
    case = _div(Feed(np.array([1, 3], np.int8), 0.5, 3))
    with pytest.raises(ModelError, match="division by 0"):
        compile_graph(case.graph, REF, 1).run(case.feeds)


def test_a_quotient_that_ends_a_process_is_refused() -> None:
    case = _div(Feed(np.array([2, -1], np.int32)), "int32")
    with pytest.raises(ModelError, match="-2\\^31 is divided by -1"):
        compile_graph(case.graph, REF, 1).run(case.feeds)


@pytest.mark.parametrize(
    ("name", "profile", "reason"),
    [
        ("div_int8_usual", OLD, "divides float32, int32 and uint8"),
        ("div_uint8_usual", TFLM, "divides float32, int32 and int8"),
        ("reduce_prod_int8_two_usual", TFLM, "it lacks the op"),
        ("prelu_int16_int16_1_feed", TFLM, "its slopes are int8"),
        ("prelu_int16_usual_123", OLD, "lacks int16"),
        ("sum_int16_image_same_small", REF, "reads int16 values as bytes"),
        ("sum_int16_image_usual_small", OLD, "one scale only"),
    ],
)
def test_what_a_runtime_refuses_is_told_with_the_reason(name: str, profile: str, reason: str) -> None:
    with pytest.raises(RefusedByRuntime, match=reason):
        check_layer(CASES[name].graph.view(0), profile_named(profile))
    check_layer(CASES[name].graph.view(0), profile_named(BUILTIN))


@pytest.mark.parametrize(
    ("op", "dtype"), [("REDUCE_ANY", "int8"), ("REDUCE_ALL", "uint8"), ("REDUCE_PROD", "uint8")]
)
def test_types_that_no_runtime_reduces_are_refused(op: str, dtype: str) -> None:
    case = single_layer(
        "reduce", "", op, [Feed(np.zeros((3, 4), dtype), 0.5), indices(1)], [Result((3,), dtype, 0.5)]
    )
    with pytest.raises(UnsupportedOp, match=f"is {dtype}"):
        check_layer(case.graph.view(0), profile_named(BUILTIN))


def test_slopes_of_16_bits_are_read_as_bytes() -> None:
    """A slope of 256 is the bytes 0 and 1: the first of them makes 0 of what lies below 0."""
    slope = Constant(np.array([256], np.int16), 0.5)
    feed, result = Feed(np.array([[-100]], np.int16), 0.5), Result((1, 1), "int16", 0.5)
    case = single_layer("prelu", "", "PRELU", [feed, slope], [result])
    assert compile_graph(case.graph, REF, 1).run(case.feeds).outputs[0] == 0
