"""What was removed, tested for structure: planted at known contrast, and not planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from karat24.refimpl.graph import Array
from karat24.tomography.honesty.residual import judge_residual
from karat24.tomography.honesty.views import count_views, resolved_below
from tests.support.planted import SPAN, planted, scene

KINDS = ("wood", "electrode", "concrete", "tissue", "porous", "struts")
SCANS = [(kind, 1, dose) for kind in KINDS for dose in (2e3, 1e4, 1e5)]
"""Noise of 0.01 to 0.11 grey, 400 views of 256 pixels."""


def noise_of(kind: str, seed: int, dose: float) -> float:
    scan = scene(kind, seed, 400, dose)
    return float((scan.window[..., 1] - scan.clean).std())


def detectable(kind: str, seed: int, dose: float, contrast: float) -> bool:
    """Whether patches of this contrast reach 0.35 of the noise, all frequencies together."""
    return contrast * SPAN > 0.35 * noise_of(kind, seed, dose)


def test_pure_noise_passes_for_noise() -> None:
    """At most 2 % of slices falsely; here none of 18."""
    marked = []
    for kind, seed, dose in SCANS:
        scan = scene(kind, seed, 400, dose)
        if judge_residual(scan.window, scan.clean, 0).structured:
            marked.append((kind, seed, dose))
    assert not marked


@pytest.mark.parametrize("contrast", [0.02, 0.05])
def test_planted_loss_is_found(contrast: float) -> None:
    """At least 95 % of the slices in which it can be seen at all."""
    seen = [scan for scan in SCANS if detectable(*scan, contrast)]
    assert len(seen) >= 6
    missed = []
    for kind, seed, dose in seen:
        scan = planted(scene(kind, seed, 400, dose), seed, contrast)
        if not judge_residual(scan.window, scan.clean, 0).structured:
            missed.append((kind, seed, dose))
    assert len(missed) <= 0.05 * len(seen), missed


@pytest.mark.parametrize("kind", KINDS)
def test_blurred_edges_are_found(kind: str) -> None:
    """A restoration that blurs by 2 pixels takes edges away; the exact one does not."""
    scan = scene(kind, 1, 400, 1e4)
    found = judge_residual(scan.window, gaussian_filter(scan.clean, 2.0), 0)
    assert found.structured
    exact = judge_residual(scan.window, scan.clean, 0)
    assert all(abs(share) < 0.1 for share in exact.edges if share is not None)


def repeated(window: Array) -> Array:
    return np.repeat(window[..., 1:2], 3, axis=2)


def test_repeated_slices_and_correlated_noise_are_no_structure() -> None:
    """Where neighbours tell nothing of the noise, its own spectrum must do: it tells strong losses only."""
    for kind in KINDS:
        scan = scene(kind, 1, 400, 1e4)
        assert not judge_residual(repeated(scan.window), scan.clean, 0).structured
        lost = planted(scan, 1, 0.1)
        assert judge_residual(repeated(lost.window), lost.clean, 0).structured


def test_streaks_of_few_views_are_not_taken_for_structure() -> None:
    """Bands that hold streaks are left out; with the views ignored, they would be marked."""
    scan = scene("wood", 1, 60, 1e6)
    views = count_views(scan.window[..., 1])
    assert views == 60
    found = judge_residual(scan.window, scan.clean, views)
    assert not found.structured
    assert found.excess[0] is None
    assert judge_residual(scan.window, scan.clean, 800).structured


def test_too_few_views_are_not_judged_and_say_so() -> None:
    scan = scene("wood", 1, 40, 1e6)
    found = judge_residual(scan.window, scan.clean, 3)
    assert not found.judged
    assert not found.structured
    assert "not judged" in found.describe()


def test_nothing_removed_is_nothing_lost() -> None:
    window = scene("porous", 1, 400, 0.0).window
    found = judge_residual(window, window[..., 1], 0)
    assert found.judged
    assert not found.structured
    assert found.describe() == "noise"


def test_masked_pixels_do_not_count() -> None:
    scan = scene("wood", 1, 400, 1e4)
    masked = np.zeros(scan.clean.shape, bool)
    masked[:60] = True
    spoilt = scan.clean.copy()
    spoilt[:60] += np.float32(0.3)
    assert judge_residual(scan.window, spoilt, 0).structured
    assert not judge_residual(scan.window, spoilt, 0, masked).structured


@pytest.mark.parametrize("views", [30, 45, 60, 90])
def test_views_are_counted_from_a_slice(views: int) -> None:
    """Whatever the sample and the noise."""
    for kind, dose in (("wood", 1e3), ("electrode", 1e5), ("tissue", 1e4)):
        assert count_views(scene(kind, 3, views, dose).window[..., 1]) == views


def test_no_views_are_counted_where_there_are_enough_of_them() -> None:
    for kind in KINDS:
        assert count_views(scene(kind, 1, 400, 0.0).window[..., 1]) is None
        assert count_views(scene(kind, 1, 400, 2e3).window[..., 1]) is None


@pytest.mark.parametrize("image", [np.zeros((64, 64)), np.ones((40, 9)), np.eye(3)])
def test_an_image_without_anything_has_no_views(image: Array) -> None:
    assert count_views(image) is None


def test_frequencies_free_of_streaks_follow_the_views() -> None:
    assert resolved_below(314, 100) == pytest.approx(1.0, rel=1e-3)
    assert resolved_below(None, 256) == pytest.approx(0.5 / np.pi)
