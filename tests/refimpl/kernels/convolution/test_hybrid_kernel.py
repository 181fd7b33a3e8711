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
from karat24.refimpl.step import has_kernel
from tests.cases import hybrid
from tests.cases.case import Case
from tests.cases.quantized import seeded

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")
RULES = (
    Rule("rows_symmetric"),
    Rule("rows_half_away"),
    Rule("rows_affine"),
    Rule("rows_affine_filter_first"),
    Rule("rows_affine_filter_first", tail="rows_affine_step_first", block=4, block_axis="channel"),
    Rule("rows_xnnpack"),
)


def assert_equal(view: LayerView, values: list[Array | None], rule: Rule) -> None:
    OPS[view.op].check(view)
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


@pytest.mark.parametrize("case", hybrid.cases(), ids=lambda case: case.name)
def test_cases_equal_the_spec(case: Case) -> None:
    """Under each rule that a profile of a runtime has for the layer."""
    view = case.graph.view(0)
    values = [case.feeds[0] if tensor.data is None else tensor.data for tensor in view.inputs]
    found = [profile.known_rule(view) for profile in PROFILES.values() if profile.format == "tflite"]
    rules = {rule for rule in found if rule is not None}
    assert rules
    for rule in rules:
        assert has_kernel(view, rule)
        assert_equal(view, values, rule)


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
    """As many products as an int32 is sure to hold, all of the largest magnitude."""
    rows = np.full((1, 2**16), 1, np.float32)
    rows[0, 0] = 0
    view = matrix(rows, 1, np.full((1, rows.size), -128))
    for rule in RULES:
        assert_equal(view, values_of(view, rows), rule)


@pytest.mark.parametrize("way", ["kernel", "spec"])
@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "not finite"), (-np.inf, "not finite"), (2.0**-111, "too little"), (1e-45, "too little")],
)
def test_rows_that_cannot_be_quantized_are_refused(value: float, message: str, way: str) -> None:
    """Both ways; a row whose largest value is 2^-110 can be."""
    rows = np.zeros((2, 9), np.float32)
    rows[1, 3] = value
    view = matrix(rows, 4)
    for rule in RULES:
        if way == "spec":
            with pytest.raises(ModelError, match=message):
                OPS[view.op].spec(view, values_of(view, rows), rule)
        else:
            kernel = KERNELS[view.op](view, rule, Target())
            assert kernel is not None
            with pytest.raises(ModelError, match=message):
                kernel(values_of(view, rows), [np.empty((2, 4), np.float32)], None)
        smallest = np.where(rows == 0, 0, np.float32(2.0**-110)).astype(np.float32)
        assert_equal(view, values_of(view, smallest), rule)
