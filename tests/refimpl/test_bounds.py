"""Bounds from inside: attained, wide enough for underflow, refused at overflow, led through known layers."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from karat24.refimpl.bounds import Interval, bound_for
from karat24.refimpl.bounds.chain import interval_of
from karat24.refimpl.bounds.interval import LARGEST, TINY, UNIT, gamma
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.errors import CannotCompare, ModelError, UnsupportedOp
from karat24.refimpl.graph import Array, Graph, Quantization

F = np.float32


def matmul(rows: Array, columns: Array) -> Interval:
    """The interval of a MatMul of float32 matrices."""
    builder = GraphBuilder(format="onnx")
    inputs = [builder.input(name, x.shape, "float32") for name, x in (("a", rows), ("b", columns))]
    output = builder.tensor("y", (rows.shape[0], columns.shape[1]), "float32")
    graph = builder.build([builder.layer("MatMul", inputs, [output])])
    return bound_for(graph.view(0))([rows, columns])


def one_by_one(terms: Array) -> np.float32:
    """A float32 sum, term after term."""
    total = F(0)
    for term in terms:
        total = F(total + term)
    return total


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_the_bound_is_all_but_attained(count: int) -> None:
    """1, then terms of half a unit in its last place, each of which is rounded away."""
    terms = np.full(count, UNIT, F)
    terms[0] = 1
    interval = matmul(terms[None], np.ones((count, 1), F))
    worst = one_by_one(terms)
    assert worst == 1
    exact = 1 + (count - 1) * UNIT
    assert interval.use(np.array([[worst]])).outside == 0
    assert exact - gamma(count - 2) * exact > float(worst), "two roundings fewer would not do"
    assert interval.use(np.array([[worst]])).largest > (count - 2) / count


def test_a_single_product_may_be_rounded_either_way() -> None:
    """1 + u lies half way between two float32 values."""
    third = np.array([[F(1 + 2**-12)]])
    product = float(third[0, 0]) ** 2  # 1 + 2**-11 + 2**-24, a tie
    interval = matmul(third, third)
    assert float(interval.low[0, 0]) <= product <= float(interval.high[0, 0])
    assert np.nextafter(interval.low[0, 0], F(2)) == interval.high[0, 0]


@pytest.mark.parametrize("flushed", [(), (0,), (1,), (0, 1)], ids=["none", "left", "right", "both"])
def test_subnormal_operands_may_be_read_as_zero(flushed: tuple[int, ...]) -> None:
    operands = [np.array([[1e-39, 1.0]], F), np.array([[1e30], [2e-39]], F)]
    interval = matmul(*operands)
    read = [
        np.where(np.abs(x) < TINY, 0, x.astype(np.float64)) if number in flushed else x.astype(np.float64)
        for number, x in enumerate(operands)
    ]
    assert interval.use((read[0] @ read[1]).astype(F)).outside == 0
    assert interval.use(np.array([[-1e-9]], F)).outside == 1, "what is lost is bounded"


@pytest.mark.parametrize("worst", [LARGEST, math.inf, math.nan], ids=["largest", "infinite", "no number"])
def test_what_may_overflow_is_not_compared(worst: float) -> None:
    """Large terms that cancel: in some orders a partial sum is infinite."""
    rows = np.array([[worst, worst, -worst, -worst]], F)
    with pytest.raises(CannotCompare, match="overflow"):
        matmul(rows, np.ones((4, 1), F))


def test_no_value_outside_the_radius_is_an_end() -> None:
    """Six tenths of a step about a float32 value: its neighbours are too far, nearer ones do not exist."""
    step = 2.0**-23
    interval = Interval.around(np.array([1 + step]), np.array([0.6 * step]))
    assert interval.low == interval.high == F(1 + step)


def test_a_value_that_is_no_number_lies_in_no_interval() -> None:
    interval = Interval.around(np.zeros(3), np.ones(3))
    use = interval.use(np.array([0, np.nan, 2], F))
    assert (use.outside, use.largest) == (2, math.inf)
    np.testing.assert_array_equal(
        interval.nearest(np.array([-0.5, np.nan, 2], F)), np.array([-0.5, -1, 1], F)
    )


def test_zeros_of_both_signs_are_one_value() -> None:
    interval = Interval.exactly(np.zeros(1, F))
    assert interval.use(np.array([-0.0], F)).outside == 0
    assert np.signbit(interval.nearest(np.array([-0.0], F)))[0]


def test_other_shapes_and_types_are_not_compared() -> None:
    interval = Interval.around(np.zeros(3), np.ones(3))
    for found in (np.zeros(2, F), np.zeros(3)):
        with pytest.raises(CannotCompare):
            interval.use(found)


def test_too_many_roundings_to_bound() -> None:
    with pytest.raises(CannotCompare, match="too many"):
        gamma(2**23)


def hidden(*, activation: bool = True, scale: float = 0.05) -> Graph:
    """MatMul → Relu → Add of a constant → QuantizeLinear, as a runtime that shows integers only has it."""
    builder = GraphBuilder(format="onnx")
    x = builder.input("x", (1, 300), "float32")
    w = builder.constant("w", np.random.default_rng(3).normal(size=(300, 40)).astype(F))
    last = builder.layer("MatMul", [x, w], [builder.tensor("m", (1, 40), "float32")])
    if activation:
        last = builder.layer("Relu", [last], [builder.tensor("r", (1, 40), "float32")])
    one = builder.constant("one", np.array(-1, F))
    last = builder.layer("Add", [last, one], [builder.tensor("a", (1, 40), "float32")])
    parameters = [builder.constant("s", np.array(scale, F)), builder.constant("z", np.array(5, np.int8))]
    q = builder.tensor("q", (1, 40), "int8", Quantization.per_tensor(scale, 5))
    return builder.build([builder.layer("QuantizeLinear", [last, *parameters], [q])])


def test_behind_hidden_edges_a_quantization_has_a_set_of_integers() -> None:
    graph = hidden()
    program = compile_graph(graph)
    feed = np.random.default_rng(4).normal(size=(1, 300)).astype(F)
    interval = interval_of(program, graph.outputs[0], {0: feed})
    weights = graph.tensors[1].data
    assert weights is not None
    ordered, backwards = feed[0, :, None] * weights, (feed[0, :, None] * weights)[::-1]
    for terms in (ordered, backwards):
        sums = np.array([[one_by_one(column) for column in terms.T]])
        relu, one = np.maximum(sums, F(0)), F(-1)
        quantized = np.clip(np.rint((relu + one) / F(0.05)) + 5, -128, 127).astype(np.int8)
        assert interval.use(quantized).outside == 0
    assert interval.low.dtype == np.int8
    assert not interval.is_exact, "some value lies so near a tie that both integers may be"
    wrong = (interval.high + 1).astype(np.int8)
    assert interval.use(wrong).outside == wrong.size


def test_a_coarse_quantization_is_settled() -> None:
    graph = hidden(scale=3.0)
    feed = np.random.default_rng(4).normal(size=(1, 300)).astype(F)
    assert interval_of(compile_graph(graph), graph.outputs[0], {0: feed}).is_exact


def elementwise(op: str, left: Array, right: Array, spread: float) -> tuple[Program, dict[int, Array], int]:
    """``op`` of two sums, each known within a bound; ``spread`` is what their terms reach."""
    builder = GraphBuilder(format="onnx")
    sums = []
    for name, values in (("a", left), ("b", right)):
        x = builder.input(name, (1, 2), "float32")
        w = np.stack([np.full(values.size, spread), values - spread]).astype(F)
        output = builder.tensor(f"m{name}", (1, values.size), "float32")
        sums.append(builder.layer("MatMul", [x, builder.constant(f"w{name}", w)], [output]))
    y = builder.layer(op, sums, [builder.tensor("y", (1, left.size), "float32")])
    return compile_graph(builder.build([y])), dict.fromkeys((0, 3), np.ones((1, 2), F)), y


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max", "Min"])
def test_two_intervals_give_the_extremes_of_their_corners(op: str) -> None:
    """Of both signs, so that a product's largest value stands at any corner."""
    values = np.array([-2.0, -0.5, 0.25, 3.0], F)
    left, right = np.repeat(values, 4), np.tile(values, 4)
    program, feeds, y = elementwise(op, left, right, 2.0**18)
    first, second = (interval_of(program, index, feeds) for index in program.graph.layers[2].inputs)
    computed = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum}
    corners = [computed[op](a, b) for a in (first.low, first.high) for b in (second.low, second.high)]
    interval = interval_of(program, y, feeds)
    np.testing.assert_array_equal(interval.low, np.minimum.reduce(corners))
    np.testing.assert_array_equal(interval.high, np.maximum.reduce(corners))
    assert (interval.low < interval.high).all()


def test_where_no_interval_passes_the_reason_is_named() -> None:
    values = np.ones(2, F)
    program, feeds, y = elementwise("Div", values, values, 4.0)
    with pytest.raises(CannotCompare, match=r"Div.*within a bound, which does not pass"):
        interval_of(program, y, feeds)
    with pytest.raises(CannotCompare, match="nothing shown leads to tensor 3"):
        interval_of(program, y, {0: feeds[0]})


def float_quantize(maximum: float) -> tuple[Program, dict[int, Array], int]:
    """TFLite: a float FULLY_CONNECTED the oracle lacks, then QUANTIZE, which wraps around beyond int32."""
    builder = GraphBuilder()
    x = builder.input("x", (1, 2), "float32")
    w = builder.constant("w", np.array([[maximum, 1]], F))
    m = builder.layer("FULLY_CONNECTED", [x, w], [builder.tensor("m", (1, 1), "float32")])
    q = builder.tensor("q", (1, 1), "int8", Quantization.per_tensor(0.5))
    graph = builder.build([builder.layer("QUANTIZE", [m], [q])])
    return compile_graph(graph, missing="given"), {0: np.ones((1, 2), F)}, q


def test_a_quantization_that_may_wrap_around_is_not_compared() -> None:
    program, feeds, q = float_quantize(1e6)
    assert interval_of(program, q, feeds).is_exact
    program, feeds, q = float_quantize(2.0**31)
    with pytest.raises(CannotCompare, match="no int32"):
        interval_of(program, q, feeds)


def test_only_float32_layers_that_are_well_formed_have_a_bound() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 3), "float32")
    w = builder.constant("w", np.zeros((4, 2), F))
    y = builder.layer("FULLY_CONNECTED", [x, w], [builder.tensor("y", (1, 4), "float32")])
    with pytest.raises(ModelError, match="not whole rows of 2"):
        bound_for(builder.build([y]).view(0))
    hybrid = GraphBuilder()
    x = hybrid.input("x", (1, 2), "float32")
    w = hybrid.constant("w", np.zeros((4, 2), np.int8), Quantization.per_tensor(0.5))
    y = hybrid.layer("FULLY_CONNECTED", [x, w], [hybrid.tensor("y", (1, 4), "float32")])
    with pytest.raises(UnsupportedOp, match="int8"):
        bound_for(hybrid.build([y]).view(0))
    cosine = GraphBuilder()
    y = cosine.layer("COS", [cosine.input("x", (1, 2), "float32")], [cosine.tensor("y", (1, 2), "float32")])
    with pytest.raises(UnsupportedOp, match="no bound is known for a float32 COS"):
        bound_for(cosine.build([y]).view(0))


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_window_of_padding_costs_a_file_nothing_and_is_refused(format: Literal["onnx", "tflite"]) -> None:
    builder = GraphBuilder(format=format)
    x, y = builder.input("x", (1, 1, 1, 1), "float32"), builder.tensor("y", (1, 1, 1, 1), "float32")
    size = 2**20
    if format == "onnx":
        pads = (size - 1, size - 1, 0, 0)
        builder.layer("AveragePool", [x], [y], kernel_shape=(size, size), pads=pads)
    else:
        strides = {"stride_h": 1, "stride_w": 1, "padding": "SAME"}
        builder.layer("AVERAGE_POOL_2D", [x], [y], filter_height=size, filter_width=size, **strides)
    with pytest.raises(UnsupportedOp, match="has more than 65536 taps"):
        bound_for(builder.build([y]).view(0))
