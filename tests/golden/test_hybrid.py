"""Float32 data with int8 filters through the whole chain: judged bit for bit, explained, or not compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.cli import main
from karat24.delegates import Delegate
from karat24.export.tflite import read_tflite, write_tflite
from karat24.feeds import random_feeds
from karat24.golden.attribution import Search
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import ModelError, RefusedByRuntime, UnsupportedOp
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import profile_named
from karat24.refimpl.step import check_layer
from tests.cases import hybrid
from tests.cases.xnnpack_hybrid import products
from tests.shared_models import require_case
from tests.support.runtimes import Runtimes

CASES = {case.name: case for case in hybrid.cases()}
CONVOLUTION = "hybrid_conv_3x3_True_1_True"
DEPTHWISE = "hybrid_depthwise_3x3_1_True"


def _verdict(name: str, runtime: Delegate, profile: str | None = None) -> tuple[str, str]:
    graph = read_tflite(write_tflite(CASES[name].graph))
    report = verify(write_tflite(graph), graph, runtime, [random_feeds(graph, 1)], profile=profile)
    return report.layers[0].verdict, report.layers[0].reason


@pytest.mark.parametrize("lane", ["litert-ref", "litert-builtin", "litert-xnnpack"])
def test_a_reported_file_is_bit_exact(lane: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = require_case("tflite/one11047_dynamic_range_conv_fc_asym0.tflite")
    assert main(["verify", str(model), "--delegate", lane, "--samples", "2"]) == 0
    assert "BIT_EXACT" in capsys.readouterr().out


def test_the_order_of_factors_explains_a_difference(runtimes: Runtimes) -> None:
    status, reason = _verdict(CONVOLUTION, runtimes("litert-builtin"), "litert-2.3-ref")
    assert status == "explained"
    assert "litert-2.3-builtin: row_product, rows affine" in reason


def test_a_search_for_the_cause_finds_none_and_says_so() -> None:
    program = compile_graph(CASES[CONVOLUTION].graph, "litert-2.3-ref", 1)
    result = program.run(CASES[CONVOLUTION].feeds)
    view = program.graph.view(0)
    found = result.outputs[0].copy()
    found[0, 0, 0, 0] += 1
    inputs = [*CASES[CONVOLUTION].feeds, view.input(1).data, view.input(2).data]
    assert not Search(program).attribute(0, inputs, [found]).causes


def test_nothing_is_claimed_where_no_rule_was_held_against_a_runtime() -> None:
    with pytest.raises(UnsupportedOp):
        check_layer(CASES[CONVOLUTION].graph.view(0), profile_named("edgetpu"))


def test_on_arm_pairs_of_products_of_the_lowest_weight_can_wrap() -> None:
    """With zero points only, and not where dot products add them in 32 bits."""
    three, four = (CASES[f"hybrid_lowest_{rows}"].graph.view(0) for rows in ("three_rows", "True"))
    for lane in ("ref", "builtin"):
        with pytest.raises(UnsupportedOp, match="16 bits"):
            check_layer(three, profile_named(f"litert-2.3-{lane}-arm64"))
        check_layer(four, profile_named(f"litert-2.3-{lane}-arm64"))
        check_layer(CASES["hybrid_lowest_False"].graph.view(0), profile_named(f"litert-2.3-{lane}-arm64"))
    check_layer(three, profile_named("litert-2.3-xnnpack-arm64"))


def test_what_a_runtime_refuses_or_dies_of_is_refused_with_the_remedy() -> None:
    per_tensor = _with_filter_scale(CASES[DEPTHWISE].graph)
    for name, message in (("litert-2.3-ref", "quantize the filter per channel"), ("tflm", "no float32 data")):
        with pytest.raises(RefusedByRuntime, match=message):
            check_layer(per_tensor.view(0), profile_named(name))
    unbiased = CASES["hybrid_depthwise_3x3_1_False"].graph.view(0)
    for name in ("litert-2.3", "tflite-2.14"):
        check_layer(unbiased, profile_named(f"{name}-ref"))
        with pytest.raises(RefusedByRuntime, match="no bias"):
            check_layer(unbiased, profile_named(f"{name}-builtin"))


def test_what_the_older_runtime_gets_wrong_is_said() -> None:
    for name, message in (
        ("hybrid_conv_equal_scales", "the bias alone"),
        ("hybrid_matrix_5x7_True_True_True", "no FULLY_CONNECTED with a scale per channel"),
    ):
        for lane in ("ref", "builtin"):
            check_layer(CASES[name].graph.view(0), profile_named(f"litert-2.3-{lane}"))
            with pytest.raises(RefusedByRuntime, match=message):
                check_layer(CASES[name].graph.view(0), profile_named(f"tflite-2.14-{lane}"))


def test_nothing_is_claimed_of_a_weight_that_loses_its_sign() -> None:
    """But where XNNPACK takes the layer; and -128 behind the last whole vector is multiplied rightly."""
    for name in ("hybrid_lowest_True", "hybrid_lowest_CONV_2D_False"):
        view = CASES[name].graph.view(0)
        check_layer(view, profile_named("litert-2.3-xnnpack"))
        check_layer(view, profile_named("tflite-2.14-builtin"))
        for lane in ("ref", "builtin"):
            with pytest.raises(UnsupportedOp, match="takes the negative"):
                check_layer(view, profile_named(f"litert-2.3-{lane}"))
    graph = CASES["hybrid_below_a_half_True"].graph
    tensors = list(graph.tensors)
    lowest = np.full((9, 11), -128, np.int8)
    tensors[graph.view(0).input(1).index] = replace(graph.view(0).input(1), data=lowest)
    check_layer(replace(graph, tensors=tuple(tensors)).view(0), profile_named("litert-2.3-ref"))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("computed", UnsupportedOp, "only constants"),
        ("two batches", UnsupportedOp, "one dimension above 1"),
        ("two batches both", UnsupportedOp, "one dimension above 1"),
        ("per row", ModelError, "axis 1 is needed"),
        ("zero point", ModelError, "zero point that is not 0"),
    ],
)
def test_products_that_no_kernel_computes_by_rows_of_their_own_are_refused(
    name: str, error: type[Exception], message: str
) -> None:
    graph = dict(products())[name]
    with pytest.raises(error, match=message):
        OPS["BATCH_MATMUL"].check(graph.view(0))


def _with_filter_scale(graph: Graph) -> Graph:
    tensors = list(graph.tensors)
    index = graph.view(0).input(1).index
    tensors[index] = replace(tensors[index], quantization=Quantization.per_tensor(0.5))
    return replace(graph, tensors=tuple(tensors))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_is_not_finite_cannot_be_quantized(value: float) -> None:
    case = CASES["hybrid_rows_True_True"]
    data = case.feeds[0].copy()
    data[2, 1] = value
    with pytest.raises(ModelError, match="not finite"):
        compile_graph(case.graph, "litert-2.3-ref", 1).run([data])


@pytest.mark.parametrize("row", [(2.0**-119, 0.0), (3e38, -3e38)])
def test_rows_whose_steps_float32_does_not_hold_cannot_be_quantized(row: tuple[float, float]) -> None:
    case = CASES["hybrid_rows_True_True"]
    data = np.zeros_like(case.feeds[0])
    data[2, :2] = row
    with pytest.raises(ModelError, match="float32 does not hold"):
        compile_graph(case.graph, "litert-2.3-ref", 1).run([data])
