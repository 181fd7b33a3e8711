"""Convolution kernels against their specs: same outputs, same accumulators, nothing outside the buffers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.contract import Target
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, LayerView, Quantization
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.convolution.dense import DenseConvolution
from karat24.refimpl.kernels.convolution.tiling import MAX_ROWS, MAX_TILE, PHASE_FIELDS, TilePlan
from karat24.refimpl.kernels.threads.thread_count import threads_for
from karat24.refimpl.profiles import profile_named
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.profiles.tflite.table import FP32
from tests.cases import convolution
from tests.cases.weighted_layer import WeightedShape as Shape
from tests.cases.weighted_layer import weighted_layer as layer
from tests.support.kernel_against_spec import RULES, SPECS, assert_all_rules, assert_kernel_equals_spec

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")


JUDGED_PROFILES = ("litert-2.3-ref", "litert-2.3-builtin", "tflite-2.14-builtin")


@pytest.mark.parametrize("part", range(4))
def test_the_cases_judged_against_runtimes(part: int) -> None:
    """Every case that is compared with the runtimes themselves, by every rule a profile has for it."""
    for case in convolution.cases()[part::4]:
        view = case.graph.view(0)
        feeds = dict(zip(case.graph.inputs, case.feeds, strict=True))
        values = [None if t is None else feeds.get(t.index, t.data) for t in view.inputs]
        rules = dict.fromkeys([FP32, *(profile_named(name).rule(view) for name in JUDGED_PROFILES)])
        for rule in rules:
            assert_kernel_equals_spec(view, values, rule, (1,))


def test_wide_weights_are_split_into_sums_of_bytes() -> None:
    """uint8 filters less zero points 0 and 255 need three and two int8 parts; nothing saturates."""
    for filter_zero_point, value in ((0, 255), (255, 0), (128, 0), (127, 255)):
        shape = Shape("CONV_2D", dtype="uint8", channels=65, filters=17, per_channel=False)
        view, values = _with_filter(shape, filter_zero_point, value)
        assert_kernel_equals_spec(view, values, RULES[0])


def _with_filter(shape: Shape, zero_point: int, value: int) -> tuple[LayerView, list[Array | None]]:
    """The layer with an uint8 filter of that zero point, half of it ``value``; the input at its extremes."""
    view, _ = layer(shape, 0)
    rng = np.random.default_rng(value)
    weights = rng.choice(np.array([value, value, 0, 255], np.uint8), shape.filter_shape())
    data = view.input(0)
    builder = GraphBuilder()
    bias = view.input(2)
    assert bias.data is not None
    inputs = [
        builder.input("data", data.shape, data.dtype, data.quantization),
        builder.constant("filter", weights, Quantization.per_tensor(0.01, zero_point)),
        builder.constant("bias", bias.data, bias.quantization),
    ]
    output = builder.tensor("out", view.output().shape, view.output().dtype, view.output().quantization)
    builder.layer("CONV_2D", inputs, [output], **view.layer.attributes)
    extremes = np.iinfo(data.dtype)
    fed = rng.choice(np.array([extremes.min, extremes.max], data.dtype), data.shape)
    return builder.build([output]).view(0), [fed, weights, bias.data]


pairs = st.tuples(st.integers(1, 9), st.integers(1, 9))
small_pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def shapes(draw: st.DrawFn, op: str) -> Shape:
    groups = draw(st.sampled_from([1, 1, 1, 2, 3])) if op == "CONV_2D" else 1
    shape = Shape(
        op=op,
        dtype=draw(st.sampled_from(["int8", "uint8"])),
        batch=draw(st.integers(1, 3)),
        size=draw(pairs),
        channels=groups * draw(st.integers(1, 19)),
        filters=groups * draw(st.sampled_from([1, 2, 7, 8, 15, 16, 17, 33])),
        taps=draw(
            st.one_of(st.just((1, 1)), st.just((3, 3)), st.tuples(st.integers(1, 5), st.integers(1, 5)))
        ),
        strides=draw(st.one_of(st.just((1, 1)), small_pairs)),
        dilations=draw(st.one_of(st.just((1, 1)), small_pairs)) if op != "TRANSPOSE_CONV" else (1, 1),
        padding=draw(st.sampled_from(["SAME", "VALID"])),
        groups=groups,
        multiplier=draw(st.sampled_from([1, 1, 2, 3])),
        per_channel=draw(st.booleans()),
        bias=draw(st.booleans()),
        activation=draw(st.sampled_from(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])),
        extra=draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) if op == "TRANSPOSE_CONV" else (0, 0),
    )
    return shape


@pytest.mark.parametrize("op", SPECS)
def test_random_shapes_equal_the_spec(op: str) -> None:
    """Every rule and element type, sizes from 1, tails of channels, all fused activations."""
    tried = 0

    @settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(shape=shapes(op), seed=st.integers(0, 1000), rule=st.sampled_from(RULES))
    def check(shape: Shape, seed: int, rule: Rule) -> None:
        nonlocal tried
        if shape.output_shape() is None:
            return
        assert_kernel_equals_spec(*layer(shape, seed), rule)
        tried += 1

    check()
    assert tried >= 30


EDGES = {
    "a single pixel, a single channel": Shape("CONV_2D", size=(1, 1), channels=1, filters=1, taps=(1, 1)),
    "filter larger than the image": Shape("CONV_2D", size=(2, 1), taps=(5, 7)),
    "VALID that fits once": Shape("CONV_2D", size=(5, 4), taps=(5, 4), padding="VALID"),
    "last tile of one pixel": Shape("CONV_2D", size=(2, 2 * MAX_TILE + 1), channels=2, filters=17),
    "1x1 rows joined across the batch": Shape(
        "CONV_2D", batch=3, size=(7, 11), taps=(1, 1), channels=5, filters=20
    ),
    "more output channels than tiles: channels shared out": Shape(
        "CONV_2D", size=(1, 2), channels=4, filters=100, dtype="uint8"
    ),
    "strides gather columns": Shape("CONV_2D", size=(9, 90), taps=(2, 2), strides=(4, 23), padding="VALID"),
    "rows of a single tap, far apart, together": Shape(
        "CONV_2D", batch=2, size=(5 * MAX_ROWS + 4, 7), taps=(1, 3), strides=(4, 2), channels=3
    ),
    "1x1, strided, rows together and a rest": Shape(
        "CONV_2D", batch=2, size=(2 * MAX_ROWS + 3, 9), taps=(1, 1), strides=(2, 2), channels=5
    ),
    "a dilation of 40 gathers columns": Shape("CONV_2D", size=(7, 50), taps=(3, 3), dilations=(2, 40)),
    "dilated groups, odd channels": Shape(
        "CONV_2D", channels=9, filters=21, groups=3, dilations=(2, 2), dtype="uint8"
    ),
    "as many groups as channels": Shape("CONV_2D", channels=6, filters=12, groups=6),
    "unequal strides and taps": Shape("CONV_2D", size=(8, 9), taps=(1, 4), strides=(3, 2), channels=18),
    "depthwise, 8 * k + 1 channels": Shape("DEPTHWISE_CONV_2D", channels=17, activation="RELU6"),
    "depthwise, one channel many times": Shape("DEPTHWISE_CONV_2D", channels=1, multiplier=19),
    "depthwise, multiplied and gathered": Shape(
        "DEPTHWISE_CONV_2D", channels=3, multiplier=2, size=(3, 40), dilations=(1, 18), dtype="uint8"
    ),
    "depthwise, rows together and a rest": Shape("DEPTHWISE_CONV_2D", batch=2, size=(19, 5), channels=17),
    "depthwise, strided rows together": Shape(
        "DEPTHWISE_CONV_2D", batch=2, size=(37, 6), channels=33, strides=(2, 2), dtype="uint8"
    ),
    "depthwise, several tiles": Shape("DEPTHWISE_CONV_2D", channels=2, size=(3, 2 * MAX_TILE + 5)),
    "a column is a row": Shape("CONV_2D", batch=2, size=(70, 1), channels=5, filters=18, taps=(9, 1)),
    "a column, dilated, strided, grouped": Shape(
        "CONV_2D",
        size=(41, 1),
        channels=6,
        filters=34,
        taps=(3, 1),
        strides=(2, 1),
        dilations=(5, 1),
        groups=2,
    ),
    "a column, wider filter": Shape("CONV_2D", size=(13, 1), taps=(3, 3)),
    "a column of one filter": Shape("CONV_2D", batch=2, size=(64, 1), filters=1, taps=(5, 1)),
    "a column, one in many columns": Shape("CONV_2D", size=(5, 3), taps=(3, 1), strides=(1, 3)),
    "depthwise, columns": Shape("DEPTHWISE_CONV_2D", batch=2, size=(60, 1), channels=9, taps=(9, 1)),
    "depthwise, columns far apart": Shape(
        "DEPTHWISE_CONV_2D",
        size=(90, 1),
        channels=3,
        multiplier=2,
        taps=(2, 1),
        strides=(23, 1),
        padding="VALID",
    ),
    "one row, one value": Shape("FULLY_CONNECTED", channels=1, filters=1),
    "one row, channels shared out": Shape("FULLY_CONNECTED", channels=33, filters=130),
    "several tiles of rows": Shape("FULLY_CONNECTED", batch=MAX_TILE + 3, channels=3, filters=5),
    "transposed, as TomoGAN has it": Shape(
        "TRANSPOSE_CONV", size=(5, 6), taps=(4, 4), strides=(2, 2), channels=8, filters=8, bias=False
    ),
    "transposed, filter narrower than the stride": Shape(
        "TRANSPOSE_CONV", taps=(1, 2), strides=(3, 5), padding="VALID", extra=(2, 4)
    ),
    "transposed, SAME one short of the stride": Shape(
        "TRANSPOSE_CONV", taps=(3, 3), strides=(2, 2), extra=(1, 1), dtype="uint8"
    ),
    "transposed, a single input": Shape("TRANSPOSE_CONV", size=(1, 1), taps=(3, 5), padding="VALID"),
    "transposed, filter much wider than the input": Shape(
        "TRANSPOSE_CONV", size=(2, 1), taps=(7, 6), strides=(2, 3), filters=9
    ),
    "transposed, wide rows": Shape(
        "TRANSPOSE_CONV", size=(2, MAX_TILE + 2), taps=(2, 3), strides=(1, 2), channels=2, filters=3
    ),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges_equal_the_spec_under_every_rule(edge: str) -> None:
    assert_all_rules(EDGES[edge])


@pytest.mark.parametrize("filters", [16, 17])
def test_rows_of_every_length_equal_the_spec(filters: int) -> None:
    """Up to twice the longest block of pixels: blocks of every size, alone and behind others."""
    for width in range(1, 51):
        shape = Shape("CONV_2D", size=(2, width), channels=2, filters=filters, taps=(1, 3))
        view, values = layer(shape, width)
        assert_kernel_equals_spec(view, values, RULES[0])


@pytest.mark.parametrize("filters", [1, 16, 17])
def test_single_pixels_of_every_length_equal_the_spec(filters: int) -> None:
    """Steps added up in several sums by turns, and those left over; one run of them, and three."""
    for channels in range(1, 36):
        view, values = layer(Shape("FULLY_CONNECTED", channels=channels, filters=filters), channels)
        assert_kernel_equals_spec(view, values, RULES[0])
    for channels in range(1, 9):
        shape = Shape("CONV_2D", size=(4, 1), channels=channels, filters=filters, strides=(1, 2))
        assert_kernel_equals_spec(*layer(shape, channels), RULES[0])


@pytest.mark.parametrize("op", ["CONV_2D", "TRANSPOSE_CONV"])
def test_images_of_every_height_equal_the_spec(op: str) -> None:
    """Rows that share a patch: whole chunks, what is left of them, none; with and without rows skipped."""
    for height, stride, padding in itertools.product(range(1, 20), (1, 2, 3), ("SAME", "VALID")):
        shape = Shape(op, batch=2, size=(height, 3), taps=(3, 3), strides=(stride, 1), padding=padding)
        if shape.output_shape() is None:
            continue
        view, values = layer(shape, height)
        assert_kernel_equals_spec(view, values, RULES[0])
        plan = getattr(KERNELS[op](view, RULES[0], Target()), "plan")  # noqa: B009 - a detail of this kernel
        longest = plan.phases[:, PHASE_FIELDS.index("rows")].max()
        # What a phase of a transposed one reads has no gaps; a convolution of stride 3 would skip rows.
        together = 1 if op == "CONV_2D" and stride == 3 else MAX_ROWS
        assert plan.dimensions.row_blocks == -(-longest // together)


@pytest.mark.parametrize("op", SPECS)
def test_ties_injected_through_the_bias(op: str) -> None:
    """Filters at their zero point leave the bias as accumulator: odd multiples of half a step, both signs."""
    shape = Shape(op, channels=80 if op == "DEPTHWISE_CONV_2D" else 2, filters=80, per_channel=False)
    weights = np.zeros(shape.filter_shape(), np.int8)
    halves = [sign * odd * 2**k for k in range(8) for odd in (1, 3, 5, 7, 255) for sign in (1, -1)]
    bias = np.array(halves)
    outcomes = set()
    for seed in range(12):  # several output scales, filter scales both powers of two and not
        view, values = layer(shape, seed, bias, weights)
        for rule in RULES:
            assert_kernel_equals_spec(view, values, rule, (1,))
            outcomes.add(SPECS[op][1](view, values, rule).outputs[0].tobytes())
    assert len(outcomes) > 12  # the rules differ on these values


@pytest.mark.parametrize("op", SPECS)
@pytest.mark.parametrize("extreme", [2**31 - 1, -(2**31)])
def test_sums_wrap_at_32_bits_as_the_runtimes_do(op: str, extreme: int) -> None:
    shape = Shape(op, channels=9, filters=9)
    view, values = layer(shape, 3, np.full(9, extreme))
    acc = SPECS[op][1](view, values, RULES[0]).accumulator
    assert acc is not None
    assert (acc.astype(np.int64) * np.sign(extreme) < 0).any()  # some sum did cross the end
    for rule in RULES:
        assert_kernel_equals_spec(view, values, rule, (1,))


@pytest.mark.parametrize("op", SPECS)
def test_a_left_shift_saturates_or_wraps_like_the_spec(op: str) -> None:
    """A multiplier of 2**20 and more: the accumulator is shifted left, wraps, and the output saturates."""
    shape = Shape(op, channels=5, filters=5)
    view, values = layer(shape, 1)
    tensors = list(view.inputs), list(view.outputs)
    builder = GraphBuilder()
    data_at = next(i for i, t in enumerate(tensors[0]) if t is not None and t.data is None)
    indices = []
    for position, tensor in enumerate(tensors[0]):
        assert tensor is not None
        if position == data_at:
            indices.append(
                builder.input("data", tensor.shape, tensor.dtype, Quantization.per_tensor(2.0**20, 3))
            )
        else:
            assert tensor.data is not None
            indices.append(builder.constant(tensor.name, tensor.data, tensor.quantization))
    output = builder.tensor("out", view.output().shape, view.output().dtype, Quantization.per_tensor(2.0**-6))
    builder.layer(op, indices, [output], **view.layer.attributes)
    steep = builder.build([output]).view(0)
    for rule in RULES:
        assert_kernel_equals_spec(steep, values, rule, (1,))


def test_large_strides_and_dilations_do_not_take_memory_in_proportion() -> None:
    """A dilation of 100,000 needs three columns of patch per pixel, not 200,001."""
    view, values = layer(Shape("CONV_2D", size=(2, 3), dilations=(1, 100_000), strides=(1, 1)), 0)
    kernel = KERNELS["CONV_2D"](view, RULES[0], Target())
    plan = getattr(kernel, "plan")  # noqa: B009 - a detail of this kernel
    assert isinstance(plan, TilePlan)
    assert plan.dimensions.patch_size < 1000
    assert_kernel_equals_spec(view, values, RULES[0])


@pytest.mark.parametrize(("threads", "tasks"), [(1, 3), (2, 4), (3, 3), (8, 8)])
def test_a_row_is_cut_into_as_many_tiles_for_each_thread(threads: int, tasks: int) -> None:
    view, _ = layer(Shape("CONV_2D", size=(25, 20), taps=(1, 1), channels=16, filters=16), 0)
    kernel = KERNELS["CONV_2D"](view, RULES[0], Target(threads=threads))
    assert isinstance(kernel, DenseConvolution)
    assert kernel.plan.dimensions.tasks == tasks


def test_small_layers_run_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for op in SPECS:
        view, values = layer(Shape(op), 0)
        kernel = KERNELS[op](view, RULES[0], Target(threads=2))
        stage = kernel.bind(values, [np.empty(view.output().shape, view.output().dtype)])  # type: ignore[union-attr]
        assert threads_for(stage.work, 2) == 1
        assert_kernel_equals_spec(view, values, RULES[0])


def test_an_unknown_instruction_set_is_refused_by_name() -> None:
    view, _ = layer(Shape("CONV_2D"), 0)
    with pytest.raises(UsageError, match=r"'abacus'.*portable"):
        KERNELS["CONV_2D"](view, RULES[0], Target(isa="abacus"))
