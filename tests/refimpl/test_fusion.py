"""Tables applied to a convolution's bytes as they are computed: the specs' bits, and only where allowed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from karat.feeds import random_feeds
from refimpl.engine import Program, compile_graph
from refimpl.errors import UnsupportedOp
from refimpl.graph import Graph, Layer, Quantization, Tensor
from refimpl.kernels import tiling
from refimpl.kernels.isa import FEATURES, VARIABLE, why_not
from refimpl.profiles import PROFILES
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.refimpl.test_planning import Net, assert_plan_is_sound, assert_planned_equals_traced

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


@pytest.fixture(autouse=True)
def _threads_even_for_small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "SERIAL_WORK", 0)


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


def applied_at_once(program: Program) -> int:
    """How many layers do nothing of their own."""
    return sum(call is None for call in program._workspace.calls)


def assert_equals_spec(graph: Graph, profile: str, fused: int) -> None:
    feeds = random_feeds(graph, 3)
    (expected,) = compile_graph(graph, profile, 1, "spec").run(feeds).outputs
    for threads in (1, 2):
        program = compile_graph(graph, profile, threads)
        (found,) = program.run(feeds).outputs
        assert applied_at_once(program) == fused
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("profile", TFLITE)
def test_every_op_behind_a_convolution_under_every_profile(profile: str, dtype: str) -> None:
    """Every op that is one table; a rule whose last elements round another way is no table."""
    met = 0
    for seed, (shape, op) in enumerate(itertools.product(SHAPES, UNARY)):
        graph = behind(WeightedShape(**{**vars(shape), "dtype": dtype}), [op], seed)
        try:
            tail = PROFILES[profile].rule(graph.view(1)).tail
            assert_equals_spec(graph, profile, fused=0 if tail else 1)
        except UnsupportedOp:
            continue  # this runtime refuses such a layer
        met += 1
    assert met >= len(SHAPES)


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
