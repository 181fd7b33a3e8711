"""Which errors does the slice selector make, and what do they cost?

Half of the slices of simulated test scans are clean; the scans are of all families, and none was trained on.
The selector runs in int8 on the oracle. A false alarm denoises a clean slice, a miss leaves a noisy one. The
selective paper's general formula, with the SSIM of left and denoised slices of each kind in place of
accuracies, gives the mean SSIM of a scan, which is also measured slice by slice.
"""

from __future__ import annotations

import numpy as np

from benchmarks.papers.tasks import Record, Task
from benchmarks.quality.metrics import ssim
from karat24.refimpl.networks import tomogan, trained_weights
from karat24.tomography.imaging.families import FAMILIES
from karat24.tomography.imaging.simulate import simulate_stack
from karat24.tomography.restoration import on_onnx_runtime
from karat24.tomography.selection import shipped_selector

SLICES = 6
"""Slices of a scan; the two at its ends are only neighbours."""


def tasks(size: int, scans: int) -> list[Task]:
    """One task for each scan, the families in turn."""
    names = list(FAMILIES)
    return [
        Task(f"{names[n % len(names)]}-{n}-{size}", measure, (names[n % len(names)], n, size))
        for n in range(scans)
    ]


def measure(family: str, seed: int, size: int) -> Record:
    """For each slice of a scan: whether it is noisy, the selector's score, its SSIM left and denoised, and
    the ratio of noise to contrast."""
    stack = simulate_stack(family, size, seed, split="test", slices=SLICES)
    generator = np.random.default_rng([seed, size])
    noisy = generator.permutation(np.arange(SLICES) % 2 == 0)
    scan = np.where(noisy[:, None, None], stack.noisy, stack.clean)
    selector = shipped_selector(threads=1)
    network = on_onnx_runtime(tomogan(size, size, "bilinear", trained_weights("tomogan")))
    found = []
    for middle in range(1, SLICES - 1):
        window = np.ascontiguousarray(scan[middle - 1 : middle + 2].transpose(1, 2, 0))
        clean = stack.clean[middle]
        found.append(
            {
                "noisy": bool(noisy[middle]),
                "score": selector.score(window),
                "left": ssim(clean, window[..., 1]),
                "denoised": ssim(clean, network(window[None])[0, ..., 0]),
                "noise": float((stack.noisy[middle] - clean).std() / clean.std()),
            }
        )
    return {"family": family, "seed": seed, "size": size, "slices": found}
