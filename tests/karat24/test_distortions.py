"""Distortions: their sizes, repeatability from the seed, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("skimage", reason="scikit-image is not installed (pip install 'karat24[image]')")

from karat24.distortions import (
    DEGREES,
    DISTORTIONS,
    SHARES,
    gaussian_blur,
    gaussian_noise,
    mixture,
    occlusion,
)
from karat24.refimpl.errors import FeedError, UsageError

GREY = np.full((3, 32, 32, 3), 0.5, np.float32)


def test_degrees_and_shares_of_the_paper() -> None:
    assert dict(DEGREES) == {"noise": 0.25, "blur": 1.0, "occlusion": 16}
    assert SHARES == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_an_image_depends_on_its_number_and_the_seed_alone(name: str) -> None:
    images = np.random.default_rng(0).random((4, 32, 24, 3), dtype=np.float32)
    distort = DISTORTIONS[name]
    found = distort(images, DEGREES[name], 5)
    assert found.dtype == np.float32
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.array_equal(found, distort(images.astype(np.float64), DEGREES[name], 5))
    assert np.array_equal(found[:2], distort(images[:2], DEGREES[name], 5))
    assert np.array_equal(found, distort(images, DEGREES[name], 6)) == (name == "blur")
    assert not np.array_equal(found, images)


def test_noise_has_its_deviation_and_is_clipped() -> None:
    """A tenth is hardly ever clipped at mid-grey; a quarter is, at both ends."""
    change = gaussian_noise(GREY, 0.1) - 0.5
    assert np.std(change) == pytest.approx(0.1, rel=0.02)
    assert np.mean(change) == pytest.approx(0, abs=0.005)
    assert {0.0, 1.0} <= set(gaussian_noise(GREY).reshape(-1).tolist())
    assert np.array_equal(gaussian_noise(GREY, 0), GREY)
    assert not np.array_equal(gaussian_noise(GREY)[0], gaussian_noise(GREY)[1])


def test_blur_spreads_a_point_by_its_deviation() -> None:
    """The second moment of a blurred point is the deviation's square; channels do not mix."""
    point = np.zeros((1, 33, 33, 2), np.float32)
    point[0, 16, 16, 0] = 1
    blurred = gaussian_blur(point, 1.0)[0]
    assert not blurred[..., 1].any()
    y, _ = np.mgrid[-16:17, -16:17]
    assert blurred[..., 0].sum() == pytest.approx(1, abs=1e-3)
    assert (blurred[..., 0] * y**2).sum() == pytest.approx(1, abs=0.01)
    assert np.allclose(gaussian_blur(GREY), GREY)


def test_occlusion_blackens_one_square_somewhere() -> None:
    covered = occlusion(GREY)
    places = set()
    for image in covered:
        black = np.argwhere((image == 0).all(axis=2))
        assert len(black) == 16 * 16
        assert (black.max(axis=0) - black.min(axis=0) == 15).all()
        places.add(tuple(black.min(axis=0)))
        assert (image[(image != 0).any(axis=2)] == 0.5).all()
    assert len(places) == 3
    assert (GREY == 0.5).all()
    assert not occlusion(GREY, 32).any()


def test_a_mixture_has_its_share_and_says_which() -> None:
    images = np.full((40, 16, 16, 1), 0.5, np.float32)
    for share in (0, *SHARES, 1):
        mixed, chosen = mixture(images, "occlusion", share, 4, seed=2)
        assert np.count_nonzero(chosen) == round(40 * share)
        assert np.array_equal((mixed == 0).any(axis=(1, 2, 3)), chosen)
    first, second = (mixture(images, "occlusion", 0.5, 4, seed)[1] for seed in (2, 3))
    assert not np.array_equal(first, second)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="no distortion 'rain'"):
        mixture(GREY, "rain", 0.5)
    with pytest.raises(UsageError, match="share 2"):
        mixture(GREY, "noise", 2)
    with pytest.raises(UsageError, match="negative"):
        gaussian_noise(GREY, -0.1)
    for degree in (33, 2.5):
        with pytest.raises(UsageError, match="a block of"):
            occlusion(GREY, degree)
    with pytest.raises(FeedError, match="outside 0 … 1"):
        gaussian_blur(GREY * 255)
    with pytest.raises(FeedError, match="outside 0 … 1"):
        gaussian_noise(GREY * np.nan)
    with pytest.raises(FeedError, match="give float"):
        occlusion(np.zeros((32, 32, 3), np.uint8))
