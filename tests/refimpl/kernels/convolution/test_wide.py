"""int16 layers tap by tap: every rule and bias, geometry, tails, and sums that leave 32 and 64 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from karat24.refimpl.contract import Target
from karat24.refimpl.graph import Array, LayerView, Quantization
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.convolution.wide import PRODUCTS_IN_32_BITS, WideConvolution
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.profiles.rules import WITHOUT_KERNEL, Rule
from karat24.refimpl.step import has_kernel
from tests.cases import int16_weighted
from tests.cases.case import Case
from tests.cases.weighted_layer import WeightedShape as Shape
from tests.cases.weighted_layer import weighted_layer as layer
from tests.support.kernel_against_spec import RANDOM_SHAPES, assert_kernel_equals_spec

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")
DEPTHWISE, CONVOLUTION, TRANSPOSED = "DEPTHWISE_CONV_2D", "CONV_2D", "TRANSPOSE_CONV"
CONNECTED = "FULLY_CONNECTED"
Q15 = Rule("q15", "float64")
RULES = (
    Q15,
    Rule("gemmlowp", "float64"),
    Rule("ruy", "float64"),
    Rule("single_rounding", "float64"),
    Rule("ruy", "float64", tail="gemmlowp", block=8, block_axis="channel"),
    Rule("float64_half_away", "float64"),
    Rule("q15", "float32_product"),
)

EDGES = {
    "one channel": Shape(DEPTHWISE, "int16", size=(4, 5), channels=1),
    "a channel more than two vectors": Shape(DEPTHWISE, "int16", size=(4, 5), channels=33),
    "strided, two images": Shape(DEPTHWISE, "int16", batch=2, size=(7, 6), channels=19, strides=(2, 3)),
    "multiplied": Shape(DEPTHWISE, "int16", size=(5, 4), channels=5, multiplier=3),
    "one channel, multiplied": Shape(DEPTHWISE, "int16", size=(5, 4), channels=1, multiplier=18),
    "dilated": Shape(DEPTHWISE, "int16", size=(9, 8), channels=8, dilations=(2, 3)),
    "dilated beyond the image": Shape(DEPTHWISE, "int16", size=(4, 3), channels=8, dilations=(9, 7)),
    "more taps than image": Shape(DEPTHWISE, "int16", size=(2, 3), channels=9, taps=(5, 7)),
    "VALID that fits once": Shape(DEPTHWISE, "int16", size=(3, 5), channels=3, taps=(3, 5), padding="VALID"),
    "dense, two images": Shape(CONVOLUTION, "int16", batch=2, size=(6, 5), channels=5, filters=18),
    "pixels": Shape(CONVOLUTION, "int16", size=(5, 5), channels=7, filters=3, taps=(1, 1)),
    "groups": Shape(CONVOLUTION, "int16", size=(6, 5), channels=8, filters=12, groups=4, strides=(2, 1)),
    "groups of one channel": Shape(CONVOLUTION, "int16", size=(6, 5), channels=6, filters=12, groups=6),
    "groups of one filter": Shape(CONVOLUTION, "int16", size=(6, 5), channels=12, filters=6, groups=6),
    "dilated groups": Shape(
        CONVOLUTION, "int16", size=(9, 9), channels=6, filters=34, groups=2, dilations=(3, 2),
        padding="VALID",
    ),
    "doubled": Shape(TRANSPOSED, "int16", batch=2, size=(4, 5), channels=6, filters=9, strides=(2, 2)),
    "outputs without a tap": Shape(
        TRANSPOSED, "int16", size=(4, 5), channels=3, filters=5, taps=(2, 1), strides=(3, 2)
    ),
    "many taps of each output": Shape(
        TRANSPOSED, "int16", size=(3, 4), channels=3, filters=17, taps=(7, 6), strides=(2, 3)
    ),
    "outputs behind the last tap": Shape(
        TRANSPOSED, "int16", size=(4, 4), channels=3, filters=5, taps=(2, 4), strides=(3, 2),
        padding="VALID", extra=(2, 1),
    ),
    "cut on both sides": Shape(
        TRANSPOSED, "int16", size=(4, 4), channels=3, filters=5, strides=(3, 2), extra=(2, 1)
    ),
    "rows": Shape(CONNECTED, "int16", batch=6, channels=37, filters=18),
    "a row of one value": Shape(CONNECTED, "int16", channels=1, filters=9),
    "RELU6": Shape(TRANSPOSED, "int16", size=(3, 3), channels=2, filters=8, activation="RELU6"),
}  # fmt: skip


def assert_equal(
    view: LayerView, values: list[Array | None], rule: Rule, threads: tuple[int, ...] = (1, 2)
) -> None:
    """The kernel is one for all instruction sets."""
    assert_kernel_equals_spec(view, values, rule, threads, ("portable",))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("bias", ["int32", "int64", ""])
@pytest.mark.parametrize("name", EDGES)
def test_edges_equal_the_spec(name: str, bias: str, rule: Rule) -> None:
    shape = EDGES[name]
    shape = Shape(**(vars(shape) | {"bias": bool(bias), "bias_type": bias or "int32"}))
    view, values = layer(shape, RULES.index(rule))
    assert isinstance(KERNELS[view.op](view, rule, Target()), WideConvolution)
    assert_equal(view, values, rule)


@pytest.mark.parametrize("case", int16_weighted.cases(), ids=lambda case: case.name)
def test_ties_and_wide_sums_equal_the_spec(case: Case) -> None:
    """Under each rule that a profile of a runtime has for the layer."""
    view = case.graph.view(0)
    values = [case.feeds[0] if tensor.data is None else tensor.data for tensor in view.inputs]
    found = [profile.known_rule(view) for profile in PROFILES.values() if profile.format == "tflite"]
    rules = {rule for rule in found if rule is not None and rule.method not in WITHOUT_KERNEL}
    assert rules
    for rule in rules:
        assert has_kernel(view, rule)
        assert isinstance(KERNELS[view.op](view, rule, Target()), WideConvolution)
        assert_equal(view, values, rule, (1,))


@pytest.mark.parametrize("value", [-32768, 32767])
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("more", [0, 1, 2, PRODUCTS_IN_32_BITS + 1])
def test_products_of_extremes_are_carried_in_time(value: int, weight: int, more: int) -> None:
    """As many as 32 bits hold, one more, two more, and just more than twice as many."""
    depth = PRODUCTS_IN_32_BITS + more
    shape = Shape(
        CONVOLUTION, "int16", size=(1, 2), channels=2 * depth, filters=4, groups=2, taps=(1, 1),
        bias_type="int64",
    )  # fmt: skip
    weights = np.full(shape.filter_shape(), weight, np.int8)
    view, values = layer(shape, 1, np.zeros(4, np.int64), weights)
    values[0] = np.full(shape.input_shape(), value, np.int16)
    assert_equal(view, values, Q15)


def test_taps_of_a_channel_are_carried_in_time() -> None:
    shape = Shape(DEPTHWISE, "int16", size=(23, 23), channels=9, taps=(23, 23), bias_type="int64")
    assert np.prod(shape.taps) > PRODUCTS_IN_32_BITS
    view, values = layer(shape, 1, None, np.full(shape.filter_shape(), -128, np.int8))
    values[0] = np.full(shape.input_shape(), -32768, np.int16)
    assert_equal(view, values, Q15)


def test_an_int32_bias_keeps_sums_in_32_bits_whatever_the_rule() -> None:
    """A profile in a file may give such a layer the rule of int64 biases."""
    shape = Shape(CONVOLUTION, "int16", size=(1, 1), channels=600, taps=(1, 1))
    view, values = layer(shape, 1, None, np.full(shape.filter_shape(), 127, np.int8))
    values[0] = np.full(shape.input_shape(), 32767, np.int16)
    assert_equal(view, values, Q15)
    expected = OPS[view.op].spec(view, values, Q15).accumulator
    assert expected is not None
    assert (expected < 0).all()  # it did wrap


def test_rules_without_code_run_by_the_spec() -> None:
    """A block along the flat output, a method of bytes, a shift to the left that leaves none to the right."""
    view, _ = layer(EDGES["doubled"], 0)
    flat = Rule("ruy", "float64", tail="gemmlowp", block=16, block_axis="flat")
    for rule in (flat, Rule("float32_half_even", "float32")):
        assert KERNELS[view.op](view, rule, Target()) is None
    tensors = list(view.inputs)
    assert tensors[2] is not None
    tensors[2] = replace(tensors[2], quantization=Quantization.per_tensor(2.0**24))
    coarse = replace(view, inputs=tuple(tensors))
    assert KERNELS[view.op](coarse, Q15, Target()) is None
    assert KERNELS[view.op](coarse, RULES[1], Target()) is not None


@RANDOM_SHAPES
@given(
    op=st.sampled_from([DEPTHWISE, CONVOLUTION, TRANSPOSED]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    group=st.tuples(st.integers(1, 3), st.integers(1, 20)),
    groups=st.integers(1, 4),
    batch=st.integers(1, 2),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    padding=st.sampled_from(["SAME", "VALID"]),
    bias_type=st.sampled_from(["int32", "int64"]),
    seed=st.integers(0, 1000),
    rule=st.sampled_from(RULES),
)
def test_random_shapes_equal_the_spec(
    op: str,
    size: tuple[int, int],
    group: tuple[int, int],
    groups: int,
    batch: int,
    taps: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    extra: tuple[int, int],
    padding: str,
    bias_type: str,
    seed: int,
    rule: Rule,
) -> None:
    channels, filters = groups * group[0], groups * group[1]
    if op == DEPTHWISE:
        channels, filters = group[1], 0
    shape = Shape(
        op, "int16", batch, size, channels, filters, taps, strides,
        (1, 1) if op == TRANSPOSED else dilations, padding, groups if op == CONVOLUTION else 1,
        group[0] if op == DEPTHWISE else 1, bias_type=bias_type, extra=extra,
    )  # fmt: skip
    assume(shape.output_shape() is not None)
    assert_equal(*layer(shape, seed), rule)
