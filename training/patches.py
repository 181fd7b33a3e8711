"""Random patches of noisy and clean slices, seeded and endless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from karat24.refimpl.errors import UsageError
from training.planting import Planting

Float = NDArray[np.float32]
Batches = Iterator[tuple[Tensor, Tensor]]
"""Noisy images with their targets."""


def taught(batches: Batches, teachers: Sequence[torch.nn.Module], margin: int = 0) -> Batches:
    """Batches of noisy images with the mean output of ``teachers`` in place of clean images.

    Only the teachers see the ``margin`` pixels on each side, which are cut off afterwards.
    """
    teachers = [teacher.eval().to(memory_format=torch.channels_last) for teacher in teachers]
    for noisy, _ in batches:
        with torch.no_grad():
            seen = noisy.to(memory_format=torch.channels_last)
            target = torch.stack([teacher(seen) for teacher in teachers]).mean(dim=0)
        height, width = noisy.shape[2:]
        inner = (..., slice(margin, height - margin), slice(margin, width - margin))
        yield noisy[inner], target[inner]


def tiled(batches: Batches, side: int) -> Batches:
    """Every second batch as it is, and every second one cut into tiles of ``side`` pixels.

    A network that runs on tiles has nothing beyond their edges; the target still comes from the whole.
    Raises UsageError for images that are no whole number of tiles.
    """
    for number, pair in enumerate(batches):
        yield tuple(cut(images, side) for images in pair) if number % 2 else pair


def cut(images: Tensor, side: int) -> Tensor:
    """``[image, channel, y, x]`` → ``[image * rows * columns, channel, side, side]``."""
    height, width = images.shape[2:]
    if height % side or width % side:
        raise UsageError(f"patches of {height} x {width} pixels cannot be cut into tiles of {side}")
    rows = images.unflatten(2, (-1, side)).unflatten(4, (-1, side))
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def patches(
    noisy: Float,
    clean: Float,
    size: int,
    batch: int,
    seed: int,
    vary_grey: bool = True,
    planting: Planting | None = None,
    repeated: float = 0.0,
    twins: int = 0,
) -> Batches:
    """Batches of ``(noisy [batch, 3, size, size], clean [batch, 1, size, size])``.

    ``noisy`` is ``[slice, y, x, 3]``, ``clean`` ``[slice, y, x]``. Each patch is turned and mirrored; every
    second patch has its neighbours swapped, because a stack of slices has no preferred direction. With
    ``vary_grey`` brightness and contrast are changed a little. ``planting`` adds faint patterns to both.
    In a share ``repeated`` of the patches the middle slice stands for its neighbours. The last ``twins``
    patches of a batch are its first ones with a faint pattern added, which needs ``planting``.
    """
    if twins and (planting is None or 2 * twins > batch):
        raise UsageError(f"{twins} twins need planting, and a batch of at least {2 * twins}")
    generator = np.random.default_rng(seed)
    slices, height, width = clean.shape
    while True:
        inputs, targets = [], []
        for _ in range(batch - twins):
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
            if repeated and generator.random() < repeated:
                source = source[:, :, 1:2].repeat(3, axis=2)
            if planting is not None:
                pattern = planting.draw(generator, size)
                source, target = source + pattern[..., np.newaxis], target + pattern
            inputs.append(source)
            targets.append(target)
        for number in range(twins):
            pattern = planting.draw_any(generator, size)
            inputs.append(inputs[number] + pattern[..., np.newaxis])
            targets.append(targets[number] + pattern)
        yield (
            torch.from_numpy(np.stack(inputs).transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(np.stack(targets)[:, None].copy()),
        )
