"""The scale of a volume: what must not move it, what is said, and bits that no machine changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from karat24.refimpl.errors import FeedError
from karat24.tomography.scan.greyscale import Chosen, Greyscale, choose
from karat24.tomography.scan.masks import Mask, outside_circle
from karat24.tomography.scan.sampling import take_sample
from karat24.tomography.scan.volumes import Source, Volume, open_volume
from tests.support.scans import noisy_volume


def opened(folder: Path, volume: np.ndarray) -> Volume:
    np.save(folder / "v.npy", volume)
    return open_volume(Source(folder / "v.npy"))


def chosen(folder: Path, volume: np.ndarray, mask: float | None = None) -> Chosen:
    return choose(take_sample(opened(folder, volume), mask).ordered)


def spans(one: Greyscale, other: Greyscale) -> float:
    return (one.high - one.low) / (other.high - other.low)


def with_hot_pixels(volume: np.ndarray, share: float) -> np.ndarray:
    hot = np.random.default_rng(1).random(volume.shape) < share
    return np.where(hot, np.float32(50.0), volume)


def with_metal(volume: np.ndarray) -> np.ndarray:
    """A grain of 2.4 % of every slice, 25 times as dense as the rest."""
    grown = volume.copy()
    grown[:, 10:20, 10:20] = 0.5
    return grown


def with_corners(volume: np.ndarray, value: float) -> np.ndarray:
    return np.where(outside_circle(volume.shape[1:]), np.float32(value), volume)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: with_hot_pixels(v, 0.005),
        lambda v: with_hot_pixels(v, 0.03),
        with_metal,
        lambda v: with_corners(v, -1),
        lambda v: with_corners(v, 0),
        lambda v: with_corners(v, 1000),
    ],
    ids=["0.5 % hot", "3 % hot", "metal grain", "-1 outside", "0 outside", "1000 outside"],
)
def test_what_must_not_move_the_scale(tmp_path: Path, change: object) -> None:
    """Each of these flattened the image when the scale followed plain percentiles, or was refused."""
    volume = noisy_volume(8)
    plain = chosen(tmp_path, volume).scale
    assert 0.75 < spans(chosen(tmp_path, change(volume)).scale, plain) < 1.4  # type: ignore[operator]


def test_outliers_are_said(tmp_path: Path) -> None:
    found = chosen(tmp_path, with_metal(noisy_volume(8))).warnings
    assert any("taken for hot pixels or metal" in line for line in found)
    assert any("will be clipped; --range" in line for line in found)
    assert not chosen(tmp_path, noisy_volume(8)).warnings


def test_slices_of_air_take_the_scale_of_the_volume(tmp_path: Path) -> None:
    """Half of the slices are air. Alone, each would be stretched until its noise fills the range."""
    volume = noisy_volume(8)
    volume[::2] = np.random.default_rng(2).normal(0, 0.005, volume[::2].shape)
    assert spans(chosen(tmp_path, volume).scale, chosen(tmp_path, noisy_volume(8)).scale) > 0.75


def test_a_sample_on_a_background_of_zeros(tmp_path: Path) -> None:
    """The 1st and the 99th percentile are both 0."""
    volume = np.zeros((4, 64, 64), np.float32)
    volume[:, 30:35, 30:35] = np.random.default_rng(0).normal(1.0, 0.05, (4, 5, 5))
    found = chosen(tmp_path, volume, mask=-5.0)
    assert found.scale.low == 0.0
    assert 1.0 < found.scale.high < 1.2
    assert any("fills little of the view" in line for line in found.warnings)


def test_an_offset_of_a_million(tmp_path: Path) -> None:
    volume = noisy_volume(4).astype(np.float64)
    plain = chosen(tmp_path, volume).scale
    moved = chosen(tmp_path, volume + 1e6).scale
    assert spans(moved, plain) == pytest.approx(1, abs=1e-6)
    # And back: grey values are float32, the volume's are not.
    grey = moved.grey(volume + 1e6)
    np.testing.assert_allclose(moved.value(grey), volume + 1e6, rtol=0, atol=1e-8)


def test_a_range_that_is_far_off_is_said(tmp_path: Path) -> None:
    ordered = take_sample(opened(tmp_path, noisy_volume(4)), None).ordered
    for span in ((-10.0, 10.0), (0.0, 0.001)):
        assert any("is far from that of nearly all pixels" in line for line in choose(ordered, span).warnings)


def test_a_constant_volume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"every pixel of the sample is 3: there is nothing to restore"):
        chosen(tmp_path, np.full((2, 16, 16), 3, np.float32))


def test_nan_is_refused_with_its_place_or_masked(tmp_path: Path) -> None:
    volume = noisy_volume(3)
    volume[1, 40, 17] = np.nan
    with pytest.raises(
        FeedError, match=r"slice slice_00001: 1 pixels are NaN, the first in row 40, column 17"
    ):
        chosen(tmp_path, volume)
    assert take_sample(opened(tmp_path, volume), float("nan")).ordered.size == volume.size - 1
    with pytest.raises(FeedError, match="knows no NaN"):
        take_sample(opened(tmp_path, np.arange(48, dtype=np.uint8).reshape(3, 4, 4)), float("nan"))


def test_integers_are_masked_outside_the_circle_only(tmp_path: Path) -> None:
    """0 may be measured, too: inside it is no mask that nobody declared."""
    volume = np.random.default_rng(0).integers(0, 4, (3, 64, 64)).astype(np.uint16)
    volume[:, outside_circle((64, 64))] = 0
    mask = take_sample(opened(tmp_path, volume), None).mask
    assert mask == Mask(0.0, "outside the circle")
    np.testing.assert_array_equal(mask.of(volume[0]), outside_circle((64, 64)))


def surroundings() -> str:
    """A digest of all that surrounds the network: sample, scale, grey values, their inverse, statistics."""
    from karat24.tomography.scan.work import difference_of

    # Integers of a linear congruential generator: no function of a library, whose bits might differ.
    state = np.arange(1, 40001, dtype=np.uint64) * np.uint64(6364136223846793005)
    values = ((state >> np.uint64(40)).astype(np.float64) / 2.0**24 * 0.7 - 0.1).astype(np.float32)
    scale = choose(np.sort(values.astype(np.float64))).scale
    grey = scale.grey(values)
    back = scale.value(grey)
    statistics = difference_of(grey, grey[::-1])
    parts = (values, grey, back, np.array([scale.low, scale.high, *statistics]))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_bits_do_not_depend_on_the_processor_or_numpy() -> None:
    """Held against a constant, on every machine and NumPy that runs this, and here without vector units."""
    assert surroundings() == SURROUNDINGS
    plain = (
        "X86_V4 X86_V3 AVX512_SKX AVX512F AVX512CD AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR AVX2 FMA3 AVX"
    )
    from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatched

    disabled = " ".join(name for name in plain.split() if name in dispatched)
    script = "from tests.karat24.tomography.scan.test_greyscale import surroundings; print(surroundings())"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled}, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    assert run.stdout.strip() == SURROUNDINGS


SURROUNDINGS = "cc52cf28f20b26b04fda3a11cb7c1fd38411eedb03680169864532a757757125"
