"""Depthwise convolutions: words made in registers for 3x3 filters, and in a patch for all others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from karat24.refimpl.contract import Target
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.convolution.dense import centred_filter
from karat24.refimpl.kernels.convolution.tiling import MAX_ROWS, MAX_TILE
from karat24.refimpl.kernels.depthwise.convolution import DepthwiseConvolution
from karat24.refimpl.kernels.microkernel.microkernel import DEPTHWISE_CHANNELS, DEPTHWISE_PIXELS
from karat24.refimpl.profiles.rules import Rule
from tests.cases.weighted_layer import WeightedShape as Shape
from tests.cases.weighted_layer import weighted_layer as layer
from tests.support.kernel_against_spec import ISAS, RANDOM_SHAPES, RULES, assert_kernel_equals_spec

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")
OP = "DEPTHWISE_CONV_2D"


def by_columns(shape: Shape, isa: str = "portable", seed: int = 0) -> bool:
    view, _ = layer(shape, seed)
    kernel = KERNELS[OP](view, RULES[0], Target(isa))
    assert isinstance(kernel, DepthwiseConvolution)
    return kernel.geometry.by_columns


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_rows_of_every_length_equal_the_spec(padding: str, stride: int) -> None:
    """Whole blocks, single pixels behind them, and both: words are handed on from each to the next."""
    for width in range(1, 2 * stride * DEPTHWISE_PIXELS + 6):
        shape = Shape(
            OP, size=(3, width), channels=DEPTHWISE_CHANNELS + 1, strides=(1, stride), padding=padding
        )
        if shape.output_shape() is None:
            continue
        assert by_columns(shape)
        assert_kernel_equals_spec(*layer(shape, width), RULES[width % len(RULES)])


EDGES = {
    "a whole block of channels": Shape(OP, size=(4, 5), channels=DEPTHWISE_CHANNELS),
    "two channels": Shape(OP, size=(4, 5), channels=2),
    "a channel less than three blocks": Shape(OP, size=(4, 5), channels=3 * DEPTHWISE_CHANNELS - 1),
    "rows together and a rest": Shape(OP, batch=2, size=(2 * MAX_ROWS + 3, 5), channels=17),
    "strided rows together and a rest": Shape(OP, batch=2, size=(4 * MAX_ROWS + 5, 6), strides=(2, 2)),
    "rows far apart": Shape(OP, batch=2, size=(30, 6), strides=(5, 1)),
    "several tiles": Shape(OP, size=(3, 2 * MAX_TILE + 5), channels=2),
    "several strided tiles": Shape(OP, size=(3, 4 * MAX_TILE + 7), channels=2, strides=(1, 2)),
    "a single pixel": Shape(OP, size=(1, 1), channels=5),
    "uint8 values": Shape(OP, "uint8", size=(6, 7), channels=20, activation="RELU6"),
}

OTHERS = {
    "5x5": Shape(OP, batch=2, size=(2 * MAX_ROWS + 3, 5), channels=17, taps=(5, 5)),
    "3x2, strided": Shape(OP, size=(9, 9), channels=18, taps=(3, 2), strides=(2, 2)),
    "5x3, several tiles": Shape(OP, size=(5, 2 * MAX_TILE + 5), channels=2, taps=(5, 3)),
    "dilated along y": Shape(OP, size=(9, 9), channels=18, dilations=(2, 1)),
    "dilated along x": Shape(OP, size=(9, 9), channels=18, dilations=(1, 2)),
    "multiplied": Shape(OP, size=(9, 9), channels=9, multiplier=2),
    "every third column": Shape(OP, size=(9, 20), channels=18, strides=(1, 3)),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_equal_the_spec_under_every_rule(name: str) -> None:
    assert by_columns(EDGES[name])
    for number, rule in enumerate(RULES):
        assert_kernel_equals_spec(*layer(EDGES[name], 0), rule, (1,) if number else (1, 2))


@pytest.mark.parametrize(
    ("threads", "rows", "blocks"), [(1, 7, 3), (2, 5, 4), (4, 5, 4), (8, 3, 8), (9, 3, 9), (40, 1, 19)]
)
def test_rows_are_put_together_as_long_as_every_thread_has_tasks(
    threads: int, rows: int, blocks: int
) -> None:
    """As many blocks for each thread, of the 19 rows of two images."""
    view, _ = layer(EDGES["rows together and a rest"], 0)
    kernel = KERNELS[OP](view, RULES[0], Target(threads=threads))
    assert isinstance(kernel, DepthwiseConvolution)
    g = kernel.geometry
    assert (g.rows, g.row_blocks, g.tasks) == (rows, blocks, 2 * blocks)


def test_rows_nobody_reads_are_not_copied() -> None:
    for stride, rows in ((3, 7), (4, 1)):
        view, _ = layer(Shape(OP, size=(7 * stride, 6), channels=18, strides=(stride, 1)), 0)
        kernel = KERNELS[OP](view, RULES[0], Target())
        assert isinstance(kernel, DepthwiseConvolution)
        assert kernel.geometry.rows == rows
        assert kernel.reading.taps_y == 3 + (rows - 1) * stride


@pytest.mark.parametrize("name", OTHERS)
def test_others_read_their_words_from_a_patch(name: str) -> None:
    assert not by_columns(OTHERS[name])
    for number, rule in enumerate(RULES):
        assert_kernel_equals_spec(*layer(OTHERS[name], 0), rule, (1,) if number else (1, 2))


IN_A_ROW = {
    "two taps": Shape(OP, size=(3, 9), channels=18, taps=(1, 2)),
    "whole words": Shape(OP, batch=2, size=(3, 9), channels=17, taps=(1, 8)),
    "words and a tap": Shape(OP, size=(2, 30), channels=16, taps=(1, 9), activation="RELU6"),
    "wider than the image": Shape(OP, size=(2, 3), channels=3, taps=(1, 13)),
    "VALID that fits once": Shape(OP, size=(3, 5), channels=3, taps=(1, 5), padding="VALID"),
    "strided": Shape(OP, size=(5, 33), channels=18, taps=(1, 5), strides=(2, 3)),
    "dilated": Shape(OP, size=(4, 30), channels=18, taps=(1, 7), dilations=(1, 3)),
    "multiplied": Shape(OP, size=(4, 11), channels=5, multiplier=3, taps=(1, 6)),
    "several tiles": Shape(OP, size=(3, 2 * MAX_TILE + 5), channels=2, taps=(1, 5)),
    "a column": Shape(OP, batch=2, size=(50, 1), channels=20, taps=(9, 1), strides=(2, 1)),
    "rows together": Shape(OP, batch=2, size=(2 * MAX_ROWS + 3, 5), channels=17, taps=(1, 3)),
    "uint8 values": Shape(OP, "uint8", size=(4, 11), channels=20, taps=(1, 4)),
    "weights of several parts": Shape(OP, "uint8", size=(4, 11), channels=18, taps=(1, 6), per_channel=False),
}


@pytest.mark.parametrize("name", IN_A_ROW)
def test_neighbouring_taps_of_a_filter_with_a_single_row_share_words(name: str) -> None:
    shape = IN_A_ROW[name]
    for isa in ISAS:
        view, _ = layer(shape, 0)
        kernel = KERNELS[OP](view, RULES[0], Target(isa))
        assert isinstance(kernel, DepthwiseConvolution)
        parts = kernel.microkernel.split(centred_filter(view.input(1)))
        assert len(kernel.offsets) == len(parts) * -(-max(shape.taps) // kernel.microkernel.values_per_word)
        assert kernel.geometry.neighbour == shape.channels * shape.multiplier * max(shape.dilations)
    for number, rule in enumerate(RULES):
        assert_kernel_equals_spec(*layer(shape, 0), rule, (1,) if number else (1, 2))


@pytest.mark.parametrize("isa", ISAS)
def test_weights_of_several_parts_read_their_words_from_a_patch(isa: str) -> None:
    """A uint8 filter far from its zero point, for kernels that multiply by int8."""
    shape = Shape(OP, size=(5, 6), channels=18, dtype="uint8", per_channel=False)
    assert by_columns(shape, isa) == (isa in {"avx2", "portable"})
    assert_kernel_equals_spec(*layer(shape, 0), RULES[0])


@pytest.mark.parametrize(("value", "weight"), [(-128, -128), (-128, 127), (127, -128), (127, 127)])
def test_extremes_equal_the_spec(value: int, weight: int) -> None:
    """No instruction may saturate on the way."""
    shape = Shape(OP, size=(6, 9), channels=DEPTHWISE_CHANNELS)
    weights = np.full(shape.filter_shape(), weight, np.int8)
    view, values = layer(shape, 1, np.zeros(DEPTHWISE_CHANNELS, np.int64), weights)
    data = np.full(shape.input_shape(), value, np.int8)
    assert_kernel_equals_spec(view, [data, *values[1:]], RULES[0])


@RANDOM_SHAPES
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 30)),
    channels=st.integers(2, 50),
    batch=st.integers(1, 3),
    taps=st.sampled_from([(3, 3), (3, 3), (3, 3), (5, 3), (2, 3)]),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["SAME", "VALID"]),
    dtype=st.sampled_from(["int8", "uint8"]),
    seed=st.integers(0, 1000),
    rule=st.sampled_from(RULES),
)
def test_random_shapes_equal_the_spec(
    size: tuple[int, int],
    channels: int,
    batch: int,
    taps: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    dtype: str,
    seed: int,
    rule: Rule,
) -> None:
    shape = Shape(
        OP, dtype, size=size, channels=channels, batch=batch, taps=taps, strides=strides, padding=padding
    )
    assume(shape.output_shape() is not None)
    assert_kernel_equals_spec(*layer(shape, seed), rule)
