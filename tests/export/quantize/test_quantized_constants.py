"""Parameters from ranges, quantized filters and biases, and the overflow check."""

from __future__ import annotations

import math

import numpy as np
import pytest

from karat24.export.quantize import (
    SYMMETRIC_INT8,
    Range,
    check_accumulators,
    quantize_model,
)
from karat24.export.quantize.affine import parameters_of_range, quantize_bias
from karat24.export.quantize.filters import quantize_filter
from karat24.export.quantize.overflow import accumulator_reach
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.networks import tomogan
from tests.support.one_convolution import quantized_conv
from tests.support.smooth_samples import smooth_samples


def test_zero_is_always_representable_and_inside_the_range() -> None:
    """Ranges on either side of zero are stretched to hold it."""
    for low, high in ((0.5, 2.0), (-3.0, -1.0), (-1.0, 1.0), (-0.1, 12.7), (-1e-6, 1e6)):
        for dtype in ("int8", "uint8"):
            q = parameters_of_range(Range(low, high), dtype)
            qmin, qmax = (-128, 127) if dtype == "int8" else (0, 255)
            assert qmin <= q.zero_point[0] <= qmax
            # Zero-point rounding moves either end by at most half a step.
            assert (qmin - q.zero_point[0]) * q.scale[0] <= min(low, 0) + 0.5001 * q.scale[0]
            assert (qmax - q.zero_point[0]) * q.scale[0] >= max(high, 0) - 0.5001 * q.scale[0]


def test_symmetric_ranges_have_zero_point_zero() -> None:
    assert parameters_of_range(Range(-1.27, 0.3), "int8", symmetric=True) == Quantization.per_tensor(0.01)
    assert parameters_of_range(Range(0, 1.27), "int8", symmetric=True) == Quantization.per_tensor(0.01)
    graph = tomogan(16, 16)
    quantized = quantize_model(graph, smooth_samples(graph, 1), SYMMETRIC_INT8)
    assert {p for t in quantized.tensors if t.quantization for p in t.quantization.zero_point} == {0}


def test_empty_and_tiny_ranges_have_usable_scales() -> None:
    assert parameters_of_range(Range(0, 0), "int8") == parameters_of_range(Range(0, 1), "int8")
    assert parameters_of_range(Range(0, 1e-38), "int8").scale[0] == 2.0**-40
    for values in (Range(0, math.inf), Range(math.nan, 1), Range(-3e38, 3e38)):
        with pytest.raises(ModelError, match="finite"):
            parameters_of_range(values, "int8")


def test_per_channel_filters_use_the_whole_narrow_range() -> None:
    """Channels a thousandfold apart each reach ±127; -128 is never used."""
    kernel = np.array([[-2.0, 1.0], [0.002, -0.001]], np.float32).reshape(2, 1, 1, 2)
    quantized = quantized_conv(kernel).view(0).input(1)
    assert quantized.data.reshape(2, 2).tolist() == [[-127, 64], [127, -64]]
    assert quantized.quantization.scale == tuple(float(np.float32(m / 127)) for m in (2.0, np.float32(0.002)))
    assert quantized.quantization.zero_point == (0, 0)
    per_tensor = quantized_conv(kernel, filters="per_tensor").view(0).input(1)
    assert per_tensor.data.reshape(2, 2).tolist() == [[-127, 64], [0, 0]]


def test_uint8_filters_are_asymmetric_and_never_zero() -> None:
    """TensorFlow's narrow range, 1 … 255."""
    kernel = np.array([-1.0, 0.0, 1.54], np.float32).reshape(3, 1, 1, 1)
    filter_ = quantized_conv(kernel, activations="uint8", filters="per_tensor").view(1).input(1)
    assert filter_.scale == pytest.approx(0.01)
    assert filter_.zero_point == 101
    assert filter_.data.reshape(-1).tolist() == [1, 101, 255]


def test_bias_has_the_product_of_the_scales() -> None:
    kernel = np.array([1.27, 2.54], np.float32).reshape(2, 1, 1, 1)
    view = quantized_conv(kernel, np.array([0.5, -0.5]), x=(0, 2.55)).view(0)
    image, filter_, bias = view.input(0), view.input(1), view.input(2)
    assert bias.dtype == "int32"
    expected = np.float32(image.scale) * np.array(filter_.quantization.scale, np.float32)
    assert bias.quantization.scale == tuple(float(s) for s in expected)
    assert bias.data.tolist() == [5000, -2500]


@pytest.mark.parametrize(
    "options", [{}, {"filters": "per_tensor"}, {"activations": "uint8", "filters": "per_tensor"}]
)
def test_a_large_bias_widens_the_filters_scale(options) -> None:
    """With the filter's own scale this bias would be 1e12, far from int32."""
    graph = quantized_conv(np.full((1, 1, 1, 1), 1e-9), np.array([30.0]), y=(0, 40), **options)
    (view,) = (view for view in graph.views() if view.op == "CONV_2D")
    bias = view.input(2)
    assert 2**29 < bias.data[0] <= 2**30
    assert bias.data[0] * bias.scale == pytest.approx(30.0)


def test_channels_of_zeros_borrow_a_scale() -> None:
    kernel = np.zeros((2, 1, 1, 1), np.float32)
    _, dead = quantize_filter(kernel, None, 1.0, "int8", per_channel=True)
    assert dead.scale == (float(np.float32(2.0**-20 / 127)),) * 2
    kernel[1] = 8
    values, half_dead = quantize_filter(kernel, None, 1.0, "int8", per_channel=True)
    assert half_dead.scale[0] == pytest.approx(half_dead.scale[1] * 2**-20)
    assert values.reshape(-1).tolist() == [0, 127]


def test_bias_rounds_half_to_even() -> None:
    """Ties at .5 of a step, both signs."""
    values, _ = quantize_bias(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), 1.0, Quantization.per_tensor(1.0))
    assert values.tolist() == [0, 2, 2, 0, -2]


def test_reach_is_attained_by_the_worst_input() -> None:
    """The bound is tight: some input gives exactly that accumulator."""
    random = np.random.default_rng(5)
    graph = quantized_conv(random.standard_normal((3, 1, 1, 7)), random.standard_normal(3), x=(-1, 3))
    view = graph.view(0)
    image, weights = view.input(0), view.input(1).data.reshape(3, 7).astype(int)
    extremes = []
    for signs in (weights > 0, weights < 0):
        worst = np.where(signs, 127, -128) - image.zero_point
        extremes.append((worst * weights).sum(axis=1))
        extremes.append(extremes[-1] + view.input(2).data)
    assert accumulator_reach(view) == np.abs(extremes).max()


def test_an_accumulator_that_could_overflow_is_refused() -> None:
    """9 × 8192 products of 255 × 127 exceed 2³¹ - 1; 9 × 7367 do not."""
    fits = quantized_conv(np.ones((1, 3, 3, 7367)), y=(0, 7e4))
    assert accumulator_reach(fits.view(0)) == 9 * 7367 * 255 * 127 <= 2**31 - 1
    with pytest.raises(ModelError, match=r"layer 0 \(CONV_2D, 'y'\): accumulators can reach ±2387681280"):
        quantized_conv(np.ones((1, 3, 3, 8192)), y=(0, 7e4))


def test_bias_counts_towards_overflow() -> None:
    """2³¹ - 1 is reached exactly, then passed by one."""

    def graph(bias: int) -> Graph:
        builder = GraphBuilder()
        one = Quantization.per_tensor(1.0)
        x = builder.input("x", (1, 1, 1, 1), "int8", Quantization.per_tensor(1.0, -128))
        kernel = builder.constant("w", np.full((1, 1, 1, 1), 127, np.int8), one)
        b = builder.constant("b", np.array([bias], np.int32), one)
        y = builder.tensor("y", (1, 1, 1, 1), "int8", Quantization.per_tensor(2.0**25))
        return builder.build((builder.layer("CONV_2D", (x, kernel, b), (y,)),))

    room = 2**31 - 1 - 255 * 127
    check_accumulators(graph(room))
    with pytest.raises(ModelError, match="±2147483648"):
        check_accumulators(graph(room + 1))
    # Downwards int32 has one more, which is left unused.
    with pytest.raises(ModelError, match="±2147483648"):
        check_accumulators(graph(-(2**31)))


def test_a_left_shift_out_of_int32_is_refused() -> None:
    """An output range a million times narrower than the products: runtimes would wrap silently."""
    with pytest.raises(ModelError, match="shifted left by"):
        quantized_conv(np.ones((1, 1, 1, 64)), y=(0, 1e-6))


def test_transposed_convolutions_are_checked_too() -> None:
    graph = tomogan(16, 16, "transposed")
    quantized = quantize_model(graph, smooth_samples(graph, 1))
    reach = {view.output().name: accumulator_reach(view) for view in quantized.views() if "CONV" in view.op}
    assert 0 < reach["up3/upsample/linear"] <= 16 * 128 * 127 * 255
