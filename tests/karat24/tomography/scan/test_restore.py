"""Whole volumes: every format out, resumed after any interruption, checked bit by bit."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.refimpl.errors import FeedError, UsageError
from karat24.tomography.scan import files, lock
from karat24.tomography.scan.check import check
from karat24.tomography.scan.outputs import state_folder
from karat24.tomography.scan.restorer import Restorer
from karat24.tomography.scan.volumes import Source, open_volume
from tests.support.scans import (
    noisy_volume,
    pixels,
    plan_of,
    restore_command,
    restored,
    write_folder,
)

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")
zarr = pytest.importorskip("zarr", reason="zarr is not installed")

SLICES = 5


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five slices whose numbers do not begin with 0; height and width are no multiples of 8."""
    volume = noisy_volume(SLICES, 68)[:, :60]
    return write_folder(tmp_path_factory.mktemp("scan") / "rec", volume, 98)


@pytest.fixture(scope="module")
def undisturbed(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    restored(plan_of(scan, out))
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_names_unit_and_type_are_the_inputs(scan: Path, undisturbed: Path) -> None:
    assert sorted(path.name for path in undisturbed.iterdir()) == sorted(path.name for path in scan.iterdir())
    before, after = (open_volume(Source(folder)) for folder in (scan, undisturbed))
    assert after.about.shape == before.about.shape
    for index in range(SLICES):
        noisy, clean = before.read(index), after.read(index)
        assert clean.dtype == np.float32
        assert abs(float(clean.mean() - noisy.mean())) < 0.0005, "the mean, in 1/µm, stays"
        assert clean[:10, :10].std() < noisy[:10, :10].std() / 2, "noise goes"


@pytest.mark.parametrize(("index", "window"), [(0, [0, 0, 1]), (2, [1, 2, 3]), (4, [3, 4, 4])])
def test_neighbours_are_the_inputs_and_ends_repeat(
    scan: Path, undisturbed: Path, tmp_path: Path, index: int, window: list[int]
) -> None:
    """A slice beyond an end is the end itself; restored neighbours would leave ghosts."""
    manifest = plan_of(scan, tmp_path / "o").manifest
    volume = open_volume(Source(scan))
    grey = manifest.scale.grey(np.stack([volume.read(place) for place in window], axis=-1))
    expected = manifest.scale.value(Restorer(manifest.recipe, (60, 68), 1)(grey)).astype(np.float32)
    np.testing.assert_array_equal(tifffile.imread(undisturbed / f"recon_{98 + index:05}.tiff"), expected)


def test_every_output_holds_equal_values(scan: Path, undisturbed: Path, tmp_path: Path) -> None:
    expected = np.stack(
        [tifffile.imread(path) for path in sorted(undisturbed.iterdir(), key=lambda p: p.stem)]
    )
    for name in ("o.zarr", "o.h5", "o.tif", "o.npy"):
        restored(plan_of(scan, tmp_path / name))
        volume = open_volume(Source(tmp_path / name))
        found = np.stack([volume.read(index) for index in range(SLICES)])
        np.testing.assert_array_equal(found, expected, err_msg=name)
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), expected)


def test_ome_zarr_is_valid_and_keeps_the_voxel_size(tmp_path: Path) -> None:
    models = pytest.importorskip("ome_zarr_models", reason="ome-zarr-models is not installed")
    metadata = {"axes": "ZYX", "spacing": 3.0, "unit": "um"}
    volume = noisy_volume(2)
    tifffile.imwrite(tmp_path / "v.tif", volume, imagej=True, resolution=(0.5, 0.25), metadata=metadata)
    restored(plan_of(tmp_path / "v.tif", tmp_path / "o.zarr"))
    image = models.open_ome_zarr(zarr.open_group(tmp_path / "o.zarr", mode="r"))
    (scale,) = image.attributes.ome.multiscales[0].datasets[0].coordinateTransformations
    assert scale.scale == pytest.approx([3.0, 4.0, 2.0])
    assert image.attributes.ome.version == "0.5"
    assert open_volume(Source(tmp_path / "o.zarr")).about.voxel == pytest.approx((3.0, 4.0, 2.0))


def test_integers_have_one_recorded_scale(scan: Path, undisturbed: Path, tmp_path: Path) -> None:
    plan = plan_of(scan, tmp_path / "o", dtype="uint16")
    restored(plan)
    encoding = plan.manifest.encoding
    name = "recon_00100.tiff"
    stored = tifffile.imread(tmp_path / "o" / name)
    assert stored.dtype == np.uint16
    values = stored * encoding.slope + encoding.offset
    black, white = plan.manifest.scale.black_and_white
    expected = np.clip(tifffile.imread(undisturbed / name), black, white)
    np.testing.assert_allclose(values, expected, rtol=0, atol=0.51 * encoding.slope)


def test_masked_pixels_stay_as_they_are(tmp_path: Path) -> None:
    volume = noisy_volume(2)
    hidden = np.zeros((64, 64), bool)
    hidden[:7, :9] = True
    for value in (np.nan, -7.0):
        scan, out = tmp_path / f"{value}.npy", tmp_path / f"{value}"
        np.save(scan, np.where(hidden, np.float32(value), volume))
        restored(plan_of(scan, out, mask=value))
        found = tifffile.imread(out / "slice_00001.tif")
        np.testing.assert_array_equal(found[hidden], np.full(63, np.float32(value)))
        assert np.isfinite(found[~hidden]).all()


def test_nan_in_a_slice_that_was_not_sampled_is_refused_with_its_place(tmp_path: Path) -> None:
    volume = noisy_volume(70, 16)
    volume[11, 3, 4] = np.nan
    np.save(tmp_path / "v.npy", volume)
    plan = plan_of(tmp_path / "v.npy", tmp_path / "o")
    with pytest.raises(FeedError, match=r"slice slice_00011: 1 pixels are NaN, the first in row 3, column 4"):
        restored(plan)


def test_tiles_take_less_memory_and_say_so(scan: Path, tmp_path: Path) -> None:
    volume = np.tile(noisy_volume(1, 64), (1, 10, 10))
    np.save(tmp_path / "v.npy", volume)
    plan = plan_of(tmp_path / "v.npy", tmp_path / "o", max_memory=390_000_000)
    assert plan.manifest.recipe.tile == (512, 512)
    assert "halo of 16" in plan.manifest.recipe.describe()
    with pytest.raises(UsageError, match=r"takes about 0\.37 GB"):
        plan_of(tmp_path / "v.npy", tmp_path / "o", max_memory=300_000_000)


def test_best_quality_averages_tiles(scan: Path, undisturbed: Path, tmp_path: Path) -> None:
    restored(plan_of(scan, tmp_path / "o", quality="best", slices=(2, 3)))
    (name,) = (path.name for path in (tmp_path / "o").iterdir())
    best, fast = tifffile.imread(tmp_path / "o" / name), tifffile.imread(undisturbed / name)
    assert name == "recon_00100.tiff"
    assert not np.array_equal(best, fast)
    assert float(np.abs(best - fast).mean()) < 0.003


def test_a_trial_is_part_of_the_whole(scan: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The scale is the volume's whatever the slices, so a trial's slices are not done again."""
    restored(plan_of(scan, tmp_path / "o", slices=(1, 3)))
    outcome = restored(plan_of(scan, tmp_path / "o"))
    assert outcome.done_before == 2
    assert contents(tmp_path / "o") == contents(undisturbed)


def test_other_terms_are_refused_by_name(scan: Path, tmp_path: Path) -> None:
    restored(plan_of(scan, tmp_path / "o", slices=(0, 1)))
    with pytest.raises(FeedError, match=r"output: dtype was float32 and is uint8 now"):
        restored(plan_of(scan, tmp_path / "o", dtype="uint8"))
    with pytest.raises(FeedError, match=r"scale: high was"):
        restored(plan_of(scan, tmp_path / "o", span=(0.0, 0.1)))
    assert restored(plan_of(scan, tmp_path / "o", dtype="uint8"), overwrite=True).done_before == 0


def test_a_changed_input_is_noticed(tmp_path: Path) -> None:
    scan = write_folder(tmp_path / "in", noisy_volume(2))
    restored(plan_of(scan, tmp_path / "o"))
    os.utime(scan / "recon_00001.tiff", ns=(1, 1))
    with pytest.raises(FeedError, match=r"input: files was"):
        restored(plan_of(scan, tmp_path / "o"))


@pytest.mark.parametrize("moment", range(1, 9))
def test_a_crash_at_any_write_is_resumed(
    scan: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Before the n-th rename: the manifest's, a slice's, a record's. A part of the file is left behind."""
    replace, calls = os.replace, 0

    def crash(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == moment:
            Path(source).with_name(f".left{moment}.partial").write_bytes(Path(source).read_bytes()[:100])
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        restored(plan_of(scan, tmp_path / "o"))
    monkeypatch.undo()
    outcome = restored(plan_of(scan, tmp_path / "o"))
    assert outcome.done_before == max(0, (moment - 2) // 2)
    assert outcome.removed == 1
    assert contents(tmp_path / "o") == contents(undisturbed)


def test_a_full_disk_is_one_line_and_is_resumed(
    scan: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_disk, calls = files._to_disk, 0

    def full(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        to_disk(path)

    monkeypatch.setattr(files, "_to_disk", full)
    with pytest.raises(UsageError, match="the disk is full; free some space and give the same command again"):
        restored(plan_of(scan, tmp_path / "o"))
    monkeypatch.undo()
    assert restored(plan_of(scan, tmp_path / "o")).done_before == 2
    assert contents(tmp_path / "o") == contents(undisturbed)


def killed_and_resumed(scan: Path, out: Path, workers: int, done: int, seed: int) -> None:
    """Starts the command, kills its whole group after some records and a random delay."""
    process = restore_command(scan, out, "--workers", workers)
    records = state_folder(out) / "done"
    while process.poll() is None and (not records.is_dir() or len(list(records.glob("0*.json"))) < done):
        time.sleep(0.005)
    time.sleep(random.Random(seed).random() * 0.02)
    assert process.poll() is None, "it must be killed at work: " + process.communicate()[1]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_kill_and_resume(tmp_path: Path) -> None:
    """A process and its parent die without a word; the lock they leave belongs to nobody."""
    scan = write_folder(tmp_path / "in", noisy_volume(60))
    restored(plan_of(scan, tmp_path / "calm"))
    for seed, done in enumerate((1, 23)):
        killed_and_resumed(scan, tmp_path / "o", 1, done, seed)
    assert (state_folder(tmp_path / "o") / "lock").exists()
    outcome = restored(plan_of(scan, tmp_path / "o"))
    assert 23 <= outcome.done_before < 60
    assert contents(tmp_path / "o") == contents(tmp_path / "calm")


@pytest.mark.slow
def test_kill_and_resume_often(tmp_path: Path) -> None:
    """Several processes, killed at three moments: at their first slices, and twice resumed."""
    scan = write_folder(tmp_path / "in", noisy_volume(100))
    restored(plan_of(scan, tmp_path / "calm"))
    for seed in range(3):
        killed_and_resumed(scan, tmp_path / "o", 2, 20 * seed + 1, seed)
    restored(plan_of(scan, tmp_path / "o"))
    assert contents(tmp_path / "o") == contents(tmp_path / "calm")


def test_two_processes_give_the_bits_of_one(scan: Path, undisturbed: Path, tmp_path: Path) -> None:
    process = restore_command(scan, tmp_path / "o", "--workers", 2, "--check", 1)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "equal" in output
    assert contents(tmp_path / "o") == contents(undisturbed)


def test_a_living_run_keeps_others_out(scan: Path, tmp_path: Path) -> None:
    plan = plan_of(scan, tmp_path / "o")
    plan.manifest.state.mkdir()
    with (
        lock.locked(plan.manifest.state / "lock"),
        pytest.raises(UsageError, match="is restoring this volume"),
    ):
        restored(plan)
    restored(plan)
    assert not (plan.manifest.state / "lock").exists()


def test_the_lock_of_another_machine_is_taken_when_it_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "t"}))
    with pytest.raises(UsageError, match="process 1 on elsewhere"), lock.locked(path):
        pass
    silent = time.time() - 2 * lock.STALE
    os.utime(path, (silent, silent))
    with lock.locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_damaged_slice_is_done_again(scan: Path, undisturbed: Path, tmp_path: Path) -> None:
    restored(plan_of(scan, tmp_path / "o"))
    short, changed = tmp_path / "o" / "recon_00098.tiff", tmp_path / "o" / "recon_00100.tiff"
    short.write_bytes(short.read_bytes()[:-1])
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    assert restored(plan_of(scan, tmp_path / "o")).done_before == SLICES - 1
    assert restored(plan_of(scan, tmp_path / "o"), verify=True).done_before == SLICES - 1
    assert contents(tmp_path / "o") == contents(undisturbed)


def test_check_finds_one_changed_bit(scan: Path, tmp_path: Path) -> None:
    plan = plan_of(scan, tmp_path / "o.zarr")
    restored(plan)
    assert all(found.equal for found in check(plan.manifest, SLICES))
    path = tmp_path / "o.zarr" / "0" / "c" / "3" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert [found.equal for found in check(plan.manifest, SLICES)] == [True, True, True, False, True]


def test_check_on_a_runtime(scan: Path, tmp_path: Path) -> None:
    """LiteRT's reference kernels compute what the oracle did."""
    plan = plan_of(scan, tmp_path / "o", slices=(0, 1))
    restored(plan)
    (found,) = check(plan.manifest, 1, "litert-ref")
    assert found.equal
    elsewhere = replace(plan.manifest.recipe, profile="litert-2.3-ref-other-libc")
    (found,) = check(replace(plan.manifest, recipe=elsewhere), 1, "litert-ref")
    assert found.equal  # a C library's TANH is not in the network
    with pytest.raises(UsageError, match="restore with --profile"):
        list(check(plan.manifest, 1, "litert-xnnpack"))


def test_digests_do_not_depend_on_the_format(scan: Path, tmp_path: Path) -> None:
    digests = [pixels(restored(plan_of(scan, tmp_path / name))) for name in ("o", "o.zarr", "o.h5")]
    assert digests[0] == digests[1] == digests[2]


@pytest.mark.parametrize(
    ("out", "message"),
    [("rec/inside", "lies in the scan"), ("rec", "lies in the scan"), ("no/such/o", "does not exist")],
)
def test_where_nothing_is_written(scan: Path, out: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_of(scan, scan.parent / out)


def test_files_of_a_users_own_are_kept(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not from this command"):
        restored(plan_of(scan, tmp_path / "o"))


def test_the_command_tells_what_it_did(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restore", str(scan), str(tmp_path / "o"), "--workers", "1", "--check", "1"]) == 0
    printed = capsys.readouterr().out
    assert "recon_00098 … recon_00102" in printed
    report = json.loads((state_folder(tmp_path / "o") / "report.json").read_bytes())
    assert [found["name"] for found in report["slices"]] == [f"recon_{n:05}" for n in range(98, 103)]
    assert report["sha256_of_all_values"] in printed
    assert sum(report["histogram"]["counts"]) == SLICES * 60 * 68
    assert [found["equal"] for found in report["checked"]] == [True]
    page = (state_folder(tmp_path / "o") / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3


def test_preview_and_dry_run_write_nothing_else(scan: Path, tmp_path: Path) -> None:
    arguments = ["restore", str(scan), str(tmp_path / "o"), "--workers", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    assert main([*arguments, "--preview", str(tmp_path / "p.png")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]
