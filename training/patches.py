"""Random patches of noisy and clean slices, seeded and endless."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float = NDArray[np.float32]


def taught(
    batches: Iterator[tuple[Tensor, Tensor]], teacher: torch.nn.Module
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of noisy images with the output of ``teacher`` in place of clean images."""
    teacher = teacher.eval().to(memory_format=torch.channels_last)
    for noisy, _ in batches:
        with torch.no_grad():
            target = teacher(noisy.to(memory_format=torch.channels_last))
        yield noisy, target


def patches(
    noisy: Float, clean: Float, size: int, batch: int, seed: int, vary_grey: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of ``(noisy [batch, 3, size, size], clean [batch, 1, size, size])``.

    ``noisy`` is ``[slice, y, x, 3]``, ``clean`` ``[slice, y, x]``. Each patch is turned and mirrored; every
    second patch has its neighbours swapped, because a stack of slices has no preferred direction. With
    ``vary_grey`` brightness and contrast are changed a little.
    """
    generator = np.random.default_rng(seed)
    slices, height, width = clean.shape
    while True:
        inputs, targets = [], []
        for _ in range(batch):
            n = generator.integers(slices)
            y, x = generator.integers(height - size + 1), generator.integers(width - size + 1)
            source = noisy[n, y : y + size, x : x + size]
            target = clean[n, y : y + size, x : x + size]
            if generator.random() < 0.5:
                source = source[:, :, ::-1]
            turns, mirror = generator.integers(4), generator.random() < 0.5
            source, target = np.rot90(source, turns), np.rot90(target, turns)
            if mirror:
                source, target = source[:, ::-1], target[:, ::-1]
            gain, offset = generator.uniform(0.85, 1.15), generator.uniform(-0.08, 0.08)
            if vary_grey:
                source = source * np.float32(gain) + np.float32(offset)
                target = target * np.float32(gain) + np.float32(offset)
            inputs.append(source)
            targets.append(target)
        yield (
            torch.from_numpy(np.stack(inputs).transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(np.stack(targets)[:, None].copy()),
        )
