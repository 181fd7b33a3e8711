"""From counts to slices: axis, fields, rings, and the two layouts of raw files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.refimpl.errors import FeedError
from karat24.tomography.raw.axis import centred, find_axis
from karat24.tomography.raw.correction import line_integrals, without_rings
from karat24.tomography.raw.scan import opened_scan
from tests.shared_models import require_scan

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")

BINS, VIEWS, ROWS = 96, 120, 3
AXIS = 45.25
ATTENUATION = 0.02


def disc_integrals(axis: float = AXIS) -> np.ndarray:
    """A disc of radius 20 pixels, 12 from the axis: chords, float64 ``[view, y, x]``, rows alike."""
    degrees = np.linspace(0, 180, VIEWS)
    centres = axis + 12 * np.cos(np.deg2rad(degrees))
    chords = 2 * np.sqrt(np.maximum(20.0**2 - (np.arange(BINS) - centres[:, None]) ** 2, 0))
    return np.repeat(ATTENUATION * chords[:, None, :], ROWS, axis=1)


def counts_of(integrals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, flat and dark frames of a detector whose pixels differ."""
    rng = np.random.default_rng(0)
    dark = rng.uniform(90, 110, (2, ROWS, BINS))
    flat = rng.uniform(9000, 11000, (3, ROWS, BINS))
    beam = flat.mean(0) - dark.mean(0)
    return dark.mean(0) + beam * np.exp(-integrals), flat, dark


def write_dxchange(path: Path) -> Path:
    counts, flat, dark = counts_of(disc_integrals())
    with h5py.File(path, "w") as file:
        file["exchange/data"], file["exchange/theta"] = counts, np.linspace(0, 180, VIEWS)
        file["exchange/data_white"], file["exchange/data_dark"] = flat, dark
    return path


def write_nxtomo(path: Path) -> Path:
    """Flats first, darks last, one frame that is not to be used."""
    counts, flat, dark = counts_of(disc_integrals())
    keys = [1] * len(flat) + [0] * VIEWS + [3] + [2] * len(dark)
    angles = np.concatenate([np.zeros(len(flat)), np.linspace(0, 180, VIEWS), np.zeros(1 + len(dark))])
    with h5py.File(path, "w") as file:
        frames = np.concatenate([flat, counts, np.full((1, ROWS, BINS), 7.0), dark])
        file["entry/instrument/detector/data"] = frames
        file["entry/instrument/detector/image_key"] = keys
        file["entry/sample/rotation_angle"] = angles
    return path


@pytest.mark.parametrize("axis", [30.0, 45.25, 47.5, 60.75])
def test_the_axis_is_found(axis: float) -> None:
    assert find_axis(disc_integrals(axis), np.linspace(0, 180, VIEWS)) == pytest.approx(axis, abs=0.05)


def test_an_axis_that_cannot_be_found_is_asked_for() -> None:
    with pytest.raises(FeedError, match=r"the nearest is 90\.0° off.*--center"):
        find_axis(disc_integrals(), np.linspace(0, 90, VIEWS))


@pytest.mark.parametrize("axis", [45.25, 50.5])
def test_centring_moves_the_axis_to_the_middle(axis: float) -> None:
    """Bins that hold their own number are read exactly between two bins; beyond an end it repeats."""
    moved = centred(np.tile(np.arange(BINS, dtype=np.float64), (2, 1)), axis)
    expected = np.clip(np.arange(BINS) + axis - BINS // 2, 0, BINS - 1)
    np.testing.assert_array_equal(moved, np.tile(expected, (2, 1)))


def test_dead_pixels_take_their_neighbours_value() -> None:
    counts, flat, dark = counts_of(disc_integrals())
    mean_flat = flat.mean(0)
    mean_flat[1, 50] = dark.mean(0)[1, 50]
    found = line_integrals(counts, mean_flat, dark.mean(0))
    np.testing.assert_allclose(np.delete(found, 50, 2), np.delete(disc_integrals(), 50, 2), atol=1e-9)
    np.testing.assert_array_equal(found[:, 1, 50], found[:, 1, 49])
    with pytest.raises(FeedError, match="interchanged"):
        line_integrals(counts, dark.mean(0), flat.mean(0))


def test_what_a_pixel_adds_to_all_views_is_removed() -> None:
    clean = disc_integrals()[:, 0]
    faulty = clean.copy()
    faulty[:, 40] += 0.3
    before, after = (np.abs(sinogram - clean)[:, 40].mean() for sinogram in (faulty, without_rings(faulty)))
    assert after < before / 10
    np.testing.assert_array_equal(without_rings(faulty, 1), faulty)


@pytest.mark.parametrize("write", [write_dxchange, write_nxtomo])
def test_both_layouts_give_the_disc(tmp_path: Path, write: object) -> None:
    raw = write(tmp_path / "raw.h5")  # type: ignore[operator]
    assert main(["reconstruct", str(raw), str(tmp_path / "rec"), "--slices", "1:3"]) == 0
    names = sorted(path.name for path in (tmp_path / "rec").iterdir())
    assert names == ["recon_00001.tiff", "recon_00002.tiff"]
    found = tifffile.imread(tmp_path / "rec" / names[0])
    assert found.shape == (BINS, BINS)
    # The disc's centre lies 12 pixels to the right of the axis, which stands in the middle.
    inside = found[BINS // 2 - 5 : BINS // 2 + 6, BINS // 2 + 7 : BINS // 2 + 18]
    assert inside.mean() == pytest.approx(ATTENUATION, rel=0.02)
    assert abs(found[BINS // 2 - 5 : BINS // 2 + 6, 10:30].mean()) < 0.05 * ATTENUATION


@pytest.mark.parametrize("name", ["exchange/theta", "entry/sample/rotation_angle"])
def test_angles_in_radians(tmp_path: Path, name: str) -> None:
    """Read as degrees, half a turn would be three of them, and the slices would be smears."""
    raw = (write_dxchange if name.startswith("exchange") else write_nxtomo)(tmp_path / "raw.h5")
    with opened_scan(raw) as scan:
        degrees = scan.degrees
    with h5py.File(raw, "a") as file:
        file[name][:] = np.deg2rad(file[name][:])
        file[name].attrs["units"] = np.bytes_(b"radians") if name.startswith("exchange") else "rad"
    with opened_scan(raw) as scan:
        np.testing.assert_allclose(scan.degrees, degrees, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("remove", "message"),
    [("data_white", "data_white"), ("data", "cannot be read as a raw scan"), ("data_dark", "data_dark")],
)
def test_a_file_that_lacks_a_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], remove: str, message: str
) -> None:
    raw = write_dxchange(tmp_path / "raw.h5")
    with h5py.File(raw, "a") as file:
        del file[f"exchange/{remove}"]
    assert main(["reconstruct", str(raw), str(tmp_path / "rec")]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_real_tooth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two commands from counts to restored slices; the axis is known to stand at 295.5."""
    raw = require_scan("tooth_aps/tooth.h5")
    assert main(["restore", str(raw), str(tmp_path / "o")]) == 2
    assert "holds projections, not slices" in capsys.readouterr().err
    assert main(["reconstruct", str(raw), str(tmp_path / "rec")]) == 0
    axis = float(capsys.readouterr().out.split("column ")[1].split(",")[0])
    assert axis == pytest.approx(295.5, abs=0.25)
    assert main(["restore", str(tmp_path / "rec"), str(tmp_path / "out"), "--workers", "1"]) == 0
    before, after = (tifffile.imread(tmp_path / name / "recon_00001.tiff") for name in ("rec", "out"))
    air = np.s_[60:120, 200:260]
    assert after[air].std() < before[air].std() / 3
    assert after[320, 300:420].mean() == pytest.approx(before[320, 300:420].mean(), rel=0.03)
