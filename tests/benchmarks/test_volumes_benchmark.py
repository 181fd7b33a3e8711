"""The benchmark of whole volumes: its scan is written once, and each round starts with nothing done."""

from __future__ import annotations

from pathlib import Path

import pytest

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("distributed", reason="Dask workers need the extra 'cluster'")

from benchmarks.volumes import planned, written_scan  # noqa: E402 - after what it needs

SLICES, SIZE = 3, (64, 80)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    (folder / f"scan-{SLICES}-64-80.partial").mkdir()  # what an interrupted run leaves
    return written_scan(folder, SLICES, *SIZE)


def test_a_scan_is_written_once_and_its_slices_differ(scan: Path) -> None:
    """Equal slices would let a cache answer for a slice."""
    files = sorted(scan.iterdir())
    slices = [tifffile.imread(path) for path in files]
    assert [values.shape for values in slices] == [SIZE] * SLICES
    assert len({values.tobytes() for values in slices}) == SLICES
    written = [path.stat().st_mtime_ns for path in files]
    assert written_scan(scan.parent, SLICES, *SIZE) == scan
    assert [path.stat().st_mtime_ns for path in files] == written


def test_a_round_finds_nothing_done(scan: Path, tmp_path: Path) -> None:
    """Slices restored before would not be restored again, and the round would measure nothing."""
    out = tmp_path / "out"
    state = tmp_path / "out.karat24"
    for old in (out, state):
        old.mkdir()
        (old / "slice").write_bytes(b"done")
    plan = planned(scan, out, 2)
    assert (plan.manifest.first, plan.manifest.count) == (0, 2)
    assert plan.manifest.state == state
    assert not out.exists()
    assert not state.exists()
