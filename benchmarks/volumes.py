"""Whole volumes: the cost of `karat24 restore` beyond its slices' own work, its memory, and Dask workers.

python -m benchmarks.volumes FOLDER [--slices 200] [--size 2160 2560] [--workers 2] [--dask-slices 16]

The program writes a synthetic scan, 22 MB a slice at the default size, and its restored volume under FOLDER.
The scan is kept for the next run. The slices' own times are those of one process with one thread, on an
otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile
from distributed import LocalCluster

from benchmarks.markdown import fill, table
from karat24.golden.provenance import cpu_name
from karat24.tomography.scan.cluster import on_cluster
from karat24.tomography.scan.plan import Options, Plan, make_plan
from karat24.tomography.scan.records import digest_of_all
from karat24.tomography.scan.run import carry_out
from karat24.tomography.scan.volumes import Source
from karat24.tomography.scan.work import Worker

RESULTS = Path(__file__).parent / "results" / "volumes.md"
OWN = 5
"""The number of slices whose own time is measured."""
SECONDS_BETWEEN = 0.2
"""Seconds between two measurements of the processes' memory."""


def main() -> int:
    """Prints and keeps the figures; returns 1 where the volumes of one and of two Dask workers differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(2160, 2560), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dask-slices", type=int, default=16)
    options = parser.parse_args()
    scan = written_scan(options.folder, options.slices, *options.size)
    own = own_seconds(planned(scan, options.folder / "own", OWN))
    seconds, peak = restored(scan, options.folder / "restored", options.workers)
    share = options.slices * own / options.workers / seconds
    rows = [
        ("slices", f"{options.slices} of {options.size[0]}×{options.size[1]}, float32 TIFF"),
        (f"own time of a slice, one thread, median of {OWN}", f"{own:.2f} s"),
        (f"the whole command, {options.workers} processes", f"{seconds:.0f} s"),
        ("speed over that of the slices alone", f"{share:.2f}"),
        ("greatest memory of one process", f"{peak / 1e9:.2f} GB"),
    ]
    times, digests = [], []
    for workers in (1, 2):
        took, digest = on_dask(scan, options.folder / "dask", options.dask_slices, workers)
        times.append(took)
        digests.append(digest)
        rows.append(
            (f"{options.dask_slices} slices on {workers} Dask workers of one thread", f"{took:.1f} s")
        )
    rows.append(("two Dask workers over one", f"{times[0] / times[1]:.2f}"))
    text = f"{time.strftime('%Y-%m-%d')}, {cpu_name()}, {os.cpu_count()} processors.\n\n"
    text += table(("a synthetic scan", ""), rows)
    print(text)
    if digests[0] != digests[1]:
        print("one and two workers gave different volumes: nothing kept")
        return 1
    fill(RESULTS, {"volumes": text})
    return 0


def written_scan(folder: Path, slices: int, height: int, width: int) -> Path:
    """Writes a folder of discs in noise, one TIFF file a slice, unless it exists; all slices differ."""
    scan = folder / f"scan-{slices}-{height}-{width}"
    if scan.is_dir():
        return scan
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    clean = np.zeros((height, width), np.float32)
    for _ in range(60):
        row, column = rng.uniform(0.1, 0.9, 2) * (height, width)
        clean += 0.02 * ((y - row) ** 2 + (x - column) ** 2 < rng.uniform(20, 250) ** 2).astype(np.float32)
    unfinished = scan.with_suffix(".partial")
    unfinished.mkdir(parents=True, exist_ok=True)
    for index in range(slices):
        noise = rng.standard_normal((height, width), np.float32) * np.float32(0.005)
        tifffile.imwrite(unfinished / f"slice_{index:05}.tif", np.roll(clean, 3 * index, axis=1) + noise)
    unfinished.rename(scan)
    return scan


def planned(scan: Path, out: Path, slices: int, workers: int = 1) -> Plan:
    """A plan for the first slices, none of which is restored yet."""
    for old in (out, out.with_name(f"{out.name}.karat24")):
        shutil.rmtree(old, ignore_errors=True)
    return make_plan(Source(scan, None, 0), out, Options(workers=workers, slices=(0, slices)))


def own_seconds(plan: Plan) -> float:
    """The median time of a slice from its file to its written file, without the first, which compiles."""
    plan.manifest.state.mkdir(parents=True)
    (plan.manifest.state / "done").mkdir()
    worker = Worker(plan.manifest, 1)
    worker.store.prepare()
    worker.finish(0)
    taken = []
    for _ in range(OWN):
        began = time.perf_counter()
        worker.finish(1)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def restored(scan: Path, out: Path, workers: int) -> tuple[float, int]:
    """Seconds of the whole command, and the greatest resident memory of one of its processes in bytes."""
    for old in (out, out.with_name(f"{out.name}.karat24")):
        shutil.rmtree(old, ignore_errors=True)
    command = [sys.executable, "-m", "karat24", "restore", str(scan), str(out), "--workers", str(workers)]
    began = time.perf_counter()
    running = subprocess.Popen(command)
    peak = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(SECONDS_BETWEEN):
            try:
                process = psutil.Process(running.pid)
                for one in (process, *process.children(recursive=True)):
                    peak = max(peak, one.memory_info().rss)
            except psutil.NoSuchProcess:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = running.wait()
    seconds = time.perf_counter() - began
    ended.set()
    watcher.join()
    if status:
        raise SystemExit(f"karat24 restore ended with {status}")
    return seconds, peak


def on_dask(scan: Path, out: Path, slices: int, workers: int) -> tuple[float, str]:
    """Seconds for the slices on workers that are warm, and the digest of the restored values."""
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, processes=True, silence_logs=50
    ) as cluster:
        seconds = 0.0
        for count in (2 * workers, slices):  # the first round prepares every worker
            plan = planned(scan, out, count)
            began = time.perf_counter()
            outcome = carry_out(
                plan, lambda manifest, todo: on_cluster(manifest, todo, cluster.scheduler_address)
            )
            seconds = time.perf_counter() - began
    return seconds, digest_of_all(outcome.records)


if __name__ == "__main__":
    sys.exit(main())
