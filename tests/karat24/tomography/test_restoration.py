"""Restoring a slice: tiles, units and refusals."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Graph, Quantization, Tensor
from karat24.tomography.restoration import (
    Network,
    dequantize_values,
    quantize_values,
    restore,
)


def picture_graph(channels: int, size: int) -> Graph:
    builder = GraphBuilder()
    quantization = Quantization.per_tensor(1 / 128, -128)
    given = builder.input("x", (1, size, size, channels), "int8", quantization)
    output = builder.tensor("y", (1, size, size, 1), "int8", quantization)
    builder.layer("ANY", [given], [output])
    return builder.build([output])


def middle_slice(values: np.ndarray) -> np.ndarray:
    return values[..., values.shape[-1] // 2, None]


@pytest.mark.parametrize("overlap", [{}, {"halo": 8}, {"blend": 15}])
@pytest.mark.parametrize("size", [(64, 64), (80, 104), (70, 50)])
def test_tiles_come_back_where_they_were_cut(size: tuple[int, int], overlap: dict[str, int]) -> None:
    """Running the identity restores the middle slice, up to the quantization of its values."""
    noisy = np.random.default_rng(0).random((*size, 3), np.float32)
    tomogan = Network(picture_graph(3, 32), middle_slice)
    fine_tune = Network(picture_graph(1, 32), middle_slice)
    restored = restore(noisy, tomogan, fine_tune, **overlap)
    expected = np.rint(noisy[..., 1] * 128).clip(0, 255) / 128
    np.testing.assert_array_equal(restored.final, expected.astype(np.float32))
    assert set(restored.seconds) == {"tomogan", "fine_tune", "stitching"}


def test_blended_tiles_are_repaired_before_they_are_averaged() -> None:
    """Fine-Tune answers with a constant for each tile; the stitched image holds values between them."""
    noisy = np.zeros((32, 48, 3), np.float32)
    noisy[:, 40:] = 0.5
    first = Network(picture_graph(3, 32), middle_slice)
    largest = Network(
        picture_graph(1, 32), lambda values: np.full_like(values, values.max(axis=(0, 1, 2), keepdims=True))
    )
    found = restore(noisy, first, largest, blend=16).final[0]
    assert found[0] == 0.0
    assert found[-1] == 0.5
    assert np.all(np.diff(found[16:32]) > 0)


def test_seconds_are_added_up_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves on by a second each time it is read: tiles are cut once and stitched twice."""
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    networks = (Network(picture_graph(3, 32), middle_slice), Network(picture_graph(1, 32), middle_slice))
    found = restore(np.zeros((48, 48, 3), np.float32), *networks, blend=8)
    assert found.seconds == {"stitching": 3.0, "tomogan": 1.0, "fine_tune": 1.0}


def test_blended_tiles_need_networks_of_one_size() -> None:
    networks = (Network(picture_graph(3, 32), middle_slice), Network(picture_graph(1, 64), middle_slice))
    with pytest.raises(UsageError, match=r"\(32, 32\), and Fine-Tune takes \(64, 64\)"):
        restore(np.zeros((64, 64, 3), np.float32), *networks, blend=8)


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
        (np.full((64, 64, 3), 40000, np.uint16), "uint16, not real values.*Normalization"),
        (np.full((64, 64, 3), 900.0, np.float32), "12288 of 12288 values would be clipped.*Normalization"),
        (np.linspace(0, 1e-3, 12288, dtype=np.float32).reshape(64, 64, 3), "would fall on 1 steps"),
    ],
)
def test_what_is_no_slice_is_refused(noisy: np.ndarray, said: str) -> None:
    with pytest.raises(FeedError, match=said):
        restore(noisy, Network(picture_graph(3, 32), middle_slice))
