"""Similarity, noise and the peers' inputs against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.quality.cases import Slice
from benchmarks.quality.metrics import psnr, ssim
from benchmarks.quality.peers import PEERS, averaged, noise, restore_by


def test_similarity_of_two_flat_slices_is_the_luminance_term() -> None:
    """Without variance the contrast term is C2/C2, which leaves (2ab + C1) / (a² + b² + C1), C1 = 0.01²."""
    a, b = 0.5, 0.8
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    found = ssim(np.full((32, 32), a, np.float32), np.full((32, 32), b, np.float32))
    assert found == pytest.approx(expected, abs=1e-6)


def test_similarity_to_inverted_contrast_is_negative() -> None:
    image = np.indices((32, 32)).sum(axis=0) % 2 * 0.8 + 0.1
    assert ssim(image, 1 - image) < -0.9
    assert ssim(image, image) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("error", "decibels"), [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0)])
def test_peak_signal_to_noise(error: float, decibels: float) -> None:
    clean = np.zeros((16, 16))
    assert psnr(clean, clean + error) == pytest.approx(decibels, abs=1e-4)


def test_noise_is_estimated_and_a_ramp_is_none() -> None:
    """The diagonal Haar detail of a plane is zero; of white noise it has the noise's deviation."""
    rows, columns = np.indices((201, 257))
    ramp = 0.001 * rows + 0.002 * columns
    assert noise(ramp) == pytest.approx(0, abs=1e-12)
    white = np.random.default_rng(0).normal(0, 0.05, ramp.shape)
    assert noise(ramp + white) == pytest.approx(0.05, rel=0.03)


def test_neighbours_are_averaged_in() -> None:
    noisy = np.array([[[0.0, 3.0, 9.0]]], np.float32)
    assert averaged(noisy, 0.0).item() == 3
    assert averaged(noisy, 0.25).item() == 3.75
    assert averaged(noisy, 1 / 3).item() == pytest.approx(4)


@pytest.mark.parametrize("peer", sorted(PEERS))
def test_a_peer_restores_with_the_best_of_its_choices(peer: str) -> None:
    """No other strength gives a higher similarity; the neighbours, pure noise here, are left out."""
    random = np.random.default_rng(1)
    clean = np.zeros((64, 64), np.float32)
    clean[16:48, 16:48] = 1
    noisy = random.random((64, 64, 3)).astype(np.float32)
    noisy[..., 1] = clean + random.normal(0, 0.1, clean.shape)
    image, choice = restore_by(peer, Slice(noisy, clean))
    denoise, strengths = PEERS[peer]
    assert choice["neighbours"] == 0
    assert ssim(clean, image) == max(ssim(clean, denoise(noisy[..., 1], s)) for s in strengths)
    assert ssim(clean, image) > ssim(clean, noisy[..., 1]) + 0.2
    assert not math.isnan(image.sum())
