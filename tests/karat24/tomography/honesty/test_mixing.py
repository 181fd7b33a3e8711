"""Noise measured where it is least, and what is given back: exact in every part."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.refimpl.errors import UsageError
from karat24.tomography.honesty.bands import BANDS, FRACTION, fixed_point, local_energy, split
from karat24.tomography.honesty.mixing import mix
from karat24.tomography.honesty.noise import NoiseModel, measure_noise, noise_deviation
from karat24.tomography.imaging.families import FAMILIES
from karat24.tomography.imaging.field.samples import KINDS
from tests.support.planted import planted, scene


def test_bands_and_rest_add_up_to_the_image() -> None:
    """To the last bit, for an image whose sides are no powers of two and smaller than the widest filter."""
    image = np.random.default_rng(0).normal(0.5, 3.0, (45, 70))
    steps = fixed_point(image)
    bands, rest = split(steps)
    assert len(bands) == BANDS
    np.testing.assert_array_equal(np.sum(bands, axis=0) + rest, steps)
    assert all(band.dtype == np.int32 for band in bands)


def test_a_constant_has_no_bands() -> None:
    bands, rest = split(fixed_point(np.full((64, 64), 0.7)))
    assert not any(band.any() for band in bands)
    assert (rest == round(0.7 * FRACTION)).all()


def test_local_energy_is_the_mean_square_around_a_pixel() -> None:
    band = fixed_point(np.random.default_rng(1).normal(0, 0.2, (40, 30)))
    found = local_energy(band, 9)
    wanted = np.mean((band[6:15, 11:20] / FRACTION) ** 2)
    assert found[10, 15] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("family", [*KINDS, *FAMILIES])
def test_a_volume_without_noise_comes_out_as_it_went_in(family: str) -> None:
    """Whatever the network made of it: here something very wrong. To within half a step of 1 / 65536."""
    window = scene(family, 8, 620, 0.0, 384).window
    noise = measure_noise([window])
    assert noise.cleanness == 1.0
    result = mix(window, np.zeros(window.shape[:2], np.float32), noise)
    assert float(np.abs(result - window[..., 1]).max()) <= 1.0 / FRACTION


@pytest.mark.parametrize(("kind", "dose"), [("wood", 1e5), ("tissue", 1e4), ("porous", 1e3)])
def test_where_there_is_noise_the_networks_bits_stay(kind: str, dose: float) -> None:
    scan = scene(kind, 1, 400, dose)
    noise = measure_noise([scan.window])
    assert noise.cleanness == 0.0
    assert mix(scan.window, scan.clean, noise) is scan.clean


def test_noise_is_measured_within_bounds() -> None:
    for dose in (2e3, 1e4):
        for kind in ("wood", "electrode", "concrete", "tissue"):
            scan = scene(kind, 1, 400, dose)
            true = scan.window[..., 1] - scan.clean
            exact = float(np.sqrt(np.mean((split(fixed_point(true))[0][0] / FRACTION) ** 2)))
            assert 0.6 * exact < measure_noise([scan.window]).deviation < 1.2 * exact


def test_a_slice_repeated_three_times_is_no_clean_one() -> None:
    """Its neighbours do not differ from it; its own noise counts."""
    window = np.repeat(scene("wood", 1, 400, 1e4).window[..., 1:2], 3, axis=2)
    assert measure_noise([window]).cleanness == 0.0


def test_a_mask_of_one_value_is_no_quiet_place() -> None:
    window = scene("wood", 1, 400, 1e4).window.copy()
    whole = noise_deviation(window)
    window[:100] = 0.5
    assert noise_deviation(window) > 0.7 * whole
    assert noise_deviation(np.full((64, 64, 3), 0.5)) == 0.0


def test_few_views_never_pass_for_a_clean_volume() -> None:
    """Streaks without noise: what the network takes away is not given back."""
    assert measure_noise([scene("wood", 1, 40, 0.0).window]).cleanness == 0.0


def test_lower_strength_gives_back_what_was_planted() -> None:
    """Of 10 % aggregate that was wiped out, most returns at strength 0, half of that at 0.5."""
    plain = scene("wood", 1, 400, 1e4)
    scan = planted(plain, 1, 0.1)
    noise = measure_noise([scan.window])
    wanted = scan.window[..., 1] - plain.window[..., 1]
    wanted -= wanted.mean()
    kept = {}
    for strength in (1.0, 0.5, 0.0):
        back = mix(scan.window, scan.clean, noise, strength) - scan.clean
        kept[strength] = float((back * wanted).sum() / (wanted * wanted).sum())
    assert kept[1.0] == 0.0
    assert kept[0.5] == pytest.approx(0.5 * kept[0.0], abs=0.01)
    assert kept[0.0] > 0.5


def test_lower_strength_gives_back_next_to_nothing_of_pure_noise() -> None:
    scan = scene("tissue", 1, 400, 1e4)
    back = mix(scan.window, scan.clean, measure_noise([scan.window]), 0.0) - scan.clean
    assert float(back.std()) < 0.05 * float((scan.window[..., 1] - scan.clean).std())


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_is_refused(strength: float) -> None:
    scan = scene("tissue", 1, 400, 1e4)
    with pytest.raises(UsageError, match="strength"):
        mix(scan.window, scan.clean, NoiseModel(0, 0.05), strength)


@pytest.mark.parametrize(
    ("deviation", "cleanness"), [(0.0, 1.0), (0.003, 1.0), (0.00375, 0.5), (0.0045, 0.0), (0.2, 0.0)]
)
def test_cleanness_falls_from_clean_to_noisy(deviation: float, cleanness: float) -> None:
    assert NoiseModel(0, deviation).cleanness == cleanness
    assert NoiseModel(60, deviation).cleanness == 0.0
