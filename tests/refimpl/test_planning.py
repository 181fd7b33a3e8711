"""Memory plans: nothing that lives is overwritten, and a run in planned memory gives the traced bits."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karat24.feeds import random_feeds
from karat24.refimpl.contract import Target
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Graph
from karat24.refimpl.kernels.jit import isa as instruction_sets
from karat24.refimpl.kernels.threads import thread_count as sharing
from karat24.refimpl.planning import ALIGNMENT, Span, allocate
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.step import prepare_step
from tests.support.guard_pages import GuardPages, exit_code, read_behind_the_end
from tests.support.planned_networks import (
    Net,
    assert_plan_is_sound,
    assert_planned_equals_traced,
)

spans = st.builds(
    lambda size, first, length: Span(size, first, first + length),
    st.integers(0, 1000), st.integers(-1, 20), st.integers(0, 8),
)  # fmt: skip


@given(st.lists(spans, max_size=30))
@settings(deadline=None)
def test_no_two_that_live_at_once_overlap(wanted: list[Span]) -> None:
    offsets, size = allocate(wanted)
    for i, (span, offset) in enumerate(zip(wanted, offsets, strict=True)):
        assert offset % ALIGNMENT == 0
        assert offset + span.size <= size
        for other, at in zip(wanted[:i], offsets[:i], strict=True):
            alive = other.first <= span.last and span.first <= other.last
            apart = offset + span.size <= at or at + other.size <= offset
            assert apart or not alive or 0 in (span.size, other.size)


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Random graphs of convolutions, activations, pools, upsampling, sums and concatenations; tensors of any
    age are read again, some are outputs, some are read by nobody."""
    net = Net(draw(st.integers(0, 99)), draw(st.sampled_from(["int8", "uint8"])))
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    tensors = [net.input(1, height, width, draw(st.integers(1, 5)))]
    for _ in range(draw(st.integers(1, 12))):
        x = draw(st.sampled_from(tensors))
        shape = net.builder.shape(x)
        alike = [t for t in tensors if net.builder.shape(t)[:3] == shape[:3]]
        kind = draw(
            st.sampled_from(
                ["conv", "concat", "concat", "pool", "double", "transposed", "add", "rows", "unary", "unary"]
            )
        )
        if kind == "conv":
            x = net.conv(x, draw(st.sampled_from([1, 5, 16, 19])), draw(st.sampled_from([1, 3])))
        elif kind == "concat":
            x = net.concat([x, *draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3))])
        elif kind == "unary":
            x = net.unary(x, draw(st.sampled_from(["RELU", "RELU6", "HARD_SWISH"])))
        elif kind == "rows":
            x = net.concat([x, x], axis=draw(st.sampled_from([0, 1, 2])))
        elif kind == "pool":
            x = net.pool(x, draw(st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"])))
        elif kind == "add":
            x = net.add(x, draw(st.sampled_from([t for t in alike if net.builder.shape(t) == shape])))
        elif math.prod(shape) < 2000:
            x = net.transposed(x, draw(st.integers(1, 4))) if kind == "transposed" else net.double(x)
        if math.prod(net.builder.shape(x)) < 20000:
            tensors.append(x)
    outputs = draw(st.lists(st.sampled_from(tensors[1:] or tensors), min_size=1, max_size=3, unique=True))
    return net.builder.build(outputs)


@given(networks())
@settings(deadline=None, max_examples=60)
def test_random_networks_give_the_traced_bits(graph: Graph) -> None:
    assert_plan_is_sound(assert_planned_equals_traced(graph))


def u_net(height: int, width: int, dtype: str = "int8", upsampling: str = "bilinear") -> Graph:
    """A skip connection pooled and kept, and an upsampled branch, both parts of one concatenation."""
    net = Net(1, dtype)
    image = net.input(1, height, width, 3)
    skip = net.conv(image, 20)
    x = net.conv(net.pool(skip), 24)
    x = net.double(x) if upsampling == "bilinear" else net.transposed(x, 7)
    return net.builder.build([net.conv(net.concat([skip, x]), 5)])


@pytest.mark.parametrize("profile", ["litert-2.3-ref", "litert-2.3-builtin", "litert-2.3-xnnpack"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
@pytest.mark.parametrize("size", [(2, 2), (6, 130), (64, 66)])
def test_skip_connections_are_written_in_place(
    profile: str, dtype: str, upsampling: str, size: tuple[int, int]
) -> None:
    """Of one task, of tails of every kind, and large enough for several threads."""
    program = assert_planned_equals_traced(u_net(*size, dtype, upsampling), profile)
    in_place = [index for index, part in program.memory_plan.parts.items() if part.axis == 3]
    by_flat_index = any(step.rule.tail and step.rule.block_axis == "flat" for step in program.steps)
    assert len(in_place) == 2 or (by_flat_index and profile == "litert-2.3-builtin")


def run_parts_between_guard_pages() -> None:
    """Layers that write a part of wider pixels, the first or the last channels of memory that ends there."""
    sharing.SMALL_WORK = sharing.CHUNK_WORK = 0  # a process of its own
    net, pages = Net(5), GuardPages()
    image = net.input(1, 5, 27, 19)
    for x in (net.conv(image, 20), net.transposed(image, 3), net.pool(image), net.double(image)):
        net.conv(x, 1)
    graph = net.builder.build([len(net.builder._tensors) - 1])
    data = random_feeds(graph, 0)[image]
    runnable = [isa for isa in instruction_sets.FEATURES if instruction_sets.why_not(isa) is None]
    for layer, isa, count in itertools.product(graph.layers, runnable, (1, 2)):
        if layer.op == "CONV_2D" and layer.inputs[0] != image:
            continue
        view = graph.view(layer)
        kernel = prepare_step(view, PROFILES["litert-2.3-ref"], Target(isa, count)).kernel
        inputs = [data if t is not None and t.index == image else t.data for t in view.inputs if t]
        plain = np.empty(view.output().shape, np.int8)
        kernel(inputs, [plain], None)
        channels, other = plain.shape[3], 5
        for at_end in (False, True):
            wide = pages.array(np.full((*plain.shape[:3], channels + other), 0x5A, np.int8), at_end)
            mine = slice(other, None) if at_end else slice(channels)
            rest = slice(other) if at_end else slice(channels, None)
            kernel(inputs, [wide[..., mine]], None)
            assert np.array_equal(wide[..., mine], plain), f"{view} {isa}"
            assert (wide[..., rest] == 0x5A).all(), f"{view} {isa}"


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_a_part_is_written_and_nothing_beside_it() -> None:
    """A byte too far ends the child process; one in the neighbour's channels fails it."""
    assert exit_code(read_behind_the_end) not in (0, None)  # the guard bites
    assert exit_code(run_parts_between_guard_pages) == 0


def test_inputs_may_lie_in_memory_in_any_way() -> None:
    """A pooling layer run alone, as comparisons do: on channels of wider pixels, and on other strides."""
    net = Net(6)
    image = net.input(1, 5, 6, 4)
    program = compile_graph(net.builder.build([net.pool(image)]))
    plain = random_feeds(program.graph, 0)[image]
    expected = program.run_layer(0, [plain]).outputs[0]
    wide = np.full((1, 5, 6, 9), 0x5A, np.int8)
    wide[..., 2:6] = plain
    flipped = np.ascontiguousarray(plain[:, ::-1, :, ::-1])[:, ::-1, :, ::-1]
    for values in (wide[..., 2:6], np.asfortranarray(plain), flipped, np.repeat(plain, 2, axis=2)[:, :, ::2]):
        assert not values.flags.c_contiguous
        np.testing.assert_array_equal(program.run_layer(0, [values]).outputs[0], expected)


def test_what_cannot_be_written_in_place_is_copied() -> None:
    """An input of the graph, an output, a tensor listed twice, a part of two concatenations, and one
    read by a layer that wants it without gaps."""
    net = Net(2)
    image = net.input(1, 3, 5, 4)
    shown, twice, shared, read, free = (net.conv(image, 6) for _ in range(5))
    other = net.conv(read, 2)
    whole = net.concat([image, shown, twice, twice, shared, read, free, other])
    second = net.concat([shared, other])
    graph = net.builder.build([whole, second, shown])
    program = assert_planned_equals_traced(graph)
    parts = program.memory_plan.parts
    assert free in parts
    assert not {image, shown, twice, shared, read} & set(parts)
    assert_plan_is_sound(program)


def test_concatenations_of_rows_nest() -> None:
    """Parts along the first axis have no gaps: anybody may write them, concatenations included."""
    net = Net(3)
    image = net.input(1, 4, 4, 4)
    inner = net.concat([net.conv(image, 8), net.conv(image, 8)], axis=1)
    outer = net.concat([inner, net.conv(net.concat([image, image], axis=1), 8)], axis=1)
    program = assert_planned_equals_traced(net.builder.build([outer]))
    assert len(program.memory_plan.parts) == 4
    assert len(program.memory_plan.offsets) == 3


def test_results_are_the_callers() -> None:
    """The next run does not change what an earlier one returned, and feeds are not written to."""
    graph = u_net(8, 8)
    program = compile_graph(graph)
    feeds = [random_feeds(graph, seed) for seed in range(2)]
    first = program.run(feeds[0]).outputs[0]
    before = first.copy()
    program.run(feeds[1])
    np.testing.assert_array_equal(first, before)
    assert not np.shares_memory(first, program._workspace.memory)


def test_an_output_that_is_an_input_or_a_constant_is_returned() -> None:
    net = Net(4)
    image = net.input(1, 2, 2, 1)
    constant = net.builder.constant("answer", np.array([42], np.int32))
    graph = net.builder.build([image, constant, net.conv(image, 1)], signature=None)
    feeds = random_feeds(graph, 0)
    given_back, answer, _ = compile_graph(graph).run(feeds).outputs
    np.testing.assert_array_equal(given_back, feeds[image])
    assert answer.tolist() == [42]


def test_the_plan_can_be_read() -> None:
    graph = u_net(8, 8)
    text = compile_graph(graph).describe()
    assert text.splitlines()[0].endswith(f"in {compile_graph(graph).memory_plan.size} bytes")
    assert "axis 3 from 20" in text
    assert len(text.splitlines()) == 2 + len(graph.inputs) + len(graph.layers)
