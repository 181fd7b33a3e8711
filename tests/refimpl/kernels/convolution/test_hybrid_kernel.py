"""Float32 data with int8 filters against the specs, byte by byte: rows, ties, tails, rows beyond float32."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.contract import Target
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView, Quantization
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.convolution.hybrid import HybridLayer
from karat24.refimpl.kernels.threads.thread_count import threads_in_force
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.profiles.tflite import hybrid_rules
from karat24.refimpl.step import has_kernel
from tests.cases import hybrid, hybrid_products
from tests.cases.case import Case
from tests.cases.quantized import seeded

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")
RULES = (
    Rule("row_product", rows="symmetric"),
    Rule("row_product", rows="symmetric_half_added"),
    Rule("row_product", rows="affine_half_added"),
    Rule("row_filter_first", rows="affine_half_added"),
    Rule("row_filter_first", tail="row_step_first", block=4, block_axis="channel", rows="affine_half_added"),
    Rule("row_product", rows="affine_zero_point_first"),
    Rule("row_step_first", rows="affine_zero_point_first"),
    Rule("row_filter_first", rows="affine_zero_point_first"),
    Rule("row_step_first_fused", rows="xnnpack_half_even"),
)
WITHOUT_ROWS = {"affine", "xnnpack_half_away"}
"""Ways of 64-bit Arm to quantize rows, which have a slow definition only."""


def cases() -> list[Case]:
    """Those of ops that have kernels."""
    found = (*hybrid.cases(), *hybrid_products.cases())
    return [case for case in found if case.graph.layers[0].op in KERNELS]


def assert_equal(view: LayerView, values: list[Array | None], rule: Rule) -> None:
    OPS[view.op].check(view)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = OPS[view.op].spec(view, values, rule)
    kernel = KERNELS[view.op](view, rule, Target())
    assert isinstance(kernel, HybridLayer)
    for threads in (1, 2):
        out, acc = np.empty(view.output().shape, np.float32), np.empty(view.output().shape, np.int32)
        with threads_in_force(threads):
            kernel(values, [out], acc)
        np.testing.assert_array_equal(acc, expected.accumulator)
        # Bytes, so that -0 and 0, or two NaNs, count as what they are.
        assert out.tobytes() == expected.outputs[0].tobytes(), f"{view}, {rule}"


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_cases_equal_the_spec(case: Case) -> None:
    """Under each rule that a profile has for the layer and a kernel is for; of x86-64 these are all, but for
    a TRANSPOSE_CONV that is added up in float32."""
    view = case.graph.view(0)
    values = [case.feeds[0] if tensor.data is None else tensor.data for tensor in view.inputs]
    found = [profile.known_rule(view) for profile in PROFILES.values() if profile.format == "tflite"]
    rules = {rule for rule in found if rule is not None and has_kernel(view, rule)}
    assert rules
    for rule in rules:
        if rule.rows in WITHOUT_ROWS:
            assert KERNELS[view.op](view, rule, Target()) is None
        else:
            assert_equal(view, values, rule)
    assert any(rule.rows not in WITHOUT_ROWS for rule in rules)


def test_each_rule_of_x86_has_its_kernel() -> None:
    """The rules above are all that profiles of x86-64 have, but for those added up in float32."""
    tables = (
        hybrid_rules.LITERT_REF,
        hybrid_rules.LITERT_BUILTIN,
        hybrid_rules.XNNPACK,
        hybrid_rules.TFLITE_2_14_REF,
        hybrid_rules.TFLITE_2_14_BUILTIN,
    )
    used = {rule for table in tables for variants in table.values() for rule in variants.values()}
    assert {rule for rule in used if rule.method != "row_terms"} == set(RULES)


def matrix(rows: Array, channels: int, weights: Array | None = None, activation: str = "NONE") -> LayerView:
    """A FULLY_CONNECTED of these rows."""
    rng = seeded(f"hybrid {rows.shape} {channels}")
    depth = rows.shape[1]
    builder = GraphBuilder()
    scales = Quantization(tuple(map(float, np.float32(rng.uniform(0.003, 0.03, channels)))), (0,) * channels)
    if weights is None:
        weights = rng.integers(-128, 128, (channels, depth))
    inputs = [
        builder.input("x", rows.shape, "float32"),
        builder.constant("w", weights.astype(np.int8), scales),
        builder.constant("b", rng.normal(0, 2, channels).astype(np.float32)),
    ]
    output = builder.tensor("y", (len(rows), channels), "float32")
    builder.layer(
        "FULLY_CONNECTED", inputs, [output], fused_activation_function=activation, keep_num_dims=False,
        weights_format="DEFAULT", asymmetric_quantize_inputs=False,
    )  # fmt: skip
    return builder.build([output]).view(0)


def values_of(view: LayerView, rows: Array) -> list[Array | None]:
    return [rows, view.input(1).data, view.input(2).data]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])
def test_rows_of_every_size_and_sign(rule: Rule, activation: str) -> None:
    """From far below 1 to far above, with zeros, above or below 0 only, a single value, all the same."""
    rng = seeded(f"rows {rule} {activation}")
    sizes = np.float32(10.0) ** np.arange(-32, 33, 4, dtype=np.float32)
    drawn = rng.normal(0, 1, (len(sizes), 37)).astype(np.float32) * sizes[:, np.newaxis]
    drawn[rng.random(drawn.shape) < 0.1] = 0
    single = np.zeros((2, 37), np.float32)
    single[0, 5], single[1, 36] = 3.1, -1e-30
    same = np.full((2, 37), 0.7, np.float32) * np.float32([[1], [-1]])
    rows = np.concatenate([drawn, np.abs(drawn), -np.abs(drawn), single, same, np.zeros((1, 37), np.float32)])
    view = matrix(rows, 7, activation=activation)
    assert_equal(view, values_of(view, rows), rule)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4, 5, 8, 33])
def test_channels_on_both_sides_of_a_block(rule: Rule, channels: int) -> None:
    rows = seeded(f"channels {channels}").normal(0, 1, (5, 9)).astype(np.float32)
    view = matrix(rows, channels)
    assert_equal(view, values_of(view, rows), rule)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_ties_of_steps(rule: Rule) -> None:
    """Values on and one bit beside ties of steps of 1, and of steps that are no power of two."""
    halves = np.arange(-254, 255, dtype=np.float32) / 2
    beside = [np.nextafter(halves, np.float32(side * np.inf), dtype=np.float32) for side in (-1, 1)]
    rows = np.stack([np.clip(row, -127, 127) for row in (halves, *beside, halves / 3, halves * 1.7)])
    shifted = np.clip(rows + np.float32(0.5), -127.5, 127.5)
    rows = np.concatenate([rows, shifted]).astype(np.float32)
    view = matrix(rows, 4)
    assert_equal(view, values_of(view, rows), rule)


def test_the_largest_sums() -> None:
    """As many products as an int32 is sure to hold, nearly all of the largest magnitude."""
    rows = np.full((1, 2**16), 1, np.float32)
    rows[0, 0] = 0
    view = matrix(rows, 1, np.full((1, rows.size), -128))
    for rule in RULES:
        assert_equal(view, values_of(view, rows), rule)


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((np.nan, 1), "not finite"), ((-np.inf, 0), "not finite"), ((2.0**-119, 0), "reaches over 1.5"),
        ((-1e-45, 0), "reaches over 1.4"), ((2.0**-120, -(2.0**-120)), "reaches over 1.5"),
        ((3e38, -1e38), "reaches over 4e"), ((LARGEST, -(2.0**103)), "reaches over 3.4"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rows_that_cannot_be_quantized_are_refused(
    rule: Rule, values: tuple[float, float], message: str
) -> None:
    """Just below the least range and just above the greatest, in the words of the spec."""
    rows = np.zeros((3, 9), np.float32)
    rows[0, 0] = 1
    rows[1, [3, 8]] = values
    view = matrix(rows, 4)
    kernel = KERNELS[view.op](view, rule, Target())
    assert kernel is not None
    with pytest.raises(ModelError, match=message) as refused:
        OPS[view.op].spec(view, values_of(view, rows), rule)
    with pytest.raises(ModelError) as refused_too:
        kernel(values_of(view, rows), [np.empty((3, 4), np.float32)], None)
    assert str(refused_too.value) == str(refused.value)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_least_and_the_greatest_ranges(rule: Rule) -> None:
    ends = ((2.0**-118, 0), (-(2.0**-118), 0), (2.0**-119, -(2.0**-119)), (LARGEST, 0), (-LARGEST, 0),
            (LARGEST / 2, -LARGEST / 2))  # fmt: skip
    rows = np.zeros((len(ends), 9), np.float32)
    rows[:, [3, 8]] = ends
    rows[:, 4] = rows[:, 3] / 3
    view = matrix(rows, 5)
    assert_equal(view, values_of(view, rows), rule)
