"""Bias correction, filters clipped for least error, and what each step of quantization gains."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from karat24.export.quantize import (
    PER_CHANNEL_INT8,
    PER_TENSOR_UINT8,
    PRESETS,
    QuantizationScheme,
    RangeMethod,
    best_of,
    calibrate,
    correct_biases,
    gains,
    quantize_graph,
    quantize_model,
)
from karat24.export.quantize.filters import MAX_BIAS, quantize_filter
from karat24.export.quantize.measure import STEPS, deviation, float_outputs, quantized_outputs
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import fine_tune, tomogan, trained_weights
from tests.support.one_convolution import by_name, conv_graph
from tests.support.smooth_samples import smooth_samples
from tests.support.unequal_channels import mobile_block, two_convs

PLAIN = QuantizationScheme()
PLAIN_UINT8 = QuantizationScheme("uint8", "per_tensor", "uint8")


def mean_errors(graph: Graph, quantized: Graph, samples: list[Array]) -> Array:
    """Per output channel, the mean of quantized less float over all samples, in steps of the output."""
    found, exact = quantized_outputs(quantized, samples), float_outputs(graph, samples)
    error = np.mean(np.stack(found) - np.stack(exact), axis=(0, 1, 2, 3))
    return error / quantized.tensors[quantized.outputs[0]].scale


@pytest.mark.parametrize("scheme", [PLAIN, PLAIN_UINT8], ids=["int8", "uint8"])
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_the_mean_error_falls_below_half_a_step(scheme: QuantizationScheme, upsampling: str) -> None:
    """On the calibration data, whatever the layers before it did; the transposed convolutions have no bias
    of their own and are made up for behind them."""
    graph = tomogan(32, 32, upsampling, seed=3)
    samples = smooth_samples(graph, 4)
    corrected = quantize_model(graph, samples, replace(scheme, correct_bias=True))
    assert np.abs(mean_errors(graph, corrected, samples)).max() < 0.5


def test_what_a_clipped_activation_lost_comes_back() -> None:
    """Half of the inputs' upper range cut off: without correction the mean is off by many steps."""
    graph = conv_graph(np.ones((2, 1, 1, 3)), np.array([0.1, -2.0]), size=(8, 8))
    samples = smooth_samples(graph, 4)
    ranges = calibrate(graph, samples)
    first = graph.inputs[0]
    ranges[first] = ranges[first]._replace(high=ranges[first].high / 2)
    quantized = quantize_graph(graph, ranges, PLAIN)
    assert np.abs(mean_errors(graph, quantized, samples)).min() > 10
    corrected = correct_biases(graph, quantized, samples)
    assert np.abs(mean_errors(graph, corrected, samples)).max() < 0.5


def test_only_biases_change() -> None:
    graph = tomogan(16, 16)
    samples = smooth_samples(graph, 2)
    quantized = quantize_graph(graph, calibrate(graph, samples), PLAIN)
    corrected = correct_biases(graph, quantized, samples)
    assert corrected.layers == quantized.layers
    changed = {a.name for a, b in zip(quantized.tensors, corrected.tensors, strict=True) if a != b}
    assert changed
    assert all(name.endswith("/bias") for name in changed)
    assert all(
        a.quantization == b.quantization for a, b in zip(quantized.tensors, corrected.tensors, strict=True)
    )


def test_exact_layers_are_not_touched() -> None:
    """Weights, bias and inputs that 8 bits hold exactly: nothing to correct, and a ReLU hides nothing."""
    graph = conv_graph(np.array([127.0, -64.0]).reshape(2, 1, 1, 1), np.array([3.0, -5.0]), "RELU", (1, 2))
    samples = [np.array([0.0, 255.0], np.float32).reshape(1, 1, 2, 1)]
    scheme = replace(PLAIN, filters="per_tensor")
    quantized = quantize_graph(graph, calibrate(graph, samples), scheme)
    assert correct_biases(graph, quantized, samples) == quantized


def test_a_channel_of_zeros_keeps_its_bias() -> None:
    """Its output is its bias alone, which is exact to half a step of the accumulator."""
    kernel = np.zeros((2, 1, 1, 1))
    kernel[1] = 0.7
    graph = conv_graph(kernel, np.array([0.25, 0.1]), size=(4, 4))
    samples = smooth_samples(graph, 1)
    quantized = quantize_graph(graph, calibrate(graph, samples), PLAIN)
    corrected = correct_biases(graph, quantized, samples)
    assert by_name(corrected, "b").data[0] == by_name(quantized, "b").data[0]


def test_a_bias_two_layers_share_is_corrected_for_each() -> None:
    """Equal scales let both read one constant; their errors differ."""
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 4, 1), "float32")
    bias = builder.constant("b", np.array([0.3], np.float32))
    attributes = {"padding": "SAME", "stride_w": 1, "stride_h": 1}
    ends = []
    for name, kernel in (("y", [1.0, 0.29]), ("z", [1.0, -0.41])):
        weights = builder.constant(f"{name}/w", np.array(kernel, np.float32).reshape(1, 1, 2, 1))
        out = builder.tensor(name, (1, 4, 4, 1), "float32")
        ends.append(builder.layer("CONV_2D", (x, weights, bias), (out,), **attributes))
    graph = builder.build(ends)
    samples = smooth_samples(graph, 2)
    ranges = calibrate(graph, samples)
    ranges[x] = ranges[x]._replace(high=ranges[x].high / 2)
    quantized = quantize_graph(graph, ranges, PLAIN)
    first, second = (quantized.view(i).input(2) for i in (0, 1))
    assert first.index == second.index
    corrected = correct_biases(graph, quantized, samples)
    first, second = (corrected.view(i).input(2) for i in (0, 1))
    assert first.index != second.index
    assert first.data[0] != second.data[0]
    # Two outputs: the mean of either is right.
    exact = np.mean(np.stack(float_outputs(graph, samples)))
    assert np.mean(np.stack(quantized_outputs(corrected, samples))) == pytest.approx(
        exact, abs=0.5 * corrected.tensors[corrected.outputs[0]].scale
    )


def test_a_bias_never_leaves_its_limit() -> None:
    """A bias of 2³⁰ already, and a correction that would lift it: it stays, and nothing overflows."""
    graph = conv_graph(np.full((1, 1, 1, 1), 1e-9), np.array([30.0]))
    samples = [np.full((1, 1, 1, 1), 1.0, np.float32)]
    quantized = quantize_graph(graph, calibrate(graph, samples), PLAIN)
    other = conv_graph(np.full((1, 1, 1, 1), 1e-9), np.array([90.0]))
    corrected = correct_biases(other, quantized, samples)
    assert by_name(corrected, "b").data[0] == MAX_BIAS["int32"]


def test_graphs_that_do_not_belong_together_are_refused() -> None:
    graph = tomogan(16, 16)
    samples = smooth_samples(graph, 1)
    quantized = quantize_model(graph, samples, PLAIN)
    with pytest.raises(ModelError, match="'tomogan' is not what quantization made of 'fine_tune'"):
        correct_biases(fine_tune(16, 16), quantized, smooth_samples(fine_tune(16, 16), 1))


def snr(graph: Graph, scheme: QuantizationScheme) -> float:
    samples = smooth_samples(graph, 4)
    found = quantized_outputs(quantize_model(graph, samples, scheme), samples)
    return deviation(float_outputs(graph, samples), found).snr_db


@pytest.mark.parametrize("network", [two_convs, mobile_block])
def test_equalization_saves_channels_lost_beside_a_larger_one(network) -> None:
    """Channels 3·10⁵ apart behind one scale: every channel but the largest is zero without it."""
    graph = network()
    for scheme in (PLAIN_UINT8, replace(PLAIN, filters="per_tensor")):
        assert snr(graph, replace(scheme, equalize=True)) > snr(graph, scheme) + 6


def test_depthwise_filters_are_quantized_along_the_last_axis() -> None:
    graph = mobile_block()
    quantized = quantize_model(graph, smooth_samples(graph, 1), PER_CHANNEL_INT8)
    weights, bias = by_name(quantized, "d/w"), by_name(quantized, "d/b")
    assert weights.quantization.axis == 3
    assert len(weights.quantization.scale) == len(bias.quantization.scale) == 12
    uint8 = quantize_model(graph, smooth_samples(graph, 1), PER_TENSOR_UINT8)
    assert not by_name(uint8, "d/w").quantization.per_channel


def filter_error(values: Array, dtype: str, per_channel: bool, least_error: bool) -> Array:
    """Squared error of each output channel's quantized filter."""
    codes, q = quantize_filter(values, None, 1.0, dtype, per_channel, least_error=least_error)
    shape = (-1, 1, 1, 1)
    scale, zero = np.array(q.scale).reshape(shape), np.array(q.zero_point).reshape(shape)
    return np.square((codes.astype(float) - zero) * scale - values).sum(axis=(1, 2, 3))


@pytest.mark.parametrize(("dtype", "per_channel"), [("int8", True), ("int8", False), ("uint8", False)])
def test_clipped_filters_lose_less(dtype: str, per_channel: bool) -> None:
    """Long tails: a finer scale for the many pays for the few that are clipped. Channel 2 holds zeros,
    channel 3 one value over and over: nothing to clip."""
    values = np.random.default_rng(0).laplace(size=(4, 20, 20, 50)).astype(np.float32)
    values[2], values[3] = 0, 0.5
    plain, clipped = (filter_error(values, dtype, per_channel, choice) for choice in (False, True))
    assert clipped.sum() < 0.95 * plain.sum()
    if per_channel:
        assert (clipped <= plain).all()
        assert clipped[2] == 0
        assert clipped[3] == plain[3]


def test_one_sided_filters_stay_one_sided() -> None:
    """uint8: no weight is negative, so that the zero point stays at the end."""
    values = np.random.default_rng(0).exponential(size=(2, 5, 5, 8)).astype(np.float32)
    _, q = quantize_filter(values, None, 1.0, "uint8", per_channel=False, least_error=True)
    assert q.zero_point == (1,)
    assert q.scale[0] < float(values.max()) / 254


def test_a_clipped_filter_still_has_room_for_its_bias() -> None:
    values = np.full((1, 1, 1, 4), 1e-9, np.float32)
    _, q = quantize_filter(values, np.array([30.0]), 1.0, "int8", per_channel=True, least_error=True)
    assert 30.0 / q.scale[0] <= MAX_BIAS["int32"] * (1 + 1e-6)


def test_gains_reports_every_step_and_keeps_what_gains() -> None:
    graph = two_convs()
    samples = smooth_samples(graph, 6)
    rows = gains(graph, iter(samples[:4]), iter(samples[4:]), PER_TENSOR_UINT8)
    assert [row.step for row in rows] == list(STEPS)
    reached = -math.inf
    for row in rows:
        assert row.kept == (row.deviation.snr_db > reached)
        reached = max(reached, row.deviation.snr_db)
    assert rows[0].scheme == PLAIN_UINT8
    assert [row.scheme.range_method.name for row in rows[:3]] == ["minmax", "percentile", "mse"]
    assert best_of(rows).equalize
    assert best_of(rows).activations == "uint8"
    # The row says what its scheme gives when it is used.
    found = quantized_outputs(quantize_model(graph, samples[:4], best_of(rows)), samples[4:])
    kept = [row for row in rows if row.kept][-1]
    assert deviation(float_outputs(graph, samples[4:]), found) == kept.deviation


def test_deviation_is_what_it_says() -> None:
    exact = [np.array([0.0, 2.0]), np.array([-2.0, 0.0])]
    found = [np.array([0.5, 2.0]), np.array([-2.0, -0.1])]
    d = deviation(exact, found)
    noise = (0.25 + 0.01) / 4
    assert d.snr_db == pytest.approx(10 * math.log10(2 / noise))
    assert d.psnr_db == pytest.approx(10 * math.log10(16 / noise))
    assert (d.mean_error, d.mean_absolute, d.greatest) == pytest.approx((0.1, 0.15, 0.5))
    assert deviation(exact, exact).snr_db == math.inf


@pytest.mark.parametrize(("preset", "decibels"), [("int8", 0.0), ("uint8-2019", 1.0)])
def test_presets_gain_over_plain_ranges(preset: str, decibels: float) -> None:
    """On the weights that ship; most where one scale must do for a whole filter."""
    graph = tomogan(32, 32, weights=trained_weights("tomogan"))
    plain = replace(PRESETS[preset], filter_ranges="minmax", equalize=False, correct_bias=False)
    assert plain.range_method == RangeMethod("minmax")
    assert snr(graph, PRESETS[preset]) > snr(graph, plain) + decibels


def test_unknown_filter_ranges_are_refused() -> None:
    with pytest.raises(UsageError, match="filter ranges 'percentile'"):
        QuantizationScheme(filter_ranges="percentile")
