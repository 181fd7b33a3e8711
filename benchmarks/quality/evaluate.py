"""Applying every method to every slice in several processes; a run resumes where the last one ended.

One JSON file per slice holds the results. Each method's entry has a fingerprint of all it depends on: the
slice, the model's bytes, the settings. An entry whose fingerprint fits is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import threads_of_new_processes
from benchmarks.quality import inclusions, metrics, peers
from benchmarks.quality.cases import Case, load_slice, simulator_digest
from benchmarks.quality.methods import BLEND, HALO, METHODS, Kitchen, Method
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array

SHOWN = (
    "noisy", "nlm", "tv", "float whole", "int8 whole", "int8 tiles", "int8 tiles repaired",
    "int8 halo", "aware-int8 blend repaired",
)  # fmt: skip
"""Methods whose images of the first slice of each family are kept for the pictures."""

Record = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """The settings of a run: the folders of models, slices and records, SHA-256 of each model, and the number
    of slices of each family for methods marked ``few``."""

    folder: Path
    models: dict[str, str]
    few: int = 2

    @property
    def model_folder(self) -> Path:
        """The folder of the prepared networks."""
        return self.folder / "models"

    def methods(self, case: Case) -> list[Method]:
        """The methods that are applied to a slice: all whose models exist."""
        return [
            method
            for method in METHODS.values()
            if (not method.model or method.model in self.models)
            and (not method.few or case.number < self.few)
            and (not method.after or METHODS[method.after].model in self.models)
        ]

    def fingerprint(self, case: Case, method: Method) -> str:
        """The fingerprint of everything that a method's entry depends on."""
        before = self.fingerprint(case, METHODS[method.after]) if method.after else ""
        parts = [
            case, simulator_digest(), method.cover, method.profile, method.counted, before,
            self.models.get(method.model), metrics.SSIM_OPTIONS, np.__version__,
        ]  # fmt: skip
        if method.cover == "halo":
            parts.append(HALO)
        if method.cover == "blend":
            parts.append(BLEND)
        if method.name in peers.PEERS:
            parts += [method.name, peers.PEERS[method.name][1], peers.NEIGHBOURS, peers.CROP]
        if method.counted:
            parts += [getattr(inclusions, name) for name in sorted(vars(inclusions)) if name.isupper()
                      and name != "CONNECTED"]  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def record_path(settings: Settings, case: Case) -> Path:
    """The file of a slice's results."""
    return settings.folder / "records" / f"{case.name}-{case.size}.json"


def image_path(settings: Settings, case: Case, method: str) -> Path:
    """The file of a restored slice that is kept for the pictures."""
    return settings.folder / "images" / f"{case.name}-{case.size}" / f"{method.replace(' ', '-')}.npy"


def is_shown(case: Case, method: str) -> bool:
    """Whether the image is kept for a picture."""
    return case.number == 0 and method in SHOWN


def open_methods(settings: Settings, case: Case) -> list[Method]:
    """The methods that are still to be applied to a slice."""
    kept = _kept(settings, case)
    return [
        method
        for method in settings.methods(case)
        if kept.get(method.name, {}).get("fingerprint") != settings.fingerprint(case, method)
        or (is_shown(case, method.name) and not image_path(settings, case, method.name).is_file())
    ]


def evaluate(settings: Settings, cases: Sequence[Case], processes: int, say: Say) -> int:
    """Computes missing entries; returns how many."""
    waiting = {case: len(open_methods(settings, case)) for case in cases}
    todo = [case for case in cases if waiting[case]]
    total, done, began = sum(waiting.values()), 0, time.perf_counter()
    say(f"{len(cases)} slices, {len(todo)} of them with work left ({total} measurements)")
    if not todo:
        return 0
    threads = max(1, (os.cpu_count() or 1) // processes)
    spawn = multiprocessing.get_context("spawn")  # Numba's threads do not survive a fork
    with threads_of_new_processes(threads), ProcessPoolExecutor(processes, spawn) as pool:
        futures = {pool.submit(score_case, settings, case): case for case in todo}
        for number, future in enumerate(as_completed(futures), 1):
            try:
                entries = future.result()
            except BrokenProcessPool as died:
                raise UsageError(
                    f"a process died, for want of memory perhaps, near {futures[future].name}; what is "
                    "finished is kept: start again, with fewer --processes or a smaller --size"
                ) from died
            done += waiting[futures[future]]
            spent = time.perf_counter() - began
            say(
                f"[{number}/{len(todo)}] {futures[future].name}: noisy {entries['noisy']['ssim']:.3f}, "
                f"float {entries.get('float whole', entries['noisy'])['ssim']:.3f}; "
                f"{spent / 60:.1f} min, about {spent / done * (total - done) / 60:.1f} min left"
            )
    return total


def score_case(settings: Settings, case: Case) -> Record:
    """Measures one slice and keeps the results; returns all its entries."""
    given = load_slice(case, settings.folder)
    kitchen = Kitchen(settings.model_folder, case.size)
    entries = _kept(settings, case)
    images: dict[str, Array] = {}
    truth: inclusions.Truth | None = None

    def image_of(method: Method) -> tuple[Array, dict[str, float]]:
        if method.after and method.after not in images:
            images[method.after] = image_of(METHODS[method.after])[0]
        return kitchen.apply(method, given, images)

    for method in open_methods(settings, case):
        began = time.perf_counter()
        image, choice = image_of(method)
        seconds = time.perf_counter() - began
        images[method.name] = image
        entry: Record = {
            "fingerprint": settings.fingerprint(case, method),
            "ssim": metrics.ssim(given.clean, image),
            "psnr": metrics.psnr(given.clean, image),
            "seconds": round(seconds, 3),
        }
        if choice:
            entry["choice"] = choice
        if method.counted:
            truth = truth or inclusions.Truth(given.clean)
            entry["inclusions"] = {name: asdict(found) for name, found in truth.compare(image).items()}
        entries[method.name] = entry
        if is_shown(case, method.name):
            path = image_path(settings, case, method.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, image.astype(np.float32))
    path = record_path(settings, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return entries


def results(settings: Settings, cases: Sequence[Case]) -> dict[str, dict[str, Record]]:
    """Entries by method and slice name, without those of methods that no longer exist."""
    found: dict[str, dict[str, Record]] = {}
    for case in cases:
        kept = _kept(settings, case)
        for method in settings.methods(case):
            if method.name in kept:
                found.setdefault(method.name, {})[case.name] = kept[method.name]
    return found


def _kept(settings: Settings, case: Case) -> dict[str, Record]:
    path = record_path(settings, case)
    if not path.is_file():
        return {}
    kept: dict[str, Record] = json.loads(path.read_text(encoding="utf-8"))
    return kept
