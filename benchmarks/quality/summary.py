"""The figures of a quality run: means, worst slices, gains, differences and counts, in one JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.quality.cases import HELD_OUT
from benchmarks.quality.methods import BLEND, HALO, METHODS
from karat24.golden.provenance import cpu_name

Entries = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""The results by method and slice name (see ``evaluate.results``)."""


@dataclass(frozen=True)
class Row:
    """The figures of one method over its slices.

    ``ssim`` and ``psnr`` (dB) are means; ``gain`` is in SSIM over the noisy input and ``to_float`` over the
    float network on the whole image, both on the same slices. ``worst`` is the slice with the least SSIM.
    """

    method: str
    title: str
    slices: int
    ssim: float
    psnr: float
    gain: float
    to_float: float | None
    worst: str
    worst_ssim: float


def row(entries: Entries, method: str, slices: Iterable[str] | None = None) -> Row:
    """The row of one method, over the named slices or all of its own."""
    own = entries[method]
    names = [name for name in own if slices is None or name in set(slices)]
    ssim = {name: own[name]["ssim"] for name in names}
    base = "transposed whole" if method.startswith("transposed") else "float whole"
    worst = min(names, key=ssim.__getitem__)
    return Row(
        method, METHODS[method].title, len(names), fmean(ssim.values()),
        fmean(own[name]["psnr"] for name in names),
        fmean(ssim[name] - entries["noisy"][name]["ssim"] for name in names),
        fmean(ssim[name] - entries[base][name]["ssim"] for name in names) if base in entries else None,
        worst, ssim[worst],
    )  # fmt: skip


def family_of(slice_name: str) -> str:
    """The family in a slice's name: ``bone`` of ``bone-003``."""
    return slice_name.rpartition("-")[0]


def families(entries: Entries) -> list[str]:
    """Families in the test set, in its order."""
    return list(dict.fromkeys(family_of(name) for name in entries["noisy"]))


def of_family(entries: Entries, *wanted: str) -> list[str]:
    """Names of the slices of some families."""
    return [name for name in entries["noisy"] if family_of(name) in wanted]


def counts(entries: Entries, method: str, slices: Iterable[str]) -> dict[str, dict[str, int]]:
    """Inclusions summed over slices: ``present``, ``kept``, ``lost``, ``invented`` by polarity."""
    total: dict[str, dict[str, int]] = {}
    for name in slices:
        for polarity, found in entries[method][name]["inclusions"].items():
            sums = total.setdefault(polarity, dict.fromkeys(("present", "kept", "lost", "invented"), 0))
            for key, number in (*found.items(), ("kept", found["present"] - found["lost"])):
                sums[key] += number
    return total


def keep(entries: Entries, size: int, models: Mapping[str, str], path: Path) -> None:
    """Writes the figures of every method and slice, and everything they depend on."""
    methods: dict[str, Any] = {}
    for name, own in entries.items():
        found = row(entries, name)
        methods[name] = {
            "title": found.title,
            "slices": found.slices,
            "mean_ssim": round(found.ssim, 5),
            "mean_psnr_db": round(found.psnr, 3),
            "gain": round(found.gain, 5),
            "to_float": None if found.to_float is None else round(found.to_float, 5),
            "ssim": {slice_: round(entry["ssim"], 4) for slice_, entry in own.items()},
            "psnr_db": {slice_: round(entry["psnr"], 2) for slice_, entry in own.items()},
        }
        if METHODS[name].counted:
            methods[name]["inclusions"] = counts(entries, name, own)
            methods[name]["inclusions_held_out"] = counts(entries, name, of_family(entries, *HELD_OUT))
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "numba", "onnxruntime", "scikit-image")},
        "size": size,
        "halo": HALO,
        "blend": BLEND,
        "models_sha256": {name: digest[:16] for name, digest in models.items()},
        "methods": methods,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False)
    # One method per line: the file is small, and its changes are readable.
    text = text.replace('}, "', '},\n"').replace('"methods": {', '"methods": {\n')
    path.write_text(text + "\n", encoding="utf-8")
