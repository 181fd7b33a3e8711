"""Filtered back projection equals scikit-image's ``iradon`` within float32 rounding."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fbp import FILTERS, back_project, fbp

transform = pytest.importorskip("skimage.transform")

EPSILON = float(np.finfo(np.float32).eps)


def rounding_bound(sinogram: Array) -> float:
    """What float32 may cost one pixel, relative to the largest sum it can see.

    Each angle adds a term rounded to half an ulp of the running sum, and is read at a position known to
    2**-22 bins, twice float32's own ulp at 1; errors of independent angles add as their root.
    """
    return 8.0 * EPSILON * np.sqrt(len(sinogram))


def difference(sinogram: Array, degrees: Array, size: int | None, name: str | None, circle: bool) -> float:
    expected = transform.iradon(sinogram.T.astype(np.float64), degrees, size, name, "linear", circle)
    actual = fbp(sinogram, degrees, filter_name=name, circle=circle, output_size=size)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("circle", [True, False])
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter(name: str | None, circle: bool) -> None:
    """White noise, so that no frequency of the filter goes untested; irregular angles of both signs."""
    rng = np.random.default_rng(3)
    sinogram = rng.standard_normal((31, 90)).astype(np.float32)
    degrees = rng.uniform(-200.0, 200.0, 31)
    assert difference(sinogram, degrees, None, name, circle) < rounding_bound(sinogram)


@pytest.mark.parametrize("bins", [2, 3, 7, 33, 64, 65, 130])
@pytest.mark.parametrize("size", [None, 1, 16, 50, 101])
def test_odd_even_and_unequal_sizes(bins: int, size: int | None) -> None:
    """Odd and even centres, ragged tiles of 16×32, images that reach beyond the detector."""
    rng = np.random.default_rng(bins)
    sinogram = rng.standard_normal((9, bins)).astype(np.float32)
    degrees = np.sort(rng.uniform(0.0, 180.0, 9))
    for circle in (True, False):
        if circle or size is not None or bins > 2:
            assert difference(sinogram, degrees, size, "ramp", circle) < rounding_bound(sinogram)


def test_axis_aligned_angles_read_bins_exactly() -> None:
    """0 and 180 degrees put every position on a bin: the interpolation weight is 0 on either side of it."""
    sinogram = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    assert difference(sinogram, np.array([0.0, 180.0]), None, None, True) < rounding_bound(sinogram)


def test_default_angles_are_those_of_iradon() -> None:
    sinogram = np.random.default_rng(1).standard_normal((12, 40)).astype(np.float32)
    np.testing.assert_allclose(fbp(sinogram), transform.iradon(sinogram.T), atol=1e-5)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only: nothing to compare")
def test_thread_count_does_not_change_a_bit() -> None:
    sinogram = np.random.default_rng(2).standard_normal((40, 128)).astype(np.float32)
    many = fbp(sinogram)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = fbp(sinogram)
    finally:
        numba.set_num_threads(before)
    assert many.tobytes() == one.tobytes()


def test_back_projection_of_a_constant_is_the_number_of_angles() -> None:
    """Inside the circle every ray hits the detector: a sum of ones, exactly."""
    degrees = np.linspace(0.0, 180.0, 25, endpoint=False)
    image = back_project(np.ones((25, 41), np.float32), degrees, 41, circle=True)
    y, x = np.mgrid[:41, :41] - 20
    inside = x * x + y * y < 20 * 20
    np.testing.assert_array_equal(image[inside], np.float32(25.0))
    assert not image[x * x + y * y > 20 * 20].any()
