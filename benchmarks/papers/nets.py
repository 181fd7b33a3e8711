"""The small networks of the experiments, in PyTorch, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from karat24.refimpl.graph import Array

BATCH = 50


class SeriesNet(nn.Module):
    """Three convolutions of 5 with stride 2, ReLU, and a linear layer: ``[batch, 1, 40]`` → classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for _ in range(3):
            layers += [nn.Conv1d(inputs, channels, 5, stride=2, padding=2), nn.ReLU()]
            inputs = channels
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        return self.body(x)


class ImageNet(nn.Module):
    """VGG-like: a 3×3 convolution to each of ``channels``, ReLU and a 2×2 pool after it, one hidden layer.

    ``[batch, 1, side, side]`` → classes. ``hidden`` is the hidden layer's width.
    """

    def __init__(self, channels: tuple[int, ...], hidden: int, side: int, classes: int) -> None:
        super().__init__()
        inputs = 1
        self.convolutions = nn.ModuleList()
        for width in channels:
            self.convolutions.append(nn.Conv2d(inputs, width, 3, padding=1))
            inputs, side = width, side // 2
        self.hidden = nn.Linear(inputs * side * side, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        for convolution in self.convolutions:
            x = nn.functional.max_pool2d(torch.relu(convolution(x)), 2)
        # NHWC, as in the graphs, whose fully connected layers read channels last.
        return self.output(torch.relu(self.hidden(x.permute(0, 2, 3, 1).flatten(1))))


class SpeechNet(nn.Module):
    """Two bidirectional recurrent layers and the mean over time: ``[batch, 12, 25]`` → classes."""

    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(12, units, 2, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * units, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        return self.output(self.recurrent(x.transpose(1, 2))[0].mean(1))


NETWORKS: Mapping[str, Mapping[str, Callable[[], nn.Module]]] = {
    "mnist1d": {"wide": lambda: SeriesNet(64, 10), "narrow": lambda: SeriesNet(8, 10)},
    "digits": {"wide": lambda: ImageNet((32, 64), 64, 8, 10), "narrow": lambda: ImageNet((4, 8), 16, 8, 10)},
    "vowels": {"wide": lambda: SpeechNet(64, 9), "narrow": lambda: SpeechNet(8, 9)},
}
"""Networks of :mod:`benchmarks.papers.powers` by data set and width; a wide one has about forty times as many
weights as the narrow one."""


def train(
    module: nn.Module, samples: Array, labels: Array, epochs: int, optimizer: torch.optim.Optimizer, seed: int
) -> None:
    """``epochs`` of cross entropy in batches of 50 or a few more, shuffled by the seed; every sample is
    used."""
    x, y = torch.from_numpy(samples), torch.from_numpy(labels)
    shuffler = np.random.default_rng(seed)
    module.train()
    for _ in range(epochs):
        for chosen in np.array_split(shuffler.permutation(len(x)), max(1, len(x) // BATCH)):
            loss = nn.functional.cross_entropy(module(x[chosen]), y[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def probabilities(module: nn.Module, samples: Array) -> Array:
    """Softmax of every sample's scores, float32 ``[number, class]``."""
    module.eval()
    with torch.no_grad():
        found = [torch.softmax(module(part), 1) for part in torch.from_numpy(samples).split(1000)]
    array: Array = torch.cat(found).numpy()
    return array


def accuracy(given: Array, labels: Array) -> float:
    """Percent of the samples whose greatest probability is their label's."""
    return 100 * float((given.argmax(1) == labels).mean())
