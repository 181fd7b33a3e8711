"""A volume on a real Dask cluster of this machine."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from karat24.refimpl.errors import FeedError, UsageError
from karat24.tomography.scan import cluster
from karat24.tomography.scan.cluster import on_cluster
from karat24.tomography.scan.outputs import state_folder
from karat24.tomography.scan.records import Record
from karat24.tomography.scan.run import carry_out
from tests.support.scans import noisy_volume, pixels, plan_of, restore_command, restored

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


def test_the_whole_behind_a_trial_on_the_same_workers(local_cluster: object, tmp_path: Path) -> None:
    """A worker that keeps a trial's terms must not restore the whole by them."""
    np.save(tmp_path / "v.npy", noisy_volume(6))
    address = local_cluster.scheduler_address  # type: ignore[attr-defined]
    for slices in ((2, 4), None):
        outcome = carry_out(
            plan_of(tmp_path / "v.npy", tmp_path / "o", **({} if slices is None else {"slices": slices})),
            lambda manifest, todo: on_cluster(manifest, todo, address),
        )
    assert (outcome.done_before, len(outcome.records)) == (2, 6)
    assert pixels(outcome) == pixels(restored(plan_of(tmp_path / "v.npy", tmp_path / "calm")))


def test_a_scheduler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    np.save(tmp_path / "v.npy", noisy_volume(2))
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        carry_out(
            plan_of(tmp_path / "v.npy", tmp_path / "o"),
            lambda manifest, todo: on_cluster(manifest, todo, "tcp://127.0.0.1:9"),
        )


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Dask program in a process of its own, killed at the end if it still lives."""
    command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextmanager
def scheduler_with_workers(place: Path, workers: int) -> Iterator[tuple[list[subprocess.Popen[bytes]], str]]:
    """A scheduler as a user starts one, its address read from the file it writes, and workers beside it."""
    place.unlink(missing_ok=True)
    with ExitStack() as running:
        scheduler = running.enter_context(
            process("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-jupyter",
                    "--scheduler-file", str(place))
        )  # fmt: skip
        while not place.is_file() or not place.read_text():
            assert scheduler.poll() is None, "the scheduler did not start"
            time.sleep(0.05)
        processes = [scheduler]
        for _ in range(workers):
            processes.append(running.enter_context(
                process("dask_worker", "--scheduler-file", str(place), "--nthreads", "1", "--no-nanny",
                        "--no-dashboard", "--local-directory", str(place.parent))
            ))  # fmt: skip
        yield processes, json.loads(place.read_text())["address"]


def test_command_scheduler_and_worker_are_killed(tmp_path: Path) -> None:
    """At a random moment each, on one output: two are resumed, the third is no more than a delay. What is
    removed of this made-up volume, whose noise is no reconstruction's, is not looked at."""
    np.save(tmp_path / "v.npy", noisy_volume(90))
    calm = restored(plan_of(tmp_path / "v.npy", tmp_path / "calm"))
    done = state_folder(tmp_path / "o") / "done"
    moments = random.Random(3)
    for victim, enough in (("command", 3), ("scheduler", 30), ("worker", 60)):
        workers = 2 if victim == "worker" else 1  # the one that is left goes on
        with scheduler_with_workers(tmp_path / "scheduler.json", workers) as (processes, address):
            command = restore_command(
                tmp_path / "v.npy", tmp_path / "o", "--scheduler", address, "--accept-loss"
            )
            while command.poll() is None and (not done.is_dir() or len(list(done.glob("0*.json"))) < enough):
                time.sleep(0.005)
            time.sleep(moments.random() * 0.02)
            assert command.poll() is None, "it must be killed at work: " + command.communicate()[1]
            if victim == "command":
                os.killpg(command.pid, signal.SIGKILL)
            else:
                processes[("scheduler", "worker").index(victim)].kill()
            _, errors = command.communicate()
        if victim == "scheduler":
            assert command.returncode == 2, errors
            assert errors.rstrip().endswith("(finished slices are kept)")
    assert command.returncode == 0, errors
    outcome = restored(plan_of(tmp_path / "v.npy", tmp_path / "o"))
    assert outcome.done_before == 90
    assert pixels(outcome) == pixels(calm)
    for path in (tmp_path / "calm").iterdir():
        assert (tmp_path / "o" / path.name).read_bytes() == path.read_bytes()
