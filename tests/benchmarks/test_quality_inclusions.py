"""Counting inclusions: every kept, lost and invented one of synthetic slices, and what is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import area_opening

from benchmarks.quality.inclusions import LARGEST, LEAST, LEVELS, MOST, Counts, Truth, _height

SPOTS = [(20, 20), (20, 60), (60, 20), (60, 60), (100, 100)]


def slice_with(spots: list[tuple[int, int]], height: float, radius: float = 3.0) -> np.ndarray:
    """Grey 0.5 with discs that are ``height`` brighter."""
    rows, columns = np.indices((128, 128))
    image = np.full((128, 128), 0.5, np.float32)
    for y, x in spots:
        image[np.hypot(rows - y, columns - x) <= radius] += height
    return image


@pytest.mark.parametrize(("height", "polarity"), [(0.3, "bright"), (-0.3, "dark")])
def test_kept_lost_and_invented_are_counted_exactly(height: float, polarity: str) -> None:
    """Two of five are missing and one is new; the other polarity has nothing."""
    clean = slice_with(SPOTS, height)
    restored = slice_with([*SPOTS[:3], (100, 20)], height)
    found = Truth(clean).compare(restored)
    assert found[polarity] == Counts(present=5, lost=2, invented=1)
    assert found[polarity].kept == 3
    other = {"bright": "dark", "dark": "bright"}[polarity]
    assert found[other] == Counts(0, 0, 0)


def test_where_they_are_is_told() -> None:
    places = Truth(slice_with(SPOTS, 0.3)).places(slice_with(SPOTS[1:], 0.3))["bright"]
    np.testing.assert_allclose(places.lost, [SPOTS[0]], atol=0.01)
    np.testing.assert_allclose(sorted(map(tuple, places.present)), SPOTS, atol=0.01)
    assert places.invented.shape == (0, 2)


def test_an_inverted_inclusion_is_lost_and_invented() -> None:
    found = Truth(slice_with(SPOTS[:1], 0.3)).compare(slice_with(SPOTS[:1], -0.3))
    assert found == {"bright": Counts(1, 1, 0), "dark": Counts(0, 0, 1)}


def test_half_the_threshold_keeps() -> None:
    """A weakened inclusion is kept above half the threshold and lost below; none is invented either way."""
    truth = Truth(slice_with(SPOTS, 0.3))
    assert truth.threshold == LEAST
    assert truth.compare(slice_with(SPOTS, 0.6 * LEAST))["bright"] == Counts(5, 0, 0)
    assert truth.compare(slice_with(SPOTS, 0.4 * LEAST))["bright"] == Counts(5, 5, 0)


def test_edges_lines_and_large_things_are_no_inclusions() -> None:
    """A bent edge, a bar across the slice, a disc larger than the largest inclusion, a single pixel."""
    large = (LARGEST / np.pi) ** 0.5 + 3
    clean = slice_with([(90, 90)], 0.4, radius=large)
    clean[:40, :30] += 0.4
    clean[60:62] -= 0.4
    clean[20, 100] += 0.3
    assert Truth(clean).compare(clean) == {"bright": Counts(0, 0, 0), "dark": Counts(0, 0, 0)}


def test_texture_raises_the_threshold() -> None:
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 0.15, (128, 128)), 1.0)
    truth = Truth(slice_with(SPOTS, 0.6) + texture.astype(np.float32))
    assert truth.threshold == MOST
    assert truth.compare(slice_with(SPOTS, 0.6))["bright"] == Counts(5, 0, 0)


@pytest.mark.parametrize("largest", [1, 5, 40])
@pytest.mark.parametrize("seed", range(6))
def test_heights_are_those_of_an_area_opening(largest: int, seed: int) -> None:
    """scikit-image's definition, on plateaus (coarse levels) and without (fine ones)."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.standard_normal((60, 70)), random.uniform(0.5, 2))
    levels = (smooth * (8 if seed % 2 else 200)).astype(np.int32)
    expected = levels - area_opening(levels, largest + 1, connectivity=2)
    np.testing.assert_array_equal(np.rint(_height(levels, largest) * LEVELS), expected)
