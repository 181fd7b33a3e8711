"""A volume on a real Dask cluster of this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from karat24.refimpl.errors import FeedError, UsageError
from karat24.tomography.scan import cluster
from karat24.tomography.scan.cluster import on_cluster
from karat24.tomography.scan.records import Record
from karat24.tomography.scan.run import carry_out
from tests.support.scans import noisy_volume, pixels, plan_of, restored

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
pytest.importorskip("tifffile", reason="tifffile is not installed")


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[object]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True, silence_logs=50
    ) as running:
        yield running


def test_a_worker_that_is_killed_changes_no_bit(local_cluster: object, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", noisy_volume(24))
    calm = restored(plan_of(tmp_path / "v.npy", tmp_path / "calm"))
    address = local_cluster.scheduler_address  # type: ignore[attr-defined]

    def finish(manifest: object, todo: object) -> Iterator[Record]:
        for count, record in enumerate(on_cluster(manifest, todo, address)):  # type: ignore[arg-type]
            if count == 3:
                victim = next(iter(local_cluster.workers.values()))  # type: ignore[attr-defined]
                os.kill(victim.pid, signal.SIGKILL)
            yield record

    outcome = carry_out(plan_of(tmp_path / "v.npy", tmp_path / "o"), finish)
    assert sorted(outcome.records) == list(range(24))
    assert pixels(outcome) == pixels(calm)
    for path in (tmp_path / "calm").iterdir():
        assert (tmp_path / "o" / path.name).read_bytes() == path.read_bytes()


def test_the_error_of_a_slice_arrives(local_cluster: object, tmp_path: Path) -> None:
    volume = noisy_volume(70, 16)
    volume[11, 3, 4] = np.nan  # not sampled
    np.save(tmp_path / "v.npy", volume)
    address = local_cluster.scheduler_address  # type: ignore[attr-defined]
    with pytest.raises(FeedError, match="slice slice_00011: 1 pixels are NaN"):
        carry_out(
            plan_of(tmp_path / "v.npy", tmp_path / "o", slices=(10, 13)),
            lambda manifest, todo: on_cluster(manifest, todo, address),
        )


def test_a_scheduler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    np.save(tmp_path / "v.npy", noisy_volume(2))
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        carry_out(
            plan_of(tmp_path / "v.npy", tmp_path / "o"),
            lambda manifest, todo: on_cluster(manifest, todo, "tcp://127.0.0.1:9"),
        )
