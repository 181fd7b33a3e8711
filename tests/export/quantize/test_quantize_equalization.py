"""Cross-layer equalization: what is rescaled, what must not be, and that the float function stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from karat24.export.quantize import equalize, run_float
from karat24.export.quantize.equalization import GREATEST_FACTOR
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import tomogan
from tests.support.one_convolution import by_name, conv_graph
from tests.support.smooth_samples import smooth_samples
from tests.support.unequal_channels import SPREAD, STRIDE_1, Chain, mobile_block, two_convs

EPSILON = float(np.finfo(np.float32).eps)


def grouped() -> Graph:
    """Each group of the second convolution reads half of the channels."""
    chain = Chain()
    chain.conv("a", 6, rows=SPREAD)
    chain.conv("g", 4, groups=2)
    chain.conv("y", 2, "NONE")
    return chain.end()


def skipping() -> Graph:
    """One side of the concatenation is read by a second layer too."""
    chain = Chain()
    first = chain.conv("a", 6, rows=SPREAD)
    second = chain.conv("b", 3)
    chain.concat(first, second, "both")
    chain.conv("y", 2, "NONE")
    return chain.end()


NETWORKS: dict[str, Callable[[], Graph]] = {
    "two convolutions": two_convs,
    "depthwise": mobile_block,
    "grouped": grouped,
    "concatenation": skipping,
    "TomoGAN, bilinear": lambda: tomogan(16, 16),
    "TomoGAN, transposed": lambda: tomogan(16, 16, "transposed"),
}


def outputs(graph: Graph) -> Array:
    return np.stack([values[0] for values in run_float(graph, smooth_samples(graph, 2))])


@pytest.mark.parametrize("network", NETWORKS)
def test_the_float_function_stays_within_float_rounding(network: str) -> None:
    """Spread of 3·10⁵ between channels; pools, resizes, concatenations and skips on the way."""
    graph = NETWORKS[network]()
    equalized = equalize(graph)
    before, after = outputs(graph), outputs(equalized)
    # A sum of at most 1152 products and some layers of them: far below an 8-bit step of 2**-8.
    assert np.abs(before - after).max() <= 64 * EPSILON * np.abs(before).max()
    assert equalized != graph
    assert [t.name for t in equalized.tensors] == [t.name for t in graph.tensors]
    assert equalized.layers == graph.layers


def test_ranges_on_both_sides_of_a_channel_agree() -> None:
    """What the factors are defined by; before, one rises by 3·10⁵ where the other falls."""
    graph = equalize(two_convs())
    made = np.abs(by_name(graph, "a/w").data).max(axis=(1, 2, 3))
    read = np.abs(by_name(graph, "y/w").data).max(axis=(0, 1, 2))
    np.testing.assert_allclose(made, read, rtol=1e-6)


def test_depthwise_ranges_agree_too() -> None:
    """A depthwise filter has its output channels last; two of them read one input channel."""
    graph = equalize(mobile_block())
    depthwise = np.abs(by_name(graph, "d/w").data).max(axis=(0, 1, 2))
    np.testing.assert_allclose(
        np.abs(by_name(graph, "a/w").data).max(axis=(1, 2, 3)), depthwise.reshape(6, 2).max(axis=1), rtol=5e-3
    )
    np.testing.assert_allclose(depthwise, np.abs(by_name(graph, "y/w").data).max(axis=(0, 1, 2)), rtol=5e-3)


def test_a_channel_of_zeros_and_one_nobody_reads_stay() -> None:
    """Nothing to divide by: channel 1 is made of zeros (and a bias), channel 4 read with zeros."""
    made = SPREAD.copy()
    made[1] = 0
    chain = Chain()
    chain.conv("a", 6, rows=made)
    kernel = np.ones((2, 1, 1, 6), np.float32)
    kernel[..., 4] = 0
    weights = chain.builder.constant("y/w", kernel)
    y = chain.builder.tensor("y", (1, 4, 4, 2), "float32")
    chain.x = chain.builder.layer("CONV_2D", (chain.x, weights), (y,), **STRIDE_1)
    graph = chain.end()
    equalized = equalize(graph)
    for channel in (1, 4):
        for name in ("a/w", "a/b"):
            np.testing.assert_array_equal(
                by_name(equalized, name).data[channel], by_name(graph, name).data[channel]
            )
    assert not np.array_equal(by_name(equalized, "a/w").data[0], by_name(graph, "a/w").data[0])
    assert np.isfinite(by_name(equalized, "y/w").data).all()


@pytest.mark.parametrize("activation", ["RELU6", "RELU_N1_TO_1"])
def test_clipped_activations_keep_their_size(activation: str) -> None:
    """``min(x, 6)`` does not commute with a factor."""
    chain = Chain()
    chain.conv("a", 6, activation, rows=SPREAD)
    chain.conv("y", 2, "NONE")
    graph = chain.end()
    assert equalize(graph) == graph


def test_graph_outputs_keep_their_size() -> None:
    """The inner tensor is an output as well: its values are seen."""
    chain = Chain()
    inner = chain.conv("a", 6, rows=SPREAD)
    chain.conv("y", 2, "NONE")
    graph = chain.end(inner)
    assert equalize(graph) == graph


def test_one_convolution_is_left_alone() -> None:
    graph = conv_graph(np.array([[1000.0], [1e-3]]).reshape(2, 1, 1, 1), np.ones(2))
    assert equalize(graph) == graph


def test_a_filter_of_two_layers_is_left_alone() -> None:
    """Rescaling it for one would change the other."""
    chain = Chain(channels=2)
    weights = chain.builder.constant("w", (np.arange(4, dtype=np.float32) - 1.3).reshape(2, 1, 1, 2))
    for name in ("a", "y"):
        out = chain.builder.tensor(name, (1, 4, 4, 2), "float32")
        chain.x = chain.builder.layer("CONV_2D", (chain.x, weights), (out,), **STRIDE_1)
    graph = chain.end()
    assert equalize(graph) == graph


def test_factors_are_bounded() -> None:
    """A channel of 1e-30 is not blown up to the others' size: products of factors must stay in float32."""
    chain = Chain()
    chain.conv("a", 6, rows=np.array([1e-30, 1, 1, 1, 1, 1]))
    chain.conv("y", 2, "NONE")
    graph = chain.end()
    before, after = (by_name(g, "a/w").data[0] for g in (graph, equalize(graph)))
    np.testing.assert_allclose(after / before, GREATEST_FACTOR, rtol=1e-5)


def test_what_cannot_be_equalized_is_refused() -> None:
    with pytest.raises(ModelError, match=r"layer 0 \(CONV_2D, 'y'\): 'w' holds NaN"):
        equalize(conv_graph(np.full((1, 1, 1, 1), np.nan)))
