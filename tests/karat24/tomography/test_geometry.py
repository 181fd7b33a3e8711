"""Closed-form sinograms and areas, checked against scikit-image and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fbp import back_project, fbp
from karat24.tomography.imaging.geometry import detector_bins, even_angles
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.projector import project, splat
from karat24.tomography.imaging.sirt import sirt

SIZE = 129
STAR = np.array(
    [
        [5.0 + r * math.cos(turn), -8.0 + r * math.sin(turn)]
        for turn, r in zip(np.arange(10) * math.pi / 5.0, [30.0, 12.0] * 5, strict=True)
    ]
)
"""Ten-pointed and not convex: rays cross it up to three times."""

SHAPES = Phantom.of(
    [[0, 0, 50, 40, 0.3, 1.0], [10, 5, 12, 5, 1.0, -0.7], [-20, 10, 3, 3, 0.0, 2.0]], [STAR], [0.5]
)
"""Off centre, tilted, one hole, one small: every term of the closed form matters."""


def mass(phantom: Phantom) -> float:
    """Total density times area, by hand: πab, and the shoelace formula."""
    total = sum(math.pi * a * b * density for _, _, a, b, _, density in phantom.ellipses)
    for polygon, density in zip(phantom.polygons, phantom.densities, strict=True):
        x, y = polygon.T
        total += density * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0
    return float(total)


def blurred(rows: Array, deviation: float) -> Array:
    reach = np.arange(-int(5 * deviation), int(5 * deviation) + 1)
    kernel = np.exp(-0.5 * (reach / deviation) ** 2)
    kernel /= kernel.sum()
    return np.stack([np.convolve(row, kernel, mode="same") for row in rows])


def test_every_projection_holds_the_whole_mass() -> None:
    """Bin averages lose nothing, whatever the angle: also at 0, 45 and 90 degrees, where sides align."""
    degrees = np.array([0.0, 0.1, 33.3, 45.0, 90.0, 135.0, 179.9, 250.0])
    sums = SHAPES.project(degrees, detector_bins(SIZE)).sum(axis=1)
    np.testing.assert_allclose(sums, mass(SHAPES), rtol=1e-11)


def test_rasterizing_keeps_mass_and_never_exceeds_full_coverage() -> None:
    image = SHAPES.rasterize(SIZE)
    assert image.sum(dtype=np.float64) == pytest.approx(mass(SHAPES), rel=1e-6)
    square = Phantom.of(
        [], [np.array([[-2.5, -1.5], [0.5, -1.5], [0.5, 1.25], [-2.5, 1.25]])], [1.0]
    ).rasterize(9)
    expected = np.zeros((9, 9), np.float32)
    expected[3:5, 2:5] = 1.0  # pixel centres are integers: rows -1, 0 whole, row 1 to three quarters
    expected[5, 2:5] = 0.75
    np.testing.assert_allclose(square, expected, atol=1e-6)


def test_orientation_of_an_outline_does_not_matter() -> None:
    turned = Phantom.of([], [STAR[::-1]], [0.5])
    forward = Phantom.of([], [STAR], [0.5])
    degrees = even_angles(7)
    np.testing.assert_allclose(turned.project(degrees, 200), forward.project(degrees, 200), atol=1e-9)
    np.testing.assert_allclose(turned.rasterize(65), forward.rasterize(65), atol=1e-6)


def test_shapes_beyond_the_image_are_cut_not_wrapped() -> None:
    """A large square around a small image covers every pixel once, and the detector sees only its chord."""
    square = Phantom.of([], [np.array([[-50.0, -50.0], [50.0, -50.0], [50.0, 50.0], [-50.0, 50.0]])], [1.0])
    np.testing.assert_allclose(square.rasterize(8), np.ones((8, 8)), atol=1e-6)
    np.testing.assert_allclose(square.project(np.array([0.0, 90.0]), 8), 100.0, rtol=1e-12)


def test_closed_form_sinogram_against_radon_of_the_area_image() -> None:
    """``radon`` reads the area image with bilinear interpolation: it smears t by the pixel's box (variance
    1/12 px²) and the hat (1/6), the closed form by the bin's box (1/12). To second order they differ by
    (1/6) / 2 · p″; summing in unit steps instead of integrating aliases, which a blur of 3 bins removes.
    """
    transform = pytest.importorskip("skimage.transform")
    degrees = np.linspace(0.0, 180.0, 37)
    image = SHAPES.rasterize(SIZE)
    image[np.abs(image) < 1e-9] = 0.0  # radon warns of anything outside its circle, and sums leave 1e-16
    exact = SHAPES.project(degrees, SIZE)
    smooth = blurred(exact, 3.0)
    curvature = np.abs(np.diff(smooth, n=2, axis=1)).max()
    difference = blurred(transform.radon(image, degrees, circle=True).T, 3.0) - smooth
    bound = curvature / 12.0 * 1.5  # half again for the fourth order
    assert np.abs(difference).max() < bound
    assert bound < 0.005 * exact.max()  # the bound itself means something
    # A sinogram off by a quarter of a bin would not pass.
    shifted = 0.75 * smooth + 0.25 * np.roll(smooth, 1, axis=1)
    assert np.abs(shifted - smooth).max() > 2.0 * bound


def test_joseph_projection_agrees_with_the_closed_form() -> None:
    degrees = np.linspace(0.0, 180.0, 37)
    smooth = blurred(SHAPES.project(degrees, SIZE), 3.0)
    curvature = np.abs(np.diff(smooth, n=2, axis=1)).max()
    difference = blurred(project(SHAPES.rasterize(SIZE), degrees, SIZE), 3.0) - smooth
    assert np.abs(difference).max() < curvature / 12.0 * 1.5


def test_splat_is_the_transpose_of_back_projection() -> None:
    """⟨A·x, y⟩ = ⟨x, Aᵀ·y⟩ for unrelated x and y; the image's corners leave the narrow detector."""
    rng = np.random.default_rng(7)
    degrees = rng.uniform(0.0, 360.0, 23)
    for size, bins in ((64, 95), (33, 33), (50, 40)):
        image = rng.standard_normal((size, size)).astype(np.float32)
        rows = rng.standard_normal((23, bins)).astype(np.float32)
        forward = float(np.vdot(splat(image, degrees, bins).astype(np.float64), rows))
        backward = float(np.vdot(image.astype(np.float64), back_project(rows, degrees, size)))
        scale = np.linalg.norm(image) * np.linalg.norm(rows)
        assert abs(forward - backward) < 1e-5 * scale


def test_back_projection_restores_the_area_image() -> None:
    """Dense exact projections give the phantom back: on average to a hundredth of its densities."""
    bins = detector_bins(SIZE)
    image = fbp(SHAPES.project(even_angles(400), bins), circle=False, output_size=SIZE)
    assert np.abs(image - SHAPES.rasterize(SIZE)).mean() < 0.01


def test_sirt_descends_and_beats_back_projection_with_few_views() -> None:
    size, degrees = 65, even_angles(24)
    phantom = Phantom.of([[2, -3, 24, 20, 0.4, 1.0], [8, 4, 6, 4, 0.0, -0.6]])
    bins = detector_bins(size)
    truth = phantom.rasterize(size)
    sinogram = phantom.project(degrees, bins)
    errors = [
        np.abs(sirt(sinogram, degrees, iterations=n, output_size=size) - truth).mean() for n in (2, 6, 18)
    ]
    assert errors[0] > errors[1] > errors[2]
    direct = np.abs(fbp(sinogram, degrees, circle=False, output_size=size) - truth).mean()
    assert errors[2] < 0.8 * direct


@pytest.mark.parametrize(
    ("shape", "angles", "says"),
    [((5, 8), 4, "one angle a row"), ((5,), 5, "expected [angle, bin]"), ((0, 8), 0, "neither empty")],
)
def test_a_sinogram_that_does_not_fit_its_angles_is_refused(
    shape: tuple[int, ...], angles: int, says: str
) -> None:
    with pytest.raises(FeedError) as caught:
        fbp(np.zeros(shape), np.zeros(angles))
    assert says in str(caught.value)


def test_nan_in_a_sinogram_is_counted() -> None:
    sinogram = np.zeros((4, 16))
    sinogram[1, 3] = np.nan
    for reconstruct in (fbp, sirt):
        with pytest.raises(FeedError, match="NaN or infinity in 1 of 64"):
            reconstruct(sinogram)


def test_unusable_options_are_refused() -> None:
    sinogram = np.zeros((4, 16))
    with pytest.raises(UsageError, match="unknown filter 'sharp'"):
        fbp(sinogram, filter_name="sharp")
    with pytest.raises(UsageError, match="iterations is 0"):
        sirt(sinogram, iterations=0)
    with pytest.raises(UsageError, match="output_size is 0"):
        fbp(sinogram, output_size=0)
