"""Calibration samples: what is cut from a file, what is refused, and what quantization costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from karat24.export.quantize import PRESETS, quantize_model
from karat24.refimpl.errors import FeedError
from karat24.refimpl.networks import fine_tune, tomogan
from karat24.tomography import calibration_inputs
from karat24.tomography.calibration_inputs import calibration_samples, signal_to_noise, tiles_of


def test_a_file_is_cut_into_tiles_of_the_network(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 48, 64, 1), np.float32)
    path = tmp_path / "images.npy"
    np.save(path, images)
    samples = calibration_samples(fine_tune(16, 32), path)
    assert {sample.shape for sample in samples} == {(1, 16, 32, 1)}
    assert len(samples) == 2 * 6
    np.testing.assert_array_equal(samples[0][0], images[0, :16, :32])


def test_simulated_samples_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_inputs, "SLICES", 2)
    first, second = (calibration_samples(fine_tune(64, 64), None, 1) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((1, 64, 64, 3), np.float32), r"needed is \[samples, y, x, 1\]"),
        (np.zeros((0, 64, 64, 1), np.float32), "at least one sample"),
        (np.zeros((1, 8, 64, 1), np.float32), "smaller than the network"),
        (np.full((1, 64, 64, 1), np.nan, np.float32), "NaN"),
        (np.zeros((1, 64, 64, 1), np.uint8), "floating-point"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(values: np.ndarray, said: str, tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, values)
    with pytest.raises(FeedError, match=said):
        calibration_samples(fine_tune(16, 16), path)


def test_zero_points_cost_less_than_none() -> None:
    """An activation behind ReLU uses half of a symmetric range, so a bit is lost."""
    network = tomogan(32, 32, seed=1)
    samples = tiles_of(np.random.default_rng(0).random((2, 64, 64, 3)).astype(np.float32), 32, 32)
    costs = {
        name: signal_to_noise(network, quantize_model(network, samples, PRESETS[name]), samples)
        for name in ("int8", "int8-symmetric")
    }
    assert 15 < costs["int8-symmetric"] < costs["int8"] < 60
