"""What `restore` says of what it took away: its exit code, its report, and what it gives back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from karat24.cli import main
from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.outputs import state_folder
from karat24.tomography.scan.restorer import Restorer
from karat24.tomography.scan.volumes import Source, open_volume
from tests.support.planted import scene
from tests.support.scans import plan_of, restored, write_folder

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")

KIND = "electrode"


def folder_of(kind: str, views: int, dose: float, path: Path, size: int = 192) -> Path:
    """Three neighbouring slices, in 1/mm or so."""
    window = scene(kind, 1, views, dose, size).window
    return write_folder(path, np.ascontiguousarray(window.transpose(2, 0, 1)) * np.float32(0.02))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(KIND, 300, 1e4, tmp_path_factory.mktemp("noisy") / "rec")


@pytest.fixture
def blurring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that takes the edges with the noise."""

    def blur(_: Restorer, window: Array) -> Array:
        blurred: Array = gaussian_filter(window[..., 1], 3.0)
        return blurred

    monkeypatch.setattr(Restorer, "__call__", blur)


def report_of(out: Path) -> tuple[dict[str, object], str]:
    state = state_folder(out)
    return json.loads((state / "report.json").read_bytes()), (state / "report.html").read_text()


@pytest.mark.usefixtures("blurring")
def test_lost_edges_are_marked_counted_shown_and_end_in_exit_code_4(
    noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["restore", str(noisy), str(tmp_path / "o"), "--workers", "1"]
    assert main(command) == 4
    printed = capsys.readouterr()
    assert "more than noise from 3" in printed.out
    assert "warning: more than noise was taken from 3 of 3 slices" in printed.err
    report, page = report_of(tmp_path / "o")
    assert len(report["more_than_noise_removed"]) == 3  # type: ignore[arg-type]
    section = page[page.index("What was taken away") : page.index("Difference by slice")]
    assert section.count("data:image/png;base64") == 3
    assert "% of the edges taken away" in section
    assert main([*command, "--accept-loss"]) == 0  # all slices are done: judged from their records


def test_noise_alone_ends_in_exit_code_0(
    noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restorer that gives exactly what is behind the noise, for the middle slice."""
    clean = scene(KIND, 1, 300, 1e4, 192).clean
    window = scene(KIND, 1, 300, 1e4, 192).window
    volume = np.sort(window.transpose(2, 0, 1).ravel() * np.float32(0.02))
    low, high = (float(volume[(volume.size - 1) * rank // 1000]) for rank in (10, 990))

    def exact(_: Restorer, seen: Array) -> Array:
        grey: Array = ((clean * np.float32(0.02) - low) * 0.8 / (high - low) + 0.1).astype(np.float32)
        assert grey.shape == seen.shape[:2]
        return grey

    monkeypatch.setattr(Restorer, "__call__", exact)
    command = ["restore", str(noisy), str(tmp_path / "o"), "--workers", "1", "--slices", "1:2"]
    assert main([*command, "--range", repr(low), repr(high)]) == 0
    assert "noise from 1 slices, more than noise from 0" in capsys.readouterr().out
    report, _ = report_of(tmp_path / "o")
    assert report["more_than_noise_removed"] == []


@pytest.mark.usefixtures("blurring")
def test_a_lower_strength_gives_structure_back(noisy: Path, tmp_path: Path) -> None:
    """And belongs to the terms of a run."""
    measured = open_volume(Source(noisy)).read(1)
    errors = []
    for strength in (1.0, 0.0):
        out = tmp_path / f"o{strength:g}"
        restored(plan_of(noisy, out, strength=strength))
        after = open_volume(Source(out)).read(1)
        errors.append(float(np.std(gaussian_filter(after - measured, 2.0))))
    assert errors[1] < 0.75 * errors[0]
    with pytest.raises(FeedError, match=r"strength was 0\.0 and is 0\.5 now"):
        restored(plan_of(noisy, out, strength=0.5))
    with pytest.raises(UsageError, match="strength"):
        plan_of(noisy, tmp_path / "p", strength=1.5)


@pytest.mark.usefixtures("blurring")
def test_a_volume_without_noise_comes_out_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = folder_of(KIND, 310, 0.0, tmp_path / "rec")
    assert main(["restore", str(scan), str(tmp_path / "o"), "--workers", "1"]) == 0
    assert "hardly any noise" in capsys.readouterr().out
    before, after = (open_volume(Source(folder)) for folder in (scan, tmp_path / "o"))
    for index in range(3):
        error = np.abs(after.read(index) - before.read(index)).max()
        assert error < 1e-4 * np.ptp(before.read(index))


def test_few_views_are_told_to_be_beyond_judgement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = folder_of("wood", 26, 1e4, tmp_path / "rec", 320)
    assert main(["restore", str(scan), str(tmp_path / "o"), "--workers", "1"]) == 0
    printed = capsys.readouterr()
    assert "3 cannot be judged" in printed.out
    assert "too few views" in printed.err
