"""The simulator: seeds, splits, noise statistics, textures, grey values."""

from __future__ import annotations

import itertools

import numba
import numpy as np
import pytest

from karat24.refimpl.errors import FeedError, KaratError, UsageError
from karat24.tomography.imaging.detector import Beam, noise_free_reading, noisy_reading, transmitted_intensity
from karat24.tomography.imaging.families import FAMILIES, TRAINING_FAMILIES
from karat24.tomography.imaging.normalize import Normalization, from_bytes, to_bytes
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.simulate import SPLITS, simulate_slices, simulate_stack
from karat24.tomography.imaging.sphere_packing import cut_cells, cut_spheres, pack_spheres


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_a_finite_pair_in_the_grey_range(family: str) -> None:
    scan = simulate_slices(family, 64, 5, split="test", count=2)
    assert scan.noisy.shape == (2, 64, 64, 3)
    assert scan.clean.shape == (2, 64, 64)
    assert scan.noisy.dtype == scan.clean.dtype == np.float32
    assert np.isfinite(scan.noisy).all()
    assert np.isfinite(scan.clean).all()
    low, high = np.percentile(simulate_stack(family, 64, 5, split="test", slices=4).noisy, [1.0, 99.0])
    assert (low, high) == pytest.approx((0.1, 0.9), abs=1e-5)
    # Windows overlap by two slices, and a target lies where its window's middle does.
    np.testing.assert_array_equal(scan.noisy[0, :, :, 1:], scan.noisy[1, :, :, :2])


@pytest.mark.parametrize("method", ["fbp", "sirt"])
def test_same_arguments_same_bits(method: str) -> None:
    first = simulate_slices("foam", 64, 11, angles=20, method=method, vary_grey=True)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        second = simulate_slices("foam", 64, 11, angles=20, method=method, vary_grey=True)
    finally:
        numba.set_num_threads(before)
    assert first.noisy.tobytes() == second.noisy.tobytes()
    assert first.clean.tobytes() == second.clean.tobytes()
    assert first.meta == second.meta


def test_a_sample_does_not_change_with_its_measurement() -> None:
    """Another dose, or more slices, is another scan of the same sample."""
    one = simulate_stack("grains", 64, 3, dose=1e3, angles=60, method="fbp")
    other = simulate_stack("grains", 64, 3, dose=1e5, angles=60, method="fbp")
    physical = [stack.normalization.value(stack.clean) for stack in (one, other)]
    np.testing.assert_allclose(physical[0], physical[1], atol=1e-6)
    assert not np.allclose(
        one.normalization.value(one.noisy), other.normalization.value(other.noisy), atol=1e-4
    )


def test_splits_and_seeds_and_families_are_disjoint() -> None:
    """Equal numbers in different splits, and neighbouring seeds, share no sample."""
    images = {
        (family, split, seed): simulate_slices(family, 32, seed, split=split, angles=16, method="fbp").clean
        for family in ("rock", "mixture")
        for split in SPLITS
        for seed in (0, 1)
    }
    for (name, a), (other, b) in itertools.combinations(images.items(), 2):
        assert np.abs(a - b).mean() > 0.02, f"{name} and {other} look alike"


def test_the_held_out_family_cannot_be_trained_on() -> None:
    assert "bone" in FAMILIES
    assert "bone" not in TRAINING_FAMILIES
    with pytest.raises(UsageError, match="'bone' is held out"):
        simulate_slices("bone", 64, 0)
    assert len({family.code for family in FAMILIES.values()}) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_built_small(family: str) -> None:
    for seed in range(6):
        for sample_slice in FAMILIES[family].build(
            np.random.default_rng(seed), 32, np.array([-1.0, 0.0, 1.0])
        ):
            assert np.isfinite(sample_slice.rasterize(32)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_adjacent_slices_differ_slightly(family: str) -> None:
    """Slices one pixel apart resemble each other far more than slices of two samples."""
    first, second = FAMILIES[family].build(np.random.default_rng(8), 96, np.array([0.0, 1.0]))
    stranger = FAMILIES[family].build(np.random.default_rng(9), 96, np.array([0.0]))[0]
    a, b, c = (sample_slice.rasterize(96) for sample_slice in (first, second, stranger))
    assert 0.0 < np.abs(a - b).mean() < 0.5 * np.abs(a - c).mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_material_is_flat(family: str) -> None:
    """Wherever there is matter, neighbouring pixels differ: nothing teaches that the world is flat discs."""
    for seed in range(4):
        image = FAMILIES[family].build(np.random.default_rng(seed), 96, np.array([0.0]))[0].rasterize(96)
        solid = (image[:, 1:] > 0.3) & (image[:, :-1] > 0.3)
        assert solid.mean() > 0.02
        assert np.mean(np.abs(np.diff(image, axis=1))[solid] < 1e-5) < 0.01


@pytest.mark.parametrize("dose", [30.0, 1000.0, 50_000.0])
def test_photon_noise_has_the_variance_of_its_mean(dose: float) -> None:
    """90,000 readings: a variance's own deviation is its value times sqrt(2 / n), 0.5 %; five of them."""
    intensity = np.full((300, 300), 0.4, np.float32)
    counts = dose * np.exp(-noisy_reading(np.random.default_rng(1), intensity, Beam(dose=dose, blur=0.0)))
    mean = 0.4 * dose
    assert counts.mean() == pytest.approx(mean, abs=5.0 * np.sqrt(mean / intensity.size))
    assert counts.var() == pytest.approx(mean, rel=5.0 * np.sqrt(2.0 / intensity.size) + 0.5 / mean / 300.0)


def test_detector_blur_correlates_noise() -> None:
    """White noise blurred by a Gaussian of deviation s correlates by exp(-1 / 4s²) with its neighbour."""
    blur = 0.8
    rows = noisy_reading(np.random.default_rng(2), np.ones((400, 400), np.float32), Beam(dose=1e4, blur=blur))
    left, right = rows[:, 20:-21], rows[:, 21:-20]
    correlation = np.mean((left - left.mean()) * (right - right.mean())) / rows[:, 20:-20].var()
    assert correlation == pytest.approx(np.exp(-0.25 / blur**2), abs=0.02)
    sharp = noisy_reading(np.random.default_rng(2), np.ones((400, 400), np.float32), Beam(dose=1e4, blur=0.0))
    assert abs(np.corrcoef(sharp[:, :-1].ravel(), sharp[:, 1:].ravel())[0, 1]) < 0.02


def test_rings_are_constant_over_angles_and_dead_bins_stand_out() -> None:
    beam = Beam(dose=1e9, blur=0.0, ring=0.01)
    rows = noisy_reading(np.random.default_rng(3), np.ones((50, 500), np.float32), beam)
    assert rows.mean(axis=0).std() == pytest.approx(0.01, rel=0.15)
    assert rows.std(axis=0).max() < 1e-3
    broken = Beam(dose=1e9, blur=0.0, dead=0.5)
    missed = (
        noisy_reading(np.random.default_rng(4), np.ones((4, 500), np.float32), broken).mean(axis=0) > 5e-3
    )
    assert 20 < missed.sum() < 120  # a quarter of half of them


def test_fringes_rim_edges_and_change_nothing_else() -> None:
    """The fringe term is a second derivative: it vanishes in flat regions and over each row as a whole."""
    path = np.zeros((1, 200), np.float32)
    path[:, 60:140] = 0.5
    plain, fringed = (
        transmitted_intensity(path, Beam(dose=1.0)),
        transmitted_intensity(path, Beam(dose=1.0, fringe=0.5)),
    )
    assert np.abs(fringed - plain)[:, 52:68].max() > 0.05
    assert fringed.max() > 1.02  # the bright rim outside
    np.testing.assert_allclose(fringed[:, 80:120], plain[:, 80:120], atol=1e-6)
    assert fringed.sum() == pytest.approx(plain.sum(), abs=1e-3)


def test_a_noise_free_record_gives_the_path_back() -> None:
    path = np.linspace(0.0, 3.0, 120, dtype=np.float32)[np.newaxis]
    beam = Beam(dose=1.0, blur=0.0)
    np.testing.assert_allclose(noise_free_reading(transmitted_intensity(path, beam), beam), path, atol=1e-5)


def test_hardening_bends_thick_paths_down() -> None:
    path = np.array([[0.0, 0.5, 1.0, 3.0]], np.float32)
    seen = -np.log(transmitted_intensity(path, Beam(dose=1.0, hardening=0.4)))
    assert seen[0, 1] == pytest.approx(0.5, abs=0.03)
    assert seen[0, 3] < 2.7


def test_more_photons_less_noise() -> None:
    """Four times the dose, half the noise in the reconstruction; rings and spikes stay and cancel."""
    low, high, still = (
        stack.normalization.value(stack.noisy)
        for stack in (
            simulate_stack("spheres", 64, 1, dose=dose, angles=100, method="fbp") for dose in (2e3, 8e3, 1e12)
        )
    )
    assert (low - still).std() / (high - still).std() == pytest.approx(2.0, rel=0.1)


def test_grey_survives_outliers_and_inverts() -> None:
    image = np.random.default_rng(5).normal(0.01, 0.002, (100, 100)).astype(np.float32)
    spoilt = image.copy()
    spoilt[3, 4], spoilt[50, :5] = 1e4, -1e4  # a metal grain, a dead pixel's streak
    plain, robust = Normalization.of(image), Normalization.of(spoilt)
    assert robust.gain == pytest.approx(plain.gain, rel=0.02)
    assert np.percentile(plain.grey(image), [1, 99]) == pytest.approx([0.1, 0.9], abs=1e-5)
    np.testing.assert_allclose(plain.value(plain.grey(image)), image, rtol=1e-4, atol=1e-8)
    dimmed = plain.then(0.5, 0.25)
    np.testing.assert_allclose(dimmed.grey(image), 0.5 * plain.grey(image) + 0.25, atol=1e-6)


def test_bytes_round_to_nearest_and_clip() -> None:
    grey = np.array([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 7.0], np.float32)
    np.testing.assert_array_equal(to_bytes(grey), [0, 0, 0, 1, 255, 255])
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_bytes(from_bytes(every)), every)


def test_flat_or_broken_images_have_no_grey_scale() -> None:
    with pytest.raises(FeedError, match="flat"):
        Normalization.of(np.ones((8, 8)))
    with pytest.raises(FeedError, match="1 pixels that are NaN"):
        Normalization.of(np.array([[0.0, np.nan], [1.0, 2.0]]))


def test_packed_spheres_and_cells_do_not_overlap() -> None:
    spheres = pack_spheres(np.random.default_rng(6), 60.0, 4.0, 12.0, touch=0.3)
    gaps = np.linalg.norm(spheres[:, np.newaxis, :3] - spheres[:, :3], axis=2)
    gaps -= spheres[:, 3][:, np.newaxis] + spheres[:, 3]
    np.fill_diagonal(gaps, 1.0)
    assert len(spheres) > 30
    assert gaps.min() > -1e-9
    _, discs = cut_spheres(spheres, 0.5)
    assert len(discs) > 10
    _, cells = cut_cells(spheres, 0.5, 1.0)
    cover = Phantom.of([], cells, [1.0] * len(cells)).rasterize(121)
    assert cover.max() < 1.0 + 1e-5  # no pixel belongs to two cells
    assert cover[30:90, 30:90].mean() > 0.7  # and they leave no more than the gap between them


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"family": "glass"}, "unknown family 'glass'"),
        ({"split": "training"}, "unknown split"),
        ({"size": 16}, "size is 16"),
        ({"seed": -1}, "seed is -1"),
        ({"dose": 0.0}, "dose is 0.0"),
        ({"dose": float("nan")}, "dose is nan"),
        ({"angles": 1}, "angles is 1"),
        ({"method": "art"}, "unknown method 'art'"),
        ({"count": 0}, "a window is 3"),
    ],
)
def test_unusable_arguments_are_refused(change: dict[str, object], says: str) -> None:
    arguments: dict[str, object] = {"family": "foam", "size": 64, "seed": 0} | change
    with pytest.raises(KaratError, match=says):
        simulate_slices(**arguments)  # type: ignore[arg-type]
