"""The page about the slice selector's errors."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.papers.tasks import Record, effort
from karat24.refimpl.cost import count
from karat24.refimpl.data_access import expected_accuracy
from karat24.refimpl.networks import slice_selector, tomogan
from karat24.tomography.selection import CROP, PLACES

SHARES = (0.1, 0.5, 0.9)
"""Shares of noisy slices for which the formula is evaluated."""

Slices = Sequence[Mapping[str, Any]]


def write(records: Mapping[str, Record], options: argparse.Namespace, output: Path) -> list[Path]:
    """``slice-selector.md``; nothing before slices of both kinds are there."""
    slices = [entry for record in records.values() for entry in record["slices"]]
    if len({entry["noisy"] for entry in slices}) < 2:
        return []
    output.mkdir(parents=True, exist_ok=True)
    path = output / "slice-selector.md"
    path.write_text(document(records, slices, options), encoding="utf-8")
    return [path]


def rates(slices: Slices) -> tuple[float, float]:
    """False alarms among the clean slices, misses among the noisy ones."""
    alarms = [entry["score"] > 0 for entry in slices if not entry["noisy"]]
    misses = [entry["score"] <= 0 for entry in slices if entry["noisy"]]
    return float(np.mean(alarms)) if alarms else 0.0, float(np.mean(misses)) if misses else 0.0


def mean(slices: Slices, noisy: bool, name: str) -> float:
    """The mean SSIM of the slices of a kind."""
    return float(np.mean([entry[name] for entry in slices if entry["noisy"] == noisy]))


def formula(slices: Slices, share: float, false_alarms: float, misses: float) -> float:
    """Mean SSIM of a scan with a share of noisy slices; the *clean network* leaves a slice as it is."""
    clean = mean(slices, False, "left"), mean(slices, False, "denoised")
    noisy = mean(slices, True, "left"), mean(slices, True, "denoised")
    return expected_accuracy(share, false_alarms, misses, clean, noisy)


def measured(slices: Slices) -> float:
    """Mean SSIM of the slices, each left or denoised as the selector says."""
    return float(np.mean([entry["denoised" if entry["score"] > 0 else "left"] for entry in slices]))


def document(records: Mapping[str, Record], slices: Slices, options: argparse.Namespace) -> str:
    """The whole text."""
    size = options.size
    false_alarms, misses = rates(slices)
    clean = sum(not entry["noisy"] for entry in slices)
    rows = []
    for family in sorted({record["family"] for record in records.values()}):
        own = [e for r in records.values() if r["family"] == family for e in r["slices"]]
        alarm, miss = rates(own)
        rows.append((family, str(len(own)), f"{100 * alarm:.1f} %", f"{100 * miss:.1f} %"))
    noise = sorted(entry["noise"] for entry in slices if entry["noisy"])
    edges = np.quantile(noise, [0, 1 / 3, 2 / 3, 1])
    strength = []
    for low, high in pairwise(edges):
        inside = [e for e in slices if e["noisy"] and low <= e["noise"] <= high]
        strength.append(
            (f"{low:.2f} to {high:.2f}", str(len(inside)), f"{100 * rates(inside)[1]:.1f} %",
             f"{np.mean([e['left'] for e in inside]):.3f}", f"{np.mean([e['denoised'] for e in inside]):.3f}")
        )  # fmt: skip
    pairs = (0, 0), (false_alarms, misses), (1, 0), (0, 1)
    scans = [(f"{share:.0%}", *(f"{formula(slices, share, f, m):.4f}" for f, m in pairs)) for share in SHARES]
    crops = len(PLACES) ** 2
    chooser = crops * count(slice_selector(CROP, CROP)).macs
    whole = count(tomogan(size, size)).macs
    actual = sum(e["noisy"] for e in slices) / len(slices)
    return (
        "# Slices that need no denoising\n\n"
        f"`python -m benchmarks.papers slices --size {size}` writes this page of {len(records)} simulated "
        f"test scans of {size}×{size} with {len(slices)} slices, {clean} of them clean. The selector "
        f"({count(slice_selector()).parameters:,} parameters, int8, on the oracle) reads {crops} crops of "
        f"{CROP}×{CROP}: {chooser / 1e6:.1f} million MAC for each slice, {100 * chooser / whole:.2f} % of "
        f"TomoGAN's {whole / 1e9:.1f} billion. **False alarms {100 * false_alarms:.1f} %, misses "
        f"{100 * misses:.1f} %.**\n\n"
        "A clean slice is reconstructed without noise from all projections; it is the simulator's target. "
        f"{effort(records, options.left)}\n\n"
        + table(("family", "slices", "false alarms", "misses"), rows)
        + "\nMisses by the ratio of the noise's deviation to the slice's, in thirds of the noisy slices:\n\n"
        + table(("noise", "slices", "misses", "SSIM left", "SSIM denoised"), strength)
        + "\nMean SSIM of a scan by the formula, from the rates above and the mean SSIM of clean "
        f"slices left ({mean(slices, False, 'left'):.4f}) and denoised "
        f"({mean(slices, False, 'denoised'):.4f}), noisy ones left ({mean(slices, True, 'left'):.4f}) "
        f"and denoised ({mean(slices, True, 'denoised'):.4f}):\n\n"
        + table(("noisy slices", "perfect selector", "this selector", "all denoised", "none denoised"), scans)
        + f"\nMeasured slice by slice, with {actual:.0%} noisy, the mean SSIM is {measured(slices):.4f}. The "
        f"formula, which takes errors as independent of their cost, gives "
        f"{formula(slices, actual, false_alarms, misses):.4f}.\n"
    )
