"""Does training in powers of two make a network more accurate? The paper's experiment with a control.

A network is trained, then goes through the schedule of 50, 75, 87.5 and 100 % at each of 2 to 9 bits, with
retraining between. The *control* is that network after an equal schedule without rounding, which shows the
effect of more epochs alone. A difference to the control is paired by seed; its interval is Student's, with
Holm's correction over the eight numbers of bits. Every run counts, none is the best of several.

Source: "Quantization of Deep Neural Networks for Accurate Edge Computing", which compares with the network
before the schedule and keeps the best of four runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.papers.tasks import Record, Task

if TYPE_CHECKING:
    import torch

    from training.incremental import Retrain

BITS = range(2, 10)
DATA = ("mnist1d", "digits", "vowels")
WIDTHS = ("wide", "narrow")
EPOCHS, AGAIN = 30, 8
"""Epochs of the float network, and of each of the three retrainings."""

RATE, AGAIN_RATE = 2e-3, 1e-3
"""Adam's learning rates; its moments start anew at each step of the schedule."""


def tasks(folder: Path, seeds: int, quick: bool) -> list[Task]:
    """One task for each data set, width and seed; seeds vary slowest, so that an early end leaves pairs."""
    part = "quick-" if quick else ""
    return [
        Task(f"{part}{data}-{width}-{seed}", measure, (folder, data, width, seed, quick))
        for seed in range(seeds)
        for data in DATA
        for width in WIDTHS
    ]


def measure(folder: Path, data: str, width: str, seed: int, quick: bool) -> Record:
    """Accuracies in percent of the float network, the control and each number of bits. All probabilities on
    the test samples are written into ``folder``, for ensembles."""
    import torch

    from benchmarks.papers.data_sets import DATA_SETS
    from benchmarks.papers.nets import NETWORKS, accuracy, probabilities, train
    from training.incremental import quantize_incrementally, retrain_as_control, weights_of

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    found = DATA_SETS[data]()
    first, again = (3, 1) if quick else (EPOCHS, AGAIN)
    module = NETWORKS[data][width]()
    train(module, *found.train, first, torch.optim.Adam(module.parameters(), RATE), seed)

    def retrain(part: int, changed: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        train(changed, *found.train, again, optimizer, 1000 * (seed + 1) + part)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, AGAIN_RATE)

    outputs = {"float": probabilities(module, found.test[0])}
    control = deepcopy(module)
    retrain_as_control(control, remembered(retrain, {}), optimizer)
    outputs["control"] = probabilities(control, found.test[0])
    memory: Memory = {}
    for bits in BITS:
        rounded = deepcopy(module)
        quantize_incrementally(rounded, bits, remembered(retrain, memory), optimizer)
        outputs[str(bits)] = probabilities(rounded, found.test[0])
    path = outputs_path(folder, data, width, seed, quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{name: values.astype(np.float16) for name, values in outputs.items()})
    return {
        "data": data, "width": width, "seed": seed, "quick": quick,
        "weights": sum(weight.numel() for weight in weights_of(module).values()),
        "test": len(found.test[1]),
        "accuracy": {name: accuracy(values, found.test[1]) for name, values in outputs.items()},
    }  # fmt: skip


Memory = dict[bytes, dict[str, Any]]
"""Retrained states of a network, by a digest of its rounded weights after each part of the schedule."""


def remembered(
    retrain: Callable[[int, torch.nn.Module, torch.optim.Optimizer], None], memory: Memory
) -> Retrain:
    """``retrain`` for one pass of the schedule; it also takes the number of the part that was rounded.

    Equally rounded weights that are trained with equal seeds become equal weights, so that one result serves
    all numbers of bits that round the larger weights equally. Without ``memory`` the bits are equal.
    """
    history, parts = hashlib.sha256(), 0

    def step(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        nonlocal parts
        for values in module.state_dict().values():
            history.update(values.numpy().tobytes())
        key = history.digest()
        if key in memory:
            module.load_state_dict(memory[key])
        else:
            retrain(parts, module, optimizer)
            memory[key] = deepcopy(module.state_dict())
        parts += 1

    return step


def outputs_path(folder: Path, data: str, width: str, seed: int, quick: bool) -> Path:
    """The file of a run's probabilities."""
    return folder / "outputs" / f"{'quick-' if quick else ''}{data}-{width}-{seed}.npz"
