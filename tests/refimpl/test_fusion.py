"""Tables applied to a convolution's bytes as they are computed: the specs' bits, and only where allowed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Graph, Layer, Quantization, Tensor
from karat24.refimpl.kernels.jit.isa import FEATURES, VARIABLE, why_not
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.step import has_kernel
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.support.planned_networks import (
    Net,
    applied_at_once,
    assert_plan_is_sound,
    assert_planned_equals_traced,
)

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")

TFLITE = [name for name in PROFILES if PROFILES[name].format == "tflite"]
ISAS = tuple(isa for isa in FEATURES if why_not(isa) is None)
UNARY = ("RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "TANH", "QUANTIZE")
SHAPES = (
    WeightedShape("CONV_2D", size=(3, 9), channels=5, filters=67),
    WeightedShape("CONV_2D", size=(4, 5), channels=6, filters=34, groups=2),
    WeightedShape("CONV_2D", size=(6, 130), channels=4, filters=1, taps=(1, 1)),
    WeightedShape("TRANSPOSE_CONV", size=(3, 35), channels=5, filters=17, taps=(4, 4), strides=(2, 2)),
    WeightedShape("DEPTHWISE_CONV_2D", size=(5, 51), channels=19),
    WeightedShape("FULLY_CONNECTED", batch=3, channels=20, filters=130),
)
"""Tails of every kind: of 16 channels and of 64 bytes, rows apart and side by side, one channel."""


def behind(shape: WeightedShape, ops: Sequence[str], seed: int) -> Graph:
    """A layer of that shape, followed by these ops, each to parameters of its own."""
    view, _ = weighted_layer(shape, seed)
    tensors = {t.index: t for t in (*view.inputs, *view.outputs) if t is not None}
    chain, layers, low = view.output(), [view.layer], -128 if shape.dtype == "int8" else 0
    for op in ops:
        scale, zero_point = {"LOGISTIC": (2.0**-8, low), "TANH": (2.0**-7, low + 128)}.get(
            op, (0.71 * chain.scale, low + 90)
        )
        parameters = Quantization.per_tensor(scale, zero_point)
        after = Tensor(len(tensors), op + str(len(tensors)), chain.shape, shape.dtype, parameters)
        attributes = {"alpha": 0.3} if op == "LEAKY_RELU" else {}
        layers.append(Layer(len(layers), op, (chain.index,), (after.index,), attributes))
        tensors[after.index] = chain = after
    data = next(t.index for t in view.inputs if t is not None and not t.is_constant)
    return Graph(tuple(tensors[i] for i in range(len(tensors))), tuple(layers), (data,), (chain.index,))


def assert_equals_spec(graph: Graph, profile: str, fused: int) -> None:
    feeds = random_feeds(graph, 3)
    (expected,) = compile_graph(graph, profile, 1, "spec").run(feeds).outputs
    for threads in (1, 2):
        program = compile_graph(graph, profile, threads)
        (found,) = program.run(feeds).outputs
        assert applied_at_once(program) == fused
        np.testing.assert_array_equal(found, expected)


_EQUAL: set[tuple[object, ...]] = set()
"""Layers, with their rules, found equal before: many profiles have rules in common."""


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("profile", TFLITE)
def test_every_op_behind_a_convolution_under_every_profile(profile: str, dtype: str) -> None:
    """Every op that is one table; a rule whose last elements round another way is no table."""
    met = 0
    for seed, (shape, op) in enumerate(itertools.product(SHAPES, UNARY)):
        graph = behind(WeightedShape(**{**vars(shape), "dtype": dtype}), [op], seed)
        try:
            rules = tuple(PROFILES[profile].rule(graph.view(layer)) for layer in (0, 1))
            kernels = all(has_kernel(graph.view(layer), rule) for layer, rule in enumerate(rules))
            if (seed, dtype, rules) not in _EQUAL:
                assert_equals_spec(graph, profile, fused=1 if kernels and not rules[1].tail else 0)
                _EQUAL.add((seed, dtype, rules))
        except UnsupportedOp:
            continue  # this runtime refuses such a layer
        met += 1
    assert met >= (1 if PROFILES[profile].caveat else len(SHAPES))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_instruction_set(isa: str, shape: WeightedShape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables in a row are one."""
    monkeypatch.setenv(VARIABLE, isa)
    for profile in ("litert-2.3-ref", "litert-2.3-builtin"):
        assert_equals_spec(behind(shape, ["RELU", "LOGISTIC"], 11), profile, fused=2)


@pytest.mark.parametrize("upsampling", ["transposed", "conv"])
def test_what_is_fused_is_written_into_its_concatenation(upsampling: str) -> None:
    """Neither the sums' tensor nor a copy is left: one place for both parts."""
    net = Net(1)
    image = net.input(1, 6, 70, 3)
    skip = net.unary(net.conv(image, 20))
    x = net.transposed(net.pool(skip), 7) if upsampling == "transposed" else net.conv(image, 17)
    graph = net.builder.build([net.conv(net.concat([skip, net.unary(x, "HARD_SWISH")]), 5)])
    program = assert_planned_equals_traced(graph)
    assert_plan_is_sound(program)
    assert applied_at_once(program) == 3
    assert len(program.memory_plan.parts) == 2
    stored = {*program.memory_plan.offsets, *program.memory_plan.parts}
    assert x not in stored
    row = next(line for line in program.describe().splitlines() if line.split()[2:3] == [str(x)])
    reader = next(layer.index for layer in graph.layers if x in layer.inputs)
    assert row.endswith(f"nowhere: layer {reader} is applied as it is computed")
    assert len(program.describe().splitlines()) == 2 + len(graph.inputs) + len(graph.layers)


def test_a_tensor_somebody_else_wants_is_stored() -> None:
    """Read twice, an output of the graph, the graph's input, or written by a layer that takes no table."""
    net = Net(2)
    image = net.input(1, 4, 5, 3)
    shown, twice = net.conv(image, 6), net.conv(image, 6)
    results = [shown, net.unary(shown), net.unary(image), net.unary(net.pool(image))]
    results.append(net.add(net.unary(twice), net.add(twice, twice)))
    program = assert_planned_equals_traced(net.builder.build(results))
    assert_plan_is_sound(program)
    assert applied_at_once(program) == 0


def test_a_trace_keeps_what_a_run_does_not_store() -> None:
    graph = behind(SHAPES[0], ["RELU"], 5)
    program = compile_graph(graph)
    trace = program.run(random_feeds(graph, 0), accumulators=True).trace
    assert trace is not None
    assert {index for layer in graph.layers for index in layer.outputs} <= set(trace.tensors)
    assert applied_at_once(program) == 1


PADDINGS = (((1, 1), (1, 1)), ((0, 1), (0, 1)), ((2, 0), (3, 4)), ((5, 6), (0, 0)), ((0, 0), (0, 0)))
"""Rows and columns before and after: around, behind only, more on one side, more than a filter is high."""

UNDER_A_BORDER = (
    *SHAPES[:5],
    WeightedShape("CONV_2D", size=(5, 7), channels=16, filters=20, strides=(2, 2)),
    WeightedShape("CONV_2D", size=(6, 9), channels=3, filters=4, dilations=(2, 2), padding="VALID"),
    WeightedShape("CONV_2D", size=(12, 1), channels=4, filters=6, taps=(3, 1), padding="VALID"),
    WeightedShape("DEPTHWISE_CONV_2D", size=(7, 9), channels=6, strides=(2, 2), padding="VALID"),
    WeightedShape("DEPTHWISE_CONV_2D", batch=2, size=(6, 5), channels=3, multiplier=2),
)


def under_a_border(shape: WeightedShape, counts: Sequence[tuple[int, int]], seed: int) -> Graph | None:
    """The layer of that shape behind a PAD that makes its input; None if nothing is left to pad."""
    view, _ = weighted_layer(shape, seed)
    tensors = {t.index: t for t in (*view.inputs, *view.outputs) if t is not None}
    data = next(t for t in tensors.values() if t.index in view.layer.inputs and not t.is_constant)
    size = [n - sum(around) for n, around in zip(data.shape[1:3], counts, strict=True)]
    if min(size) < 1:
        return None
    count = len(tensors)
    inner = Tensor(count, "inner", (data.shape[0], *size, data.shape[3]), data.dtype, data.quantization)
    flat = np.array([(0, 0), *counts, (0, 0)], np.int32)
    stored = Tensor(count + 1, "paddings", flat.shape, "int32", None, flat)
    tensors |= {count: inner, count + 1: stored}
    layers = (
        Layer(0, "PAD", (count, count + 1), (data.index,), {}),
        replace(view.layer, index=1),
    )
    return Graph(tuple(tensors[i] for i in range(len(tensors))), layers, (count,), view.layer.outputs)


@pytest.mark.parametrize("counts", PADDINGS, ids=str)
@pytest.mark.parametrize("shape", UNDER_A_BORDER, ids=str)
def test_a_convolution_makes_the_border_before_it_itself(
    shape: WeightedShape, counts: Sequence[tuple[int, int]]
) -> None:
    """Except where pixels or columns were put in one row: there is no border in such an image."""
    met = 0
    for seed, dtype in enumerate(("int8", "uint8")):
        graph = under_a_border(WeightedShape(**{**vars(shape), "dtype": dtype}), counts, seed)
        if graph is None:
            continue
        rearranged = shape.op == "CONV_2D" and (shape.taps == (1, 1) or shape.size[1] == 1)
        assert_equals_spec(graph, "litert-2.3-ref", fused=0 if rearranged else 1)
        met += 1
    assert met == 2 or min(n - sum(c) for n, c in zip(shape.size, counts, strict=True)) < 1


@pytest.mark.parametrize("isa", ISAS)
def test_borders_under_every_instruction_set(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, isa)
    for shape in UNDER_A_BORDER:
        graph = under_a_border(shape, ((1, 0), (0, 0)), 7)
        assert graph is not None
        rearranged = shape.op == "CONV_2D" and (shape.taps == (1, 1) or shape.size[1] == 1)
        assert_equals_spec(graph, "litert-2.3-xnnpack", fused=0 if rearranged else 1)


def test_a_border_that_is_more_is_stored() -> None:
    """Channels or images added, another value than the zero point, an image somebody else reads."""
    net = Net(3)
    image = net.input(1, 4, 5, 3)
    more = net.pad(image, [(0, 0), (1, 1), (1, 1), (0, 2)])
    two = net.pad(image, [(0, 1), (1, 1), (1, 1), (0, 0)])
    other = net.pad(image, [(0, 0), (1, 1), (1, 1), (0, 0)], value=9)
    twice = net.pad(image, [(0, 0), (1, 1), (1, 1), (0, 0)])
    shown = net.pad(image, [(0, 0), (2, 1), (1, 1), (0, 0)])
    results = [net.conv(more, 4), net.conv(two, 4), net.conv(other, 4), net.conv(shown, 4), shown]
    results += [net.add(net.conv(twice, 3), twice)]
    program = assert_planned_equals_traced(net.builder.build(results))
    assert_plan_is_sound(program)
    assert applied_at_once(program) == 0


def test_a_border_between_two_convolutions_and_a_table() -> None:
    """Nobody stores what lies between; the plan says where it went."""
    net = Net(4)
    x = net.unary(net.conv(net.input(1, 6, 9, 3), 20))
    padded = net.pad(x, [(0, 0), (1, 2), (3, 1), (0, 0)])
    graph = net.builder.build([net.unary(net.conv(padded, 5))])
    program = assert_planned_equals_traced(graph)
    assert_plan_is_sound(program)
    assert applied_at_once(program) == 3
    assert padded not in {*program.memory_plan.offsets, *program.memory_plan.parts}
    row = next(line for line in program.describe().splitlines() if line.split()[2:3] == [str(padded)])
    reader = next(layer.index for layer in graph.layers if padded in layer.inputs)
    assert row.endswith(f"nowhere: layer {reader} makes the border itself")


def reshaped(net: Net, x: int, last: int) -> int:
    """As exporters write a reshape of an image of any batch: its first size is asked for when run."""
    builder, (batch, *sizes) = net.builder, net.builder.shape(x)
    rank = len(sizes) + 1
    shape = builder.layer("SHAPE", [x], [builder.tensor("shape", (rank,), "int32")], out_type="int32")
    bounds = [builder.constant("bound", np.array([n], np.int32)) for n in (0, 1, 1)]
    first = builder.tensor("first", (), "int32")
    masks = {"begin_mask": 0, "end_mask": 0, "ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 1}
    builder.layer("STRIDED_SLICE", [shape, *bounds], [first], **masks)
    rest = builder.constant("rest", np.array(last, np.int32))
    packed = builder.tensor("packed", (2,), "int32")
    builder.layer("PACK", [first, rest], [packed], values_count=2, axis=0)
    flat = batch, int(np.prod(sizes))
    output = builder.tensor("flat", flat, net.dtype, Quantization.per_tensor(2.0**-6))
    return builder.layer("RESHAPE", [x, packed], [output])


def test_what_depends_on_no_feed_is_computed_once() -> None:
    net = Net(3)
    image = net.input(2, 4, 5, 3)
    flat = reshaped(net, net.conv(image, 6), 120)
    program = assert_planned_equals_traced(net.builder.build([flat]))
    assert_plan_is_sound(program)
    assert applied_at_once(program) == 3
    assert program.describe().count("a constant, computed once") == 3
    assert len(program._workspace.runs) == 1  # the shape is known: one call with the convolution


def test_a_shape_computed_wrong_is_an_error_though_it_is_settled() -> None:
    net = Net(3)
    image = net.input(2, 4, 5, 3)
    program = compile_graph(net.builder.build([reshaped(net, net.conv(image, 6), 119)]))
    for trace in (False, True, False):
        with pytest.raises(ModelError, match=r"computed shape \(2, 119\), the file says \(2, 120\)"):
            program.run(random_feeds(program.graph, 0), trace)


def test_a_settled_tensor_that_is_an_output_is_given() -> None:
    net = Net(3)
    image = net.input(1, 4, 5, 3)
    shape = net.builder.tensor("shape", (4,), "int32")
    net.builder.layer("SHAPE", [image], [shape], out_type="int32")
    program = assert_planned_equals_traced(net.builder.build([shape, net.conv(image, 6)]))
    assert applied_at_once(program) == 0


def test_a_shape_that_is_fed_is_looked_at_in_every_run() -> None:
    net = Net(3)
    image = net.input(1, 4, 5, 3)
    wanted = net.builder.input("wanted", (2,), "int32")
    flat = net.builder.tensor("flat", (4, 15), "int8", Quantization.per_tensor(2.0**-6))
    program = compile_graph(net.builder.build([net.builder.layer("RESHAPE", [image, wanted], [flat])]))
    values = random_feeds(program.graph, 0)[image]
    for sizes in ((4, 15), (-1, 15), (15, 4), (4, -1), (4, 16)):
        feeds = {image: values, wanted: np.array(sizes, np.int32)}
        if sizes in ((15, 4), (4, 16)):
            with pytest.raises(ModelError, match="computed shape"):
                program.run(feeds)
        else:
            np.testing.assert_array_equal(program.run(feeds).outputs[0], values.reshape(4, 15))
