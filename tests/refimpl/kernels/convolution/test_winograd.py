"""Convolutions by Winograd's transforms: the specs' bits, and taken only where they are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from karat24.export.quantize import PRESETS, calibrate, quantize_graph
from karat24.refimpl.contract import Target
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Graph
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.convolution.winograd import convolution as winograd
from karat24.refimpl.kernels.convolution.winograd.convolution import BOUND, WinogradConvolution
from karat24.refimpl.kernels.convolution.winograd.grid import MOST_TILES
from karat24.refimpl.kernels.convolution.winograd.transforms import (
    FILTER,
    INPUT,
    INPUT_LANES,
    LARGEST_INPUT,
    ONE_FACTOR,
    ONE_POINT,
    OUTPUT,
    POINTS,
    SIDE,
    TILE,
    transformed_filter,
)
from karat24.refimpl.kernels.jit.isa import FEATURES, VARIABLE
from karat24.refimpl.kernels.microkernel.microkernel import OF_PAIRS
from karat24.refimpl.networks import Upsampling, network
from karat24.refimpl.profiles.rules import Rule
from tests.cases.weighted_layer import WeightedShape as Shape
from tests.cases.weighted_layer import weighted_layer as layer
from tests.support.kernel_against_spec import (
    ISAS,
    RANDOM_SHAPES,
    RULES,
    assert_kernel_equals_spec,
)
from tests.support.planned_networks import (
    Net,
    applied_at_once,
    assert_plan_is_sound,
    assert_planned_equals_traced,
)

pytestmark = pytest.mark.usefixtures("tiny_layers_shared", "taken_wherever_exact")


@pytest.fixture
def taken_wherever_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is the slower way."""
    monkeypatch.setattr(winograd, "pays", lambda isa, _: isa in OF_PAIRS)


def is_taken(shape: Shape, seed: int = 0, isa: str = "portable") -> bool:
    view, _ = layer(shape, seed)
    return isinstance(KERNELS["CONV_2D"](view, RULES[0], Target(isa)), WinogradConvolution)


def seed_where_taken(shape: Shape) -> int:
    """The first seed: a uint8 filter's zero point must be near the middle."""
    return next(seed for seed in range(20) if is_taken(shape, seed))


def test_the_matrices_compute_a_convolution_576_times() -> None:
    """In both directions, for every input and tap alone: so for all of them, since all is linear."""
    for place, tap in itertools.product(range(POINTS), range(9)):
        inputs, taps = np.zeros((SIDE, SIDE), np.int64), np.zeros((3, 3), np.int64)
        inputs.flat[place], taps.flat[tap] = 1, 1
        found = OUTPUT @ ((FILTER @ taps @ FILTER.T) * (INPUT @ inputs @ INPUT.T)) @ OUTPUT.T
        expected = [[(inputs[y : y + 3, x : x + 3] * taps).sum() for x in range(TILE)] for y in range(TILE)]
        np.testing.assert_array_equal(found, ONE_FACTOR * np.array(expected))


def test_a_constant_at_one_point_reaches_all_outputs() -> None:
    points = np.zeros(POINTS, np.int64)
    points[ONE_POINT] = 1
    np.testing.assert_array_equal(OUTPUT @ points.reshape(SIDE, SIDE) @ OUTPUT.T, np.ones((TILE, TILE)))


def _largest(matrix: NDArray[np.int64]) -> int:
    return int(np.abs(matrix).sum(axis=1).max())


def test_values_and_filters_fit_16_bits_and_pairs_of_products_32() -> None:
    """The figures the module promises; a uint8 filter from -227 still fits, one from -228 does not."""
    assert _largest(INPUT) ** 2 * LARGEST_INPUT == 12_800
    assert _largest(FILTER) ** 2 * 128 == 18_432
    assert 2 * 12_800 * np.iinfo(np.int16).max < 2**31
    for value, fits in ((-128, True), (127, True), (-227, True), (-228, False), (255, False)):
        assert (transformed_filter(np.full((1, 3, 3, 1), value, np.int16)) is not None) == fits


SHAPES = {
    "a single pixel": Shape("CONV_2D", size=(1, 1), channels=1, filters=20),
    "one tile, and one less than two": Shape("CONV_2D", size=(4, 7), channels=2, filters=17),
    "one more than a tile": Shape("CONV_2D", size=(5, 9), channels=3, filters=16),
    "VALID": Shape("CONV_2D", size=(8, 11), channels=5, filters=33, padding="VALID"),
    "VALID that fits once": Shape("CONV_2D", size=(3, 3), channels=4, filters=35, padding="VALID"),
    "a row of many tiles, in parts": Shape("CONV_2D", size=(6, 2 * 4 * MOST_TILES + 3), filters=18),
    "many short rows, in tasks": Shape("CONV_2D", size=(4 * MOST_TILES + 6, 5), filters=18),
    "a batch, tasks across its images": Shape("CONV_2D", batch=3, size=(9, 13), filters=18),
    "fewer channels than a vector": Shape("CONV_2D", channels=INPUT_LANES - 1, filters=18),
    "one channel more": Shape("CONV_2D", channels=INPUT_LANES + 1, filters=64),
    "three vectors of filters": Shape("CONV_2D", channels=INPUT_LANES, filters=48, bias=False),
    "a single filter more": Shape("CONV_2D", channels=2, filters=65),
    "inside an image, no patch": Shape("CONV_2D", size=(10, 15), channels=32, filters=16, padding="VALID"),
    "inside, but for a channel more": Shape(
        "CONV_2D", size=(6, 10), channels=33, filters=16, padding="VALID"
    ),
    "inside, but for its sign": Shape(
        "CONV_2D", "uint8", size=(6, 10), channels=64, filters=16, padding="VALID", per_channel=False
    ),
    "inside above, below and left of the last tile": Shape(
        "CONV_2D", size=(10, 4 * MOST_TILES + 9), channels=32, filters=16
    ),
    "so many channels that tasks are shorter": Shape("CONV_2D", size=(3, 121), channels=257, filters=16),
    "uint8": Shape("CONV_2D", size=(9, 10), channels=4, filters=20, dtype="uint8", activation="RELU6"),
    "uint8 per tensor": Shape("CONV_2D", size=(6, 6), filters=24, dtype="uint8", per_channel=False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_edges_equal_the_spec_under_every_rule(name: str) -> None:
    view, values = layer(SHAPES[name], seed_where_taken(SHAPES[name]))
    for number, rule in enumerate(RULES):
        assert_kernel_equals_spec(view, values, rule, (1,) if number else (1, 2))


@RANDOM_SHAPES
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    channels=st.integers(1, 70),
    filters=st.integers(1, 70),
    batch=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID"]),
    dtype=st.sampled_from(["int8", "uint8"]),
    seed=st.integers(0, 1000),
    rule=st.sampled_from(RULES),
)
def test_random_shapes_equal_the_spec(
    size: tuple[int, int],
    channels: int,
    filters: int,
    batch: int,
    padding: str,
    dtype: str,
    seed: int,
    rule: Rule,
) -> None:
    shape = Shape(
        "CONV_2D", dtype, size=size, channels=channels, filters=filters, batch=batch, padding=padding
    )
    assume(shape.output_shape() is not None and is_taken(shape, seed))
    assert_kernel_equals_spec(*layer(shape, seed), rule)


EXTREMES = (np.int8(-128), np.int8(127))


@pytest.mark.parametrize("weight", EXTREMES)
@pytest.mark.parametrize("value", EXTREMES)
def test_extremes_equal_the_spec(value: np.int8, weight: np.int8) -> None:
    """Everything at one end, and ends that alternate: the largest values at every point, both signs."""
    shape = Shape("CONV_2D", size=(12, 12), channels=64, filters=16)
    for alternate in (False, True):
        weights = np.full(shape.filter_shape(), weight)
        view, values = layer(shape, 1, np.zeros(16, np.int64), weights)
        data = np.full(shape.input_shape(), value)
        if alternate:
            data[:, ::2, 1::2], data[:, 1::2, ::2] = ~value, ~value
        assert isinstance(KERNELS["CONV_2D"](view, RULES[0], Target()), WinogradConvolution)
        assert_kernel_equals_spec(view, [data, *values[1:]], RULES[0], (1,))


@pytest.mark.parametrize("sign", [1, -1])
def test_results_up_to_the_bound_are_exact_and_it_is_not_taken_beyond(
    sign: int,
) -> None:
    """The bias brings the largest result a filter could give to the bound, from both sides."""
    shape = Shape("CONV_2D", size=(5, 5), channels=2, filters=16)
    weights = np.full(shape.filter_shape(), 127, np.int8)
    view, values = layer(shape, 0, np.zeros(16, np.int64), weights)
    zero = view.input(0).zero_point
    total = 127 * 9 * 2
    for beyond in (0, 1):
        constant = sign * (BOUND - 1 + beyond - 128 * total)
        view, values = layer(shape, 0, np.full(16, constant + zero * total), weights)
        kernel = KERNELS["CONV_2D"](view, RULES[0], Target())
        assert isinstance(kernel, WinogradConvolution) == (not beyond)
        data = np.full(shape.input_shape(), -128 if sign < 0 else 127, np.int8)
        for rule in RULES:
            assert_kernel_equals_spec(view, [data, *values[1:]], rule, (1,))


NOT_TAKEN = {
    "strides": Shape("CONV_2D", size=(9, 9), filters=20, strides=(1, 2)),
    "dilation": Shape("CONV_2D", size=(9, 9), filters=20, dilations=(2, 1)),
    "groups": Shape("CONV_2D", size=(9, 9), channels=4, filters=40, groups=2),
    "1x1": Shape("CONV_2D", size=(9, 9), filters=20, taps=(1, 1)),
    "5x3": Shape("CONV_2D", size=(9, 9), filters=20, taps=(5, 3)),
    "a column, whose taps are a row's": Shape("CONV_2D", size=(9, 1), filters=20, taps=(3, 1)),
    "one filter, whose pixels are channels": Shape("CONV_2D", size=(9, 48), filters=1),
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_other_convolutions_are_left_to_the_ordinary_loop(name: str) -> None:
    assert not is_taken(NOT_TAKEN[name])


def test_instruction_sets_without_products_of_int16_do_without() -> None:
    shape = Shape("CONV_2D", size=(64, 64), channels=64, filters=64)
    assert [isa for isa in FEATURES if is_taken(shape, 0, isa)] == ["avx512vnni", "avx2", "portable"]


def test_it_is_taken_where_it_is_the_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As measured on one machine: not for a few tiles, nor where a few channels make the products cheap."""
    monkeypatch.undo()
    for size, channels, filters, isas in (
        (64, 64, 64, {"avx512vnni", "avx2", "portable"}),
        (16, 16, 16, {"avx2", "portable"}),
        (64, 8, 8, set()),
        (6, 64, 64, {"avx2", "portable"}),
        (2, 64, 64, set()),
    ):
        shape = Shape("CONV_2D", size=(size, size), channels=channels, filters=filters)
        assert {isa for isa in OF_PAIRS if is_taken(shape, 0, isa)} == isas, shape


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("isa", ISAS)
def test_tables_borders_and_parts_of_concatenations(
    isa: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table applied tile by tile, a border the convolution makes, outputs among others' channels."""
    monkeypatch.setenv(VARIABLE, isa)
    net = Net(5, dtype)
    data = net.input(1, 6, 13, 5)
    padded = net.pad(data, [(0, 0), (1, 2), (3, 1), (0, 0)])
    bordered = net.conv(padded, 17)
    parts = [net.unary(net.conv(data, 18)), net.conv(data, 21)]
    joined = net.conv(net.concat(parts), 17)
    graph = net.builder.build([bordered, joined])
    program = assert_planned_equals_traced(graph, "litert-2.3-ref")
    taken = sum(isinstance(step.kernel, WinogradConvolution) for step in program.steps)
    assert taken == (4 if isa in OF_PAIRS else 0)
    assert_plan_is_sound(program)
    assert applied_at_once(program) == 3  # the border, the table, the concatenation
    assert len(program.memory_plan.parts) == 2


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_tomogan_runs_on_it(upsampling: Upsampling, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its 3x3 convolutions of 32 channels and more, at the size of a tile of the Edge TPU."""
    monkeypatch.undo()
    monkeypatch.setenv(VARIABLE, "portable")
    net = network("tomogan", 64, 64, upsampling)
    noise = np.random.default_rng(0).random(net.tensors[net.inputs[0]].shape, np.float32)
    graph = quantize_graph(net, calibrate(net, [noise]), PRESETS["int8"])
    program = compile_graph(graph, "litert-2.3-ref")
    for step in program.steps:
        if step.view.op == "CONV_2D" and step.view.input(1).shape[1:3] == (3, 3):
            wide = min(step.view.input(0).shape[3], step.view.output().shape[3]) >= 32
            assert isinstance(step.kernel, WinogradConvolution) or not wide


def pooled(net: Net, size: tuple[int, int, int], filters: int, **attributes: object) -> Graph:
    """A convolution, a pool of its output, and another convolution of either."""
    batch, height, width = size
    x = net.conv(net.input(batch, height, width, 3), filters)
    half = net.pool(x, **attributes)
    return net.builder.build([net.conv(x, 17), net.conv(half, 18)])


POOLS = {
    "even": ((1, 8, 12), 16, {}),
    "odd, the last windows are parts": ((1, 7, 9), 17, {}),
    "odd, what is left is left out": ((1, 7, 9), 65, {"padding": "VALID"}),
    "a batch, rows of many tiles": ((2, 6, 4 * MOST_TILES + 10), 18, {}),
    "one pixel": ((1, 1, 1), 16, {}),
    "bounded": ((1, 9, 5), 35, {"fused_activation_function": "RELU6"}),
}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("isa", ISAS)
def test_maxima_of_2x2_are_taken_along(
    isa: str, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, isa)
    size, filters, attributes = POOLS[name]
    program = assert_planned_equals_traced(
        pooled(Net(3, dtype), size, filters, **attributes), "litert-2.3-ref"
    )
    assert applied_at_once(program) == (1 if isa in OF_PAIRS else 0)
    assert_plan_is_sound(program)


@pytest.mark.parametrize("attributes", [{"filter_width": 3}, {"stride_h": 1}, {"filter_height": 1}], ids=str)
def test_other_windows_are_pooled_by_themselves(
    attributes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "portable")
    graph = pooled(Net(4), (1, 8, 8), 16, **attributes)
    assert applied_at_once(assert_planned_equals_traced(graph, "litert-2.3-ref")) == 0


def test_maxima_among_other_channels_tables_and_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked up before they are pooled; both outputs lie in concatenations; a second pool runs by itself."""
    monkeypatch.setenv(VARIABLE, "portable")
    net = Net(6)
    data = net.input(1, 8, 10, 3)
    x = net.unary(net.conv(data, 18))
    half, again = net.pool(x), net.pool(x)
    smaller = net.unary(net.concat([half, net.pool(data)]))
    wide = net.concat([x, data])
    border = net.conv(net.pad(again, [(0, 0), (1, 1), (1, 1), (0, 0)]), 17)
    graph = net.builder.build([net.conv(wide, 16), smaller, border])
    program = assert_planned_equals_traced(graph, "litert-2.3-ref")
    assert_plan_is_sound(program)
    assert "MAX_POOL_2D" in [step.view.op for step in program.steps]
    assert applied_at_once(program) == 4  # a table, a pool, a border, the smaller concatenation
    assert {x, half} <= set(program.memory_plan.parts)


def test_what_becomes_of_maxima_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table behind a pool is not the convolution's, though nobody else reads either."""
    monkeypatch.setenv(VARIABLE, "portable")
    net = Net(7)
    half = net.pool(net.conv(net.input(1, 6, 6, 3), 20))
    graph = net.builder.build([net.conv(net.unary(half), 17)])
    assert applied_at_once(assert_planned_equals_traced(graph, "litert-2.3-ref")) == 1
