"""What must be said before hours of work, or must not outlast them: values that an output cannot hold, masks
that a type does not have, slices in which nothing is, slices of an earlier run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from karat24.cli import main
from karat24.refimpl.errors import FeedError, UsageError
from karat24.tomography.scan import lock, run
from karat24.tomography.scan.outputs import state_folder
from karat24.tomography.scan.sampling import take_sample
from karat24.tomography.scan.volumes import Source, open_volume
from tests.support.scans import noisy_volume, plan_of, restored, write_folder

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")


def saved(folder: Path, volume: np.ndarray) -> Path:
    np.save(folder / "v.npy", volume)
    return folder / "v.npy"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(np.uint8, 300), (np.uint8, -1), (np.uint8, 0.5), (np.int16, 1e9), (np.float32, 1e300)],
    ids=["too large", "negative", "a fraction", "far too large", "infinite in float32"],
)
def test_a_mask_that_the_type_does_not_have(tmp_path: Path, dtype: type, value: float) -> None:
    """Converted to the type, 0.5 would be 0, and 1e300 infinity: other pixels would be masked."""
    volume = open_volume(Source(saved(tmp_path, np.arange(48).reshape(3, 4, 4).astype(dtype))))
    with pytest.raises(FeedError, match="which has no such value"):
        take_sample(volume, value)


def test_a_mask_of_an_integer_volume(tmp_path: Path) -> None:
    values = np.arange(48).reshape(3, 4, 4).astype(np.uint8)
    assert take_sample(open_volume(Source(saved(tmp_path, values))), 7.0).ordered.size == 47


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v + 1e6, r"float32 cannot tell values from 999999\."),
        (lambda v: v * 1e298, "float32 cannot tell values from "),
        (lambda v: v * 1e-308, "cannot be scaled in float64"),
        (lambda v: (v - 0.03) * 1e308 * 30, "cannot be scaled in float64"),
    ],
    ids=["a contrast of 0.07 on a million", "beyond float32", "denormal numbers", "beyond float64"],
)
def test_values_that_the_output_cannot_hold(tmp_path: Path, change: object, message: str) -> None:
    """float32 would hold two values, infinities or zeros only, and the command would end with exit code 0."""
    scan = saved(tmp_path, change(noisy_volume(2).astype(np.float64)))  # type: ignore[operator]
    with pytest.raises((FeedError, UsageError), match=message):
        plan_of(scan, tmp_path / "o")


def test_integers_hold_a_small_contrast_on_a_large_offset(tmp_path: Path) -> None:
    """As the message promises: the same as without the offset, but for the rounding of the input itself."""
    volume = noisy_volume(2).astype(np.float64)
    found = []
    for offset in (0.0, 1e6):
        place = tmp_path / str(offset)
        place.mkdir()
        plan = plan_of(saved(place, volume + offset), place / "o", dtype="uint16")
        restored(plan)
        stored = tifffile.imread(place / "o" / "slice_00001.tif")
        found.append(stored * plan.manifest.encoding.slope + (plan.manifest.encoding.offset - offset))
    assert len(np.unique(found[1])) > 100
    # One step of the network's input may round to the other side: no more than a few of its steps come out.
    assert np.abs(found[0] - found[1]).max() < 0.07 * 5 / 255


@pytest.mark.parametrize("name", ["o.mrc", "o.rec", "o.nxs", "O.HDF"])
def test_a_format_that_is_read_only(tmp_path: Path, name: str) -> None:
    """A folder of that name would be taken for a file by whatever opens it next."""
    with pytest.raises(UsageError, match="is read, not written; name a folder"):
        restored(plan_of(saved(tmp_path, noisy_volume(2)), tmp_path / name))


def test_a_trial_in_a_folder_with_a_dot_in_its_name(tmp_path: Path) -> None:
    scan = saved(tmp_path, noisy_volume(3))
    restored(plan_of(scan, tmp_path / "at_1.5um", slices=(1, 2)))
    assert restored(plan_of(scan, tmp_path / "at_1.5um")).done_before == 1


def test_begun_again_no_slice_of_the_earlier_run_is_left(tmp_path: Path) -> None:
    """Otherwise slices of two scales would lie in one folder. A user's own files stay."""
    scan, out = saved(tmp_path, noisy_volume(4)), tmp_path / "o"
    restored(plan_of(scan, out))
    (out / "notes.txt").write_text("mine")
    (out / "slice_00009.tif").write_text("mine, too")
    restored(plan_of(scan, out, slices=(1, 3), span=(0.0, 0.1)), overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "notes.txt", "slice_00001.tif", "slice_00002.tif", "slice_00009.tif",
    ]  # fmt: skip


def test_a_forged_record_names_no_file_elsewhere(tmp_path: Path) -> None:
    scan, out = saved(tmp_path, noisy_volume(2)), tmp_path / "o"
    restored(plan_of(scan, out))
    path = state_folder(out) / "done" / "000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "../victim"}))
    (tmp_path / "victim.tif").write_text("mine")
    restored(plan_of(scan, out), overwrite=True)
    assert (tmp_path / "victim.tif").exists()


def test_a_refused_output_leaves_no_folder(tmp_path: Path) -> None:
    scan = saved(tmp_path, noisy_volume(2))
    (tmp_path / "o.h5").write_text("mine")
    with pytest.raises(UsageError, match="not from this command"):
        restored(plan_of(scan, tmp_path / "o.h5"))
    assert not state_folder(tmp_path / "o.h5").exists()


def test_slices_behind_a_single_file_are_removed_after_a_crash_too(tmp_path: Path) -> None:
    """Killed between the record of the single file and the removal of what it was made of."""
    scan, out = saved(tmp_path, noisy_volume(2)), tmp_path / "o.npy"
    restored(plan_of(scan, out))
    (state_folder(out) / "slices").mkdir()
    assert restored(plan_of(scan, out)).done_before == 2
    assert not (state_folder(out) / "slices").exists()


@pytest.mark.parametrize(
    ("delegate", "message"),
    [("litert-nonsense", "no delegate 'litert-nonsense'"), ("litert-xnnpack", "restore with --profile")],
)
def test_a_runtime_that_cannot_check_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], delegate: str, message: str
) -> None:
    scan = saved(tmp_path, noisy_volume(2))
    arguments = ["--workers", "1", "--check", "1", "--delegate", delegate]
    assert main(["restore", str(scan), str(tmp_path / "o"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("value", [0.0, np.nan], ids=["one value", "all masked"])
def test_a_constant_slice_is_said_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    """As at the end of a volume that was not reconstructed to its end. It is one line, not an error: air that
    was clipped to integers looks the same."""
    volume = noisy_volume(4)
    volume[3] = value
    options = ["--workers", "1", "--accept-loss", *(["--mask", "nan"] if np.isnan(value) else [])]
    assert main(["restore", str(saved(tmp_path, volume)), str(tmp_path / "o"), *options]) == 0
    errors = capsys.readouterr().err
    assert "warning: 1 of the sampled slices hold one value only, first slice_00003" in errors
    assert "warning: 1 slices hold one value only, first slice_00003" in errors
    slices = json.loads((state_folder(tmp_path / "o") / "report.json").read_bytes())["slices"]
    assert [record["constant"] for record in slices] == [False, False, False, True]


def test_the_voxel_size_goes_from_file_to_file(tmp_path: Path) -> None:
    """From ilastik's attribute along another axis into HDF5, from there into a TIFF file."""
    volume = noisy_volume(2)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["d"] = volume.transpose(1, 0, 2)
        file["d"].attrs["element_size_um"] = [2.0, 3.0, 1.5]  # y, z, x
    assert open_volume(Source(tmp_path / "v.h5", None, 1)).about.voxel == (3.0, 2.0, 1.5)
    restored(plan_of(tmp_path / "v.h5", tmp_path / "o.h5", axis=1))
    assert open_volume(Source(tmp_path / "o.h5")).about.voxel == (3.0, 2.0, 1.5)
    restored(plan_of(tmp_path / "o.h5", tmp_path / "o.tif"))
    assert open_volume(Source(tmp_path / "o.tif")).about.voxel == pytest.approx((0.0, 2.0, 1.5))


@pytest.mark.parametrize(
    "sizes", ["a b c", [1.0, 2.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [1.0, np.inf, 1.0], 7]
)
def test_a_voxel_size_that_is_none(tmp_path: Path, sizes: object) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["d"] = noisy_volume(2)
        file["d"].attrs["element_size_um"] = sizes
    assert open_volume(Source(tmp_path / "v.h5")).about.voxel is None


def test_hidden_and_foreign_files_beside_the_slices(tmp_path: Path) -> None:
    """Files of macOS and logs of the reconstruction are no slices; names of any script are names."""
    folder = write_folder(tmp_path / "Aufnahme Ω", noisy_volume(3), name="断層 {:03}.TIF")
    (folder / "._断層 001.TIF").write_bytes(b"resource fork")
    (folder / "rec_line.txt").write_text("recon 1 2 3")
    out = tmp_path / "wiederhergestellt Ω"
    restored(plan_of(folder, out))
    assert sorted(path.name for path in out.iterdir()) == [f"断層 {n:03}.TIF" for n in range(3)]


def test_a_chunk_of_zarr_that_was_written_again(tmp_path: Path) -> None:
    """It is not among the sampled ones, and the restored volume would hold slices of both versions."""
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    volume = noisy_volume(70, 16)
    array = zarr.create_array(tmp_path / "v.zarr", shape=volume.shape, dtype="f4", chunks=(1, 16, 16))
    array[:] = volume
    plan = plan_of(tmp_path / "v.zarr", tmp_path / "o", slices=(10, 13))
    restored(plan)
    array[11] = volume[12]
    again = plan_of(tmp_path / "v.zarr", tmp_path / "o", slices=(10, 13))
    assert again.sample.digest == plan.sample.digest
    with pytest.raises(FeedError, match="input: chunks was"):
        restored(again)


def test_a_lock_where_files_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """exFAT and some network shares have no hard links."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(lock.os, "link", refuse)
    path = tmp_path / "lock"
    with lock.locked(path):
        with pytest.raises(UsageError, match=f"process {os.getpid()} on "), lock.locked(path):
            pass
        assert [found.name for found in tmp_path.iterdir()] == ["lock"]
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"], ids=["empty", "no text"])
def test_a_lock_that_cannot_be_read_is_honoured_until_it_is_old(tmp_path: Path, content: bytes) -> None:
    """It may be one that is just being written."""
    path = tmp_path / "lock"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"process \? on \?"), lock.locked(path):
        pass
    silent = time.time() - 2 * lock.STALE
    os.utime(path, (silent, silent))
    with lock.locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("name", ["o.h5", "o.tif", "o.npy"])
def test_a_single_file_that_no_longer_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The disk filled up while slices were restored: one line, and the same command goes on with them."""
    plan = plan_of(saved(tmp_path, noisy_volume(2)), tmp_path / name)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 64 * 64 * 4))
    monkeypatch.setattr(run, "require_space", lambda *_: None)
    with pytest.raises(UsageError, match=r"a single file takes .* \(finished slices are kept\)"):
        restored(plan)
    monkeypatch.undo()
    assert restored(plan).done_before == 2
    assert open_volume(Source(tmp_path / name)).about.shape == (2, 64, 64)


def test_what_was_done_again_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["restore", str(saved(tmp_path, noisy_volume(3))), str(tmp_path / "o"), "--workers", "1"]
    assert main(arguments) == 0
    assert "redone" not in capsys.readouterr().out
    (tmp_path / "o" / "slice_00001.tif").write_bytes(b"short")
    assert main(arguments) == 0
    assert "redone   1 slices that were damaged or missing, first slice_00001" in capsys.readouterr().out
    report = json.loads((state_folder(tmp_path / "o") / "report.json").read_bytes())
    assert (report["finished_before"], report["done_again"]) == (2, ["slice_00001"])
    page = (state_folder(tmp_path / "o") / "report.html").read_text(encoding="utf-8")
    assert "damaged or missing: slice_00001." in page
