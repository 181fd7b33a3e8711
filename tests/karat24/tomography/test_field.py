"""Simulated field scans: seeds, held-out kinds, and the conditions that training lacked."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.detector import Beam
from karat24.tomography.imaging.field.faint import FaintTexture
from karat24.tomography.imaging.field.samples import HELD_OUT_KINDS, KINDS, TRAINING_KINDS
from karat24.tomography.imaging.field.scans import Conditions, draw_conditions, simulate_field

SIZE = 64
PLAIN = Conditions(views=48, dose=2000.0, beam=Beam(dose=1.0, blur=0.5))


def noise_of(conditions: Conditions, slices: tuple[int, ...] = (0, 1, 2), kind: str = "concrete") -> Array:
    """What noise adds to each slice of one sample: a noisy scan minus the noise-free one, in 1/pixel."""
    scans = [
        simulate_field(kind, SIZE, 4, split="test", conditions=one)
        for one in (conditions, replace(conditions, dose=0.0, bad=0.0, drift=0.0))
    ]
    noisy, exact = (scan.normalization.value(scan.noisy[0]) for scan in scans)
    return (noisy - exact)[..., list(slices)]


@pytest.mark.parametrize("kind", [*KINDS, "bone"])
def test_every_kind_gives_a_finite_window_in_the_grey_range(kind: str) -> None:
    scan = simulate_field(kind, SIZE, 3, split="test")
    assert scan.noisy.shape == (1, SIZE, SIZE, 3)
    assert scan.clean.shape == (1, SIZE, SIZE)
    assert np.isfinite(scan.noisy).all()
    assert np.isfinite(scan.clean).all()
    assert np.percentile(scan.noisy, [1, 99]) == pytest.approx([0.1, 0.9], abs=1e-5)


def test_at_least_two_kinds_are_never_trained_on() -> None:
    assert len(HELD_OUT_KINDS) >= 2
    assert not set(HELD_OUT_KINDS) & set(TRAINING_KINDS)
    for kind in (*HELD_OUT_KINDS, "bone"):
        with pytest.raises(UsageError, match="held out"):
            simulate_field(kind, SIZE, 0)


def test_same_arguments_same_bits() -> None:
    """Whatever the number of threads; another seed is another sample."""
    first = simulate_field("tissue", SIZE, 5, vary_grey=True)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        second = simulate_field("tissue", SIZE, 5, vary_grey=True)
    finally:
        numba.set_num_threads(before)
    assert first.noisy.tobytes() == second.noisy.tobytes()
    assert first.clean.tobytes() == second.clean.tobytes()
    assert simulate_field("tissue", SIZE, 6).clean.tobytes() != first.clean.tobytes()


def test_without_noise_and_with_enough_views_the_input_is_its_own_target() -> None:
    scan = simulate_field("porous", SIZE, 1, split="test", conditions=replace(PLAIN, dose=0.0, views=101))
    np.testing.assert_array_equal(scan.noisy[0, ..., 1], scan.clean[0])


def test_few_views_leave_streaks_even_without_noise() -> None:
    scan = simulate_field("porous", SIZE, 1, split="test", conditions=replace(PLAIN, dose=0.0, views=12))
    assert float((scan.noisy[0, ..., 1] - scan.clean[0]).std()) > 0.03


@pytest.mark.parametrize(
    ("correlation", "low", "high"), [(0.0, -0.1, 0.1), (0.7, 0.6, 0.8), (1.0, 0.99, 1.0)]
)
def test_noise_of_neighbours_correlates_as_asked(correlation: float, low: float, high: float) -> None:
    noise = noise_of(replace(PLAIN, correlation=correlation, spacing=0.0), (0, 1)).reshape(-1, 2)
    assert low < float(np.corrcoef(noise.T)[0, 1]) <= high + 1e-6


def test_a_slice_repeated_without_new_noise_is_the_same_three_times() -> None:
    scan = simulate_field(
        "struts", SIZE, 2, split="test", conditions=replace(PLAIN, correlation=1.0, spacing=0.0)
    )
    np.testing.assert_array_equal(scan.noisy[0, ..., 0], scan.noisy[0, ..., 1])
    np.testing.assert_array_equal(scan.noisy[0, ..., 2], scan.noisy[0, ..., 1])


def share_of_low_frequencies(image: Array) -> float:
    """Of the power, below 0.08 cycles per pixel."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    along = np.fft.fftfreq(SIZE)
    low = np.hypot(along[:, None], along[None, :]) < 0.08
    return float(power[low].sum() / power.sum())


def test_drift_is_noise_of_low_frequency() -> None:
    plain, drifting = (
        share_of_low_frequencies(noise_of(one)[..., 1]) for one in (PLAIN, replace(PLAIN, drift=0.08))
    )
    assert plain < 0.06
    assert drifting > 2 * plain


@pytest.mark.parametrize("change", [{"bad": 0.2}, {"missing": 40.0}])
def test_bad_and_missing_views_move_the_input_from_its_target(change: dict[str, float]) -> None:
    errors = []
    for conditions in (replace(PLAIN, dose=0.0, views=101), replace(PLAIN, dose=0.0, views=101, **change)):
        scan = simulate_field("concrete", SIZE, 2, split="test", conditions=conditions)
        errors.append(float((scan.noisy[0, ..., 1] - scan.clean[0]).std()))
    assert errors[0] == 0.0
    assert errors[1] > 0.005


def test_a_detector_as_wide_as_the_image_truncates_both_input_and_target() -> None:
    scans = [
        simulate_field(
            "tissue", SIZE, 8, split="test", conditions=replace(PLAIN, local=local, dose=0.0, views=101)
        )
        for local in (False, True)
    ]
    clean = [scan.normalization.value(scan.clean[0]) for scan in scans]
    assert not np.allclose(clean[0], clean[1], atol=1e-4)
    np.testing.assert_array_equal(scans[1].noisy[0, ..., 1], scans[1].clean[0])


def test_drawn_conditions_span_what_the_field_has() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_conditions(rng, 256) for _ in range(400)]
    views = [one.views / 256 for one in drawn]
    assert min(views) < 0.06
    assert max(views) > 1.5
    assert {one.filter_name for one in drawn} == {"ramp", "shepp-logan", "cosine", "hamming", "hann"}
    assert {one.method for one in drawn} == {"fbp", "sirt"}
    for wanted in ("bad", "missing", "drift", "local", "nearly_perfect"):
        share = np.mean([bool(getattr(one, wanted)) for one in drawn])
        assert 0.03 < share < 0.5, wanted
    assert {one.correlation for one in drawn} >= {0.0, 1.0}


def test_faint_texture_lies_in_voids_too_and_stays_faint() -> None:
    """Its deviation in density 0 and 1 alike is between 0.1 and 15 % of the span; outside the body it is
    0."""
    body = np.ones((SIZE, SIZE), np.float32)
    body[:8] = 0.0
    for seed in range(6):
        texture = FaintTexture(np.random.default_rng(seed), SIZE)
        for density in (0.0, 1.0):
            added = texture.added(np.full((SIZE, SIZE), density, np.float32), body, 0.0)
            assert 0.001 < float(added[8:].std()) < 0.15
            assert not added[:8].any()


@pytest.mark.parametrize(
    "change", [{"views": 1}, {"dose": -1.0}, {"dose": float("nan")}, {"correlation": 1.5}, {"missing": 180.0}]
)
def test_impossible_conditions_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(PLAIN, **change)  # type: ignore[arg-type]
