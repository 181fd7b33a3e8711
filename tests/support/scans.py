"""Small volumes for tests of whole scans, and the command line that restores them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.scan.plan import Options, Plan, make_plan
from karat24.tomography.scan.pool import in_processes
from karat24.tomography.scan.records import Record
from karat24.tomography.scan.run import Outcome, carry_out
from karat24.tomography.scan.volumes import Source


def noisy_volume(slices: int = 4, size: int = 64, seed: int = 0, deviation: float = 0.005) -> Array:
    """Discs in noise, in about 1/µm: float32 ``[z, y, x]``. With noise no two slices are equal."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    volume = np.zeros((slices, size, size))
    for _ in range(12):
        row, column, radius = rng.uniform(0.2, 0.8) * size, rng.uniform(0.2, 0.8) * size, rng.uniform(3, 9)
        volume += 0.02 * ((y - row) ** 2 + (x - column) ** 2 < radius**2)
    return (volume + rng.normal(0, deviation, volume.shape)).astype(np.float32)


def write_folder(folder: Path, volume: Array, first: int = 0, name: str = "recon_{:05}.tiff") -> Path:
    """One TIFF file per slice."""
    import tifffile

    folder.mkdir()
    for index, values in enumerate(volume, first):
        tifffile.imwrite(folder / name.format(index), values)
    return folder


def plan_of(scan: Path, out: Path, dataset: str | None = None, axis: int = 0, **options: object) -> Plan:
    """A plan for one process."""
    return make_plan(Source(scan, dataset, axis), out, Options(workers=1, **options))  # type: ignore[arg-type]


def restored(plan: Plan, **options: bool) -> Outcome:
    """The plan carried out in this process, on one thread."""
    return carry_out(plan, lambda manifest, todo: in_processes(manifest, todo, 1, 1), **options)


def pixels(outcome: Outcome) -> list[str]:
    """The digests of the slices' values, in order."""
    records: dict[int, Record] = outcome.records
    return [records[index].pixels for index in sorted(records)]


def restore_command(*arguments: str | Path) -> subprocess.Popen[str]:
    """``karat24 restore`` in a process of its own, which leads a group of processes."""
    command = [sys.executable, "-c", "from karat24.cli import main; raise SystemExit(main())", "restore"]
    return subprocess.Popen(
        [*command, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
