"""Training the slice selector: crops of clean and noisy slices of simulated samples.

Each slice of a window is clean or noisy at random, since a scan's clean slices may lie beside noisy ones; the
middle slice gives the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own custom
from numpy.typing import NDArray
from torch import Tensor, nn

from karat24.export.quantize import calibrate
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.refimpl.networks import slice_selector
from karat24.refimpl.networks.slice_selector import CHANNELS
from karat24.tomography.calibration_inputs import calibration_samples
from karat24.tomography.imaging.families import TRAINING_FAMILIES
from karat24.tomography.imaging.simulate import simulate_stack
from training.data import FIRST_SEED
from training.model import NamedConvolutions

CROP = 64
BATCH = 32


class SliceSelector(NamedConvolutions):
    """``[batch, 3, y, x]`` → ``[batch, 2]``: scores of the middle slice being clean and noisy."""

    def __init__(self) -> None:
        super().__init__()
        for box, inputs in ((1, 3), (2, CHANNELS), (3, CHANNELS)):
            self.add(f"box{box}/conv", nn.Conv2d(inputs, CHANNELS, 3, padding=1))
        self.add("output", nn.Conv2d(CHANNELS, 2, 1))

    def names(self) -> list[str]:
        """Layer names as in the weight file."""
        return ["box1/conv", "box2/conv", "box3/conv", "output"]

    def forward(self, x: Tensor) -> Tensor:
        """Scores of clean and noisy."""
        for box in (1, 2):
            x = F.max_pool2d(self.conv(f"box{box}/conv", x), 2)
        x = self.conv("box3/conv", x).mean((2, 3), keepdim=True)
        return self.conv("output", x, relu=False)[..., 0, 0]


def stacks(samples: int, size: int, seed: int, path: Path) -> NDArray[np.float16]:
    """Three slices of ``samples`` training samples, ``[sample, kind, slice, y, x]`` with the kinds clean and
    noisy; simulated, and kept in ``path``."""
    if not path.is_file():
        found = []
        for number in range(samples):
            family = TRAINING_FAMILIES[number % len(TRAINING_FAMILIES)]
            stack = simulate_stack(
                family, size, FIRST_SEED + seed + number // len(TRAINING_FAMILIES), vary_grey=True
            )
            found.append(np.stack([stack.clean, stack.noisy]).astype(np.float16))
            if (number + 1) % 6 == 0:
                print(f"{number + 1}/{samples} samples", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, stacks=np.stack(found))
    with np.load(path) as stored:
        kept: NDArray[np.float16] = stored["stacks"]
    if len(kept) != samples or kept.shape[-1] != size:
        raise UsageError(f"{path}: holds other samples, {kept.shape}; give another --folder")
    return kept


def batch_of(slices: NDArray[np.float16], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Windows ``[batch, 3, 64, 64]``, turned and mirrored, half of them with a noisy middle, and their
    labels."""
    size = slices.shape[-1]
    windows, labels = [], []
    for number in range(BATCH):
        y, x = generator.integers(size - CROP + 1, size=2)
        kinds = generator.integers(2, size=3)
        kinds[1] = number % 2
        crop = slices[generator.integers(len(slices)), :, :, y : y + CROP, x : x + CROP]
        window = np.stack([crop[kind, place] for place, kind in enumerate(kinds)]).astype(np.float32)
        window = np.rot90(window, generator.integers(4), (1, 2))
        if generator.random() < 0.5:
            window = window[::-1, :, ::-1]
        gain, offset = generator.uniform(0.85, 1.15), generator.uniform(-0.08, 0.08)
        windows.append(window * np.float32(gain) + np.float32(offset))
        labels.append(int(kinds[1]))
    return torch.from_numpy(np.stack(windows)), torch.tensor(labels)


def train_selector(slices: NDArray[np.float16], steps: int, seed: int) -> SliceSelector:
    """``steps`` of Adam at 1e-2, falling along a cosine, on cross entropy."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model = SliceSelector()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        windows, labels = batch_of(slices, generator)
        scores = model(windows)
        loss = F.cross_entropy(scores, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            right = float((scores.argmax(1) == labels).float().mean())
            print(f"step {step + 1}/{steps} loss {float(loss.detach()):.4f} right {right:.2f}", flush=True)
    return model


def observed_ranges(weights: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
    """``<activation>/range`` of every activation over the simulated slices that calibrate TomoGAN, float32
    ``[low, high]``. They are kept with the weights, so that every machine quantizes equally without
    simulating."""
    graph = slice_selector(CROP, CROP, weights)
    return {
        f"{graph.tensors[index].name}/range": np.array([found.low, found.high], np.float32)
        for index, found in calibrate(graph, calibration_samples(graph)).items()
    }
