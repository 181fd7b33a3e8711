"""`restore --skip-clean`: what the selector finds clean stays as it was measured, and the report says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.refimpl.errors import CannotCompare, FeedError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.check import check
from karat24.tomography.scan.manifest import read_manifest
from karat24.tomography.scan.outputs import state_folder
from karat24.tomography.scan.restorer import Restorer
from karat24.tomography.scan.volumes import Source, open_volume
from karat24.tomography.scan.work import Worker
from tests.support.scans import noisy_volume, plan_of, restored, write_folder

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")

NOISY, CLEAN = (0, 1, 2), (3, 4, 5)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of the least height that the selector takes; 2 and 3 have a neighbour of the other kind."""
    volume = noisy_volume(6, 72)
    volume[3:] = noisy_volume(6, 72, deviation=0)[3:]
    return write_folder(tmp_path_factory.mktemp("mixed") / "rec", volume[:, :64])


def test_clean_slices_are_stored_as_measured_and_no_network_runs(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Array] = []

    def halved(_: Restorer, window: Array) -> Array:
        seen.append(window)
        return window[..., 1] / 2

    monkeypatch.setattr(Restorer, "__call__", halved)
    command = ["restore", str(scan), str(tmp_path / "o"), "--workers", "1", "--accept-loss"]
    assert main([*command, "--skip-clean"]) == 0
    assert len(seen) == len(NOISY)
    before, after = (open_volume(Source(folder)) for folder in (scan, tmp_path / "o"))
    for index in range(6):
        assert np.array_equal(after.read(index), before.read(index)) == (index in CLEAN)

    printed = capsys.readouterr().out
    assert "slices that look clean to the slice selector stay as they are" in printed
    assert "skipped  3 slices that looked clean" in printed
    state = state_folder(tmp_path / "o")
    report = json.loads((state / "report.json").read_bytes())
    assert report["skipped_as_clean"] == [f"recon_{index:05}" for index in CLEAN]
    for told in report["slices"]:
        assert told["skipped"] == (told["score"] <= 0) == (told["index"] in CLEAN)
        assert not (told["skipped"] and (told["structured"] or told["difference"] or told["deviation"]))
    assert "Found clean and left as they are: 3 slices." in (state / "report.html").read_text()

    assert restored(plan_of(scan, tmp_path / "o", skip_clean=True)).done_before == 6
    with pytest.raises(FeedError, match=r"recipe: selector was \w{64} and is absent now"):
        restored(plan_of(scan, tmp_path / "o"))


def test_the_choice_and_the_bits_are_those_of_a_runtime(scan: Path, tmp_path: Path) -> None:
    """One slice of either kind, chosen and restored once more by LiteRT."""
    plan = plan_of(scan, tmp_path / "o", skip_clean=True, slices=(2, 4))
    restored(plan)
    assert [found.equal for found in check(plan.manifest, 2, "litert-ref")] == [True, True]
    plain = plan_of(scan, tmp_path / "plain", slices=(2, 4))
    restored(plain)
    for index, same in ((2, True), (3, False)):
        first, second = (tifffile.imread(tmp_path / o / f"recon_{index:05}.tiff") for o in ("o", "plain"))
        assert np.array_equal(first, second) == same


def test_the_selector_belongs_to_the_terms_of_a_run(scan: Path, tmp_path: Path) -> None:
    """Without it they are what they were before it was written, so that old runs go on."""
    with_it, without = (plan_of(scan, tmp_path / "o", skip_clean=skip).manifest for skip in (True, False))
    assert set(with_it.judged()) - set(without.judged()) == {"recipe: selector"}
    assert with_it.fingerprint != without.fingerprint
    with_it.state.mkdir()
    with_it.write()
    assert read_manifest(with_it.state / "manifest.json").recipe == with_it.recipe
    other = replace(with_it, recipe=replace(with_it.recipe, selector="0" * 64))
    with pytest.raises(CannotCompare, match="versions of karat24 differ"):
        Worker(other).restore(0)


def test_slices_that_are_too_small_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", noisy_volume(2)[:, :63])
    with pytest.raises(UsageError, match="--skip-clean looks at 64 × 64 pixels"):
        plan_of(tmp_path / "v.npy", tmp_path / "o", skip_clean=True)
