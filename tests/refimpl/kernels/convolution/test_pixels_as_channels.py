"""Few output channels, neighbouring pixels computed as channels of one: the spec's bits."""

from __future__ import annotations

import pytest

from karat24.refimpl.contract import Target
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.convolution.conv_2d import prepare_convolution
from karat24.refimpl.kernels.convolution.dense import DenseConvolution
from tests.cases.weighted_layer import WeightedShape as Shape
from tests.cases.weighted_layer import weighted_layer
from tests.support.kernel_against_spec import ISAS, RULES, assert_all_rules, assert_kernel_equals_spec

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")

SIDE_BY_SIDE = {
    Shape("CONV_2D", size=(4, 48), channels=16, filters=1): 16,
    Shape("CONV_2D", size=(3, 51), channels=3, filters=1, taps=(3, 5)): 3,
    Shape("CONV_2D", size=(3, 26), channels=5, filters=8, taps=(1, 2), padding="VALID"): 1,
    Shape("CONV_2D", size=(3, 27), channels=5, filters=8, taps=(1, 2), padding="VALID"): 2,
    Shape("CONV_2D", size=(5, 45), channels=2, filters=3, strides=(2, 2), dtype="uint8"): 1,
    Shape("CONV_2D", size=(5, 40), channels=2, filters=3, strides=(2, 2), dtype="uint8"): 5,
    Shape("CONV_2D", batch=2, size=(3, 20), channels=7, filters=1, taps=(1, 1)): 15,
    Shape("CONV_2D", size=(2, 9), channels=90, filters=4, taps=(2, 3), bias=False): 3,
    Shape("CONV_2D", size=(2, 12), channels=600, filters=2, taps=(1, 1)): 1,
    Shape("CONV_2D", size=(3, 24), channels=4, filters=2, dilations=(1, 2)): 1,
    Shape("CONV_2D", size=(3, 24), channels=4, filters=2, dilations=(2, 1)): 8,
    Shape("CONV_2D", size=(3, 24), channels=4, filters=2, groups=2): 1,
    Shape("CONV_2D", size=(3, 24), channels=4, filters=2, taps=(3, 1), strides=(1, 2)): 1,
    Shape("CONV_2D", size=(3, 5), channels=4, filters=1): 1,
    Shape("TRANSPOSE_CONV", size=(3, 16), channels=3, filters=2, taps=(2, 3)): 4,
    Shape("TRANSPOSE_CONV", size=(3, 16), channels=3, filters=2, taps=(4, 4), strides=(2, 2)): 1,
    Shape("FULLY_CONNECTED", batch=12, channels=33, filters=5): 3,
}
"""Layers, and how many outputs of a row are computed together: as many as 16 channels, the row's length and
the cache allow; none where taps or channels are spread, or strides leave gaps."""


@pytest.mark.parametrize("shape", SIDE_BY_SIDE, ids=str)
def test_every_rule_and_instruction_set(shape: Shape) -> None:
    assert_all_rules(shape, seed=4)


@pytest.mark.parametrize(("shape", "count"), SIDE_BY_SIDE.items(), ids=str)
def test_as_many_as_fit(shape: Shape, count: int) -> None:
    view, _ = weighted_layer(shape, 0)
    kernel = KERNELS[shape.op](view, RULES[0], Target())
    assert isinstance(kernel, DenseConvolution)
    assert kernel.plan.dimensions.group_filters * shape.groups == count * shape.filters
    assert kernel.strided_outputs == (count == 1)


def test_tails_of_channels_and_of_the_flat_output_stay_where_they_were() -> None:
    """One channel is behind every block of 8; the last elements of the output are, too."""
    view, values = weighted_layer(Shape("CONV_2D", size=(3, 35), channels=9, filters=1), 1)
    kernel = prepare_convolution(view, RULES[-1], Target(ISAS[0]))
    assert isinstance(kernel, DenseConvolution)
    assert kernel.epilogue.flat_body == 105 // 16 * 16
    for rule in RULES[-2:]:
        assert_kernel_equals_spec(view, values, rule)
