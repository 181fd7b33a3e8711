"""Is a selector with two narrow networks better than one network? The paper's experiment with a control.

For each width four networks are trained: one on clean images, one on distorted images, one on both, and a
tiny selector. All take equal numbers of epochs, so that the two dedicated networks take as many steps
together as the one on both. The *control*, which the paper lacks, is the narrow network on both. Half of the
test images are distorted. Distorted copies are drawn once for each seed.

Source: "Selective Deep Convolutional Neural Network for Low Cost Distorted Image Classification", whose
accuracies are those of a selector without errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.papers.tasks import Record, Task
from karat24.refimpl.data_access import expected_accuracy
from karat24.refimpl.graph import Array

if TYPE_CHECKING:
    from benchmarks.papers.nets import ImageNet

WIDTHS = (1.0, 0.75, 0.5, 0.25)
CHANNELS, HIDDEN = (32, 64), 64
TINY, TINY_HIDDEN = (8, 8), 16
EPOCHS, RATE = {"digits": 20, "mnist": 7}, 2e-3
TRAINING = {"digits": 900, "mnist": 1000}
SIDES = {"digits": 8, "mnist": 16}
DISTORTIONS = {"noise 0.25": ("noise", 0.25), "noise 0.5": ("noise", 0.5), "blur 1": ("blur", 1.0),
               "occlusion": ("occlusion", 0.5)}  # fmt: skip
"""Name to kind and degree; a block's side is a part of the image's side, for instance 16 of 32 pixels."""

DEPLOYED_WIDTH = 0.5
"""The width of the networks that are quantized and judged layer by layer."""


def tasks(seeds: int, quick: bool) -> list[Task]:
    """One task for each data set, distortion and seed; then one that deploys the networks of the first
    seed."""
    part = "quick-" if quick else ""
    made = [
        Task(f"{part}{data}-{distortion}-{seed}".replace(" ", "-"), measure, (data, distortion, seed, quick))
        for seed in range(seeds)
        for data in SIDES
        for distortion in DISTORTIONS
    ]
    return made + [
        Task(f"{part}{data}-{distortion}-deployed".replace(" ", "-"), deploy, (data, distortion, quick))
        for data in SIDES
        for distortion in DISTORTIONS
    ]


def shape(width: float) -> tuple[tuple[int, ...], int]:
    """Channels and hidden units at a width."""
    return tuple(int(c * width) for c in CHANNELS), int(HIDDEN * width)


def images_of(data: str, distortion: str, seed: int) -> dict[str, tuple[Array, Array, Array]]:
    """``train`` and ``test``: clean images, their distorted copies, and labels."""
    from benchmarks.papers.data_sets import digits, mnist_16
    from karat24.distortions import DISTORTIONS as FUNCTIONS

    found = {"digits": digits, "mnist": mnist_16}[data](TRAINING[data])
    kind, degree = DISTORTIONS[distortion]
    if kind == "occlusion":
        degree *= SIDES[data]
    parts = {}
    for number, (name, (images, labels)) in enumerate({"train": found.train, "test": found.test}.items()):
        last = images.transpose(0, 2, 3, 1)
        changed = FUNCTIONS[kind](last, degree, 2 * seed + number).transpose(0, 3, 1, 2)
        parts[name] = (images, np.ascontiguousarray(changed), labels)
    return parts


def trained(images: Array, labels: Array, channels: tuple[int, ...], hidden: int, classes: int, epochs: int,
            seed: int) -> ImageNet:  # fmt: skip
    """A network trained on images."""
    import torch

    from benchmarks.papers.nets import ImageNet, train

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    module = ImageNet(channels, hidden, images.shape[-1], classes)
    train(module, images, labels, epochs, torch.optim.Adam(module.parameters(), RATE), seed)
    return module


def selector(parts: dict[str, tuple[Array, Array, Array]], epochs: int, seed: int) -> ImageNet:
    """The tiny network that distinguishes distorted images (1) from clean ones (0)."""
    clean, distorted, labels = parts["train"]
    both = np.concatenate([clean, distorted])
    return trained(both, np.repeat([0, 1], len(labels)), TINY, TINY_HIDDEN, 2, epochs, seed + 500)


def measure(data: str, distortion: str, seed: int, quick: bool) -> Record:
    """Accuracies in percent at each width, and the selector's false alarms and misses."""
    from benchmarks.papers.nets import accuracy, probabilities

    parts = images_of(data, distortion, seed)
    clean, distorted, labels = parts["train"]
    test_clean, test_distorted, truth = parts["test"]
    epochs = max(1, EPOCHS[data] // 10) if quick else EPOCHS[data]
    chooser = selector(parts, epochs, seed)
    alarms = probabilities(chooser, test_clean).argmax(1) == 1
    misses = probabilities(chooser, test_distorted).argmax(1) == 0
    record: Record = {
        "data": data, "distortion": distortion, "seed": seed, "quick": quick, "test": 2 * len(truth),
        "false_alarms": float(alarms.mean()), "misses": float(misses.mean()), "widths": {},
    }  # fmt: skip
    for width in WIDTHS:
        made = [
            trained(images, targets, *shape(width), 10, epochs, seed)
            for images, targets in (
                (clean, labels), (distorted, labels),
                (np.concatenate([clean, distorted]), np.concatenate([labels, labels])),
            )
        ]  # fmt: skip
        on_clean = [probabilities(module, test_clean) for module in made]
        on_distorted = [probabilities(module, test_distorted) for module in made]
        first, second, both = ((accuracy(c, truth), accuracy(d, truth))
                               for c, d in zip(on_clean, on_distorted, strict=True))  # fmt: skip
        routed = (
            accuracy(np.where(alarms[:, None], on_clean[1], on_clean[0]), truth),
            accuracy(np.where(misses[:, None], on_distorted[0], on_distorted[1]), truth),
        )
        rates = record["false_alarms"], record["misses"]
        record["widths"][str(width)] = {
            "both": np.mean(both), "both on clean": both[0], "both on distorted": both[1],
            "selective": np.mean(routed),
            "perfect": expected_accuracy(0.5, 0, 0, (first[0], second[0]), (first[1], second[1])),
            "formula": expected_accuracy(0.5, *rates, (first[0], second[0]), (first[1], second[1])),
            "clean only": np.mean(first),
        }  # fmt: skip
    return record


def deploy(data: str, distortion: str, quick: bool) -> Record:
    """The selective network of the first seed in int8, in powers of two (span at most 6, retrained), and with
    80 % pruned: its accuracy on the oracle, and LiteRT's verdict layer by layer."""
    from benchmarks.papers.deployment import deployed

    parts = images_of(data, distortion, 0)
    clean, distorted, labels = parts["train"]
    epochs = max(1, EPOCHS[data] // 10) if quick else EPOCHS[data]
    modules: dict[str, Any] = {
        "selector": selector(parts, epochs, 0),
        "clean": trained(clean, labels, *shape(DEPLOYED_WIDTH), 10, epochs, 0),
        "distorted": trained(distorted, labels, *shape(DEPLOYED_WIDTH), 10, epochs, 0),
    }
    return {
        "data": data,
        "distortion": distortion,
        "quick": quick,
        **deployed(modules, parts, max(1, epochs // 5)),
    }
