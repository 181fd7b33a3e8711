"""Restoring a slice: tiles, units and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from karat.restoration import Network, dequantize_values, quantize_values, restore
from refimpl.builder import GraphBuilder
from refimpl.errors import FeedError
from refimpl.graph import Graph, Quantization, Tensor


def picture_graph(channels: int, size: int) -> Graph:
    builder = GraphBuilder()
    quantization = Quantization.per_tensor(1 / 128, -128)
    given = builder.input("x", (1, size, size, channels), "int8", quantization)
    output = builder.tensor("y", (1, size, size, 1), "int8", quantization)
    builder.layer("ANY", [given], [output])
    return builder.build([output])


def middle_slice(values: np.ndarray) -> np.ndarray:
    return values[..., values.shape[-1] // 2, None]


@pytest.mark.parametrize("halo", [0, 8])
@pytest.mark.parametrize("size", [(64, 64), (80, 104), (70, 50)])
def test_tiles_come_back_where_they_were_cut(size: tuple[int, int], halo: int) -> None:
    """Running the identity restores the middle slice, up to the quantization of its values."""
    noisy = np.random.default_rng(0).random((*size, 3), np.float32)
    tomogan = Network(picture_graph(3, 32), middle_slice)
    fine_tune = Network(picture_graph(1, 32), middle_slice)
    restored = restore(noisy, tomogan, fine_tune, halo)
    expected = np.rint(noisy[..., 1] * 128).clip(0, 255) / 128
    np.testing.assert_array_equal(restored.final, expected.astype(np.float32))
    assert set(restored.seconds) == {"tomogan", "fine_tune", "stitching"}


def test_values_saturate_and_ties_go_to_even() -> None:
    tensor = Tensor(0, "x", (5,), "int8", Quantization.per_tensor(0.5, 1))
    values = np.array([-1e9, 0.25, 0.75, 1e9, 0.0], np.float32)
    codes = quantize_values(values, tensor)
    assert codes.tolist() == [-128, 1, 3, 127, 1]
    assert dequantize_values(codes, tensor).tolist() == [-64.5, 0.0, 1.0, 63.0, 0.0]


@pytest.mark.parametrize(
    ("noisy", "said"),
    [
        (np.zeros((64, 64), np.float32), r"\(64, 64\)"),
        (np.zeros((64, 64, 1), np.float32), r"\(64, 64, 1\)"),
        (np.full((64, 64, 3), np.nan, np.float32), "NaN"),
    ],
)
def test_what_is_no_slice_is_refused(noisy: np.ndarray, said: str) -> None:
    with pytest.raises(FeedError, match=said):
        restore(noisy, Network(picture_graph(3, 32), middle_slice))
