"""TomoGAN and Fine-Tune in powers of two, 2 to 9 bits: similarity to the clean slice by bits and memory.

Six ways are compared, all on whole slices and without tiles, so that only the weights differ:

float
    The shipped weights, bilinear and transposed, and the mean of the two as an ensemble.
int8
    Those weights, calibrated, run by the oracle; activations are 8 bits, too.
int16x8
    The bilinear network, calibrated, with activations of 16 bits; run by the oracle.
direct
    Filters rounded to powers of two at once, activations in float. Its ensemble is the mean of the two nets.
exact
    The bilinear network with a span of at most 6, in int8, run by the oracle under ``litert-2.3-ref``.
incremental, control
    The shipped bilinear weights go through the schedule of 50, 75, 87.5 and 100 %, with a few steps of
    retraining between; the control takes as many steps without rounding. Members of their ensembles see
    different patches.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.papers.tasks import Record, Task
from benchmarks.quality.cases import Case, choose_cases, load_slice, simulator_digest
from benchmarks.quality.metrics import psnr, ssim
from karat24.export.quantize import PRESETS, output_range, quantize_model
from karat24.export.quantize.powers_of_two import quantize_rounded, round_network
from karat24.refimpl.data_access import weight_layers
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import Upsampling, fine_tune, load_weights, tomogan, trained_weights
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography.calibration_inputs import simulated
from karat24.tomography.restoration import Network, on_onnx_runtime, on_oracle

BITS = range(2, 10)
MAX_SPAN = 6
"""The largest span of powers of two that int8 holds exactly."""

UPSAMPLINGS: tuple[Upsampling, ...] = ("bilinear", "transposed")
BATCH, PATCH, RATE = 4, 64, 1e-4
"""Retraining: patches in a step, their side, Adam's learning rate."""


def tasks(
    folder: Path, slices: int, size: int, steps: int, members: int, retrained_bits: tuple[int, ...]
) -> list[Task]:
    """One task for each way and bits; those that retrain need ``folder/train.npz``."""
    cases = choose_cases(slices, size)
    asked = [
        ("float", 0),
        ("int8", 0),
        ("int16x8", 0),
        *(("direct", bits) for bits in BITS),
        *(("exact", bits) for bits in BITS),
    ]
    made = [Task(f"{way}-{bits}-{size}-{slices}", measure, (folder, cases, way, bits)) for way, bits in asked]
    again = [("control", 0), *(("incremental", bits) for bits in retrained_bits)] if retrained_bits else []
    return made + [
        Task(
            f"{way}-{bits}-{steps}x{members}-{size}-{slices}",
            measure,
            (folder, cases, way, bits, steps, members),
        )
        for way, bits in again
    ]


def measure(folder: Path, cases: list[Case], way: str, bits: int, steps: int = 0, members: int = 0) -> Record:
    """The SSIM and PSNR of each slice, after TomoGAN and after Fine-Tune, and the bits of TomoGAN's filters.

    Fine-Tune has as many bits as TomoGAN and is always rounded at once.
    """
    size = cases[0].size
    record: Record = {
        "way": way,
        "bits": bits,
        "steps": steps,
        "members": members,
        "memory": {},
        "slices": {},
    }
    repairing = fine_tune(size, size, trained_weights("fine-tune"))
    pairs: dict[str, Pair] = {}
    for name, restoring in _members(folder, size, way, bits, steps, members).items():
        pairs[name], record["memory"][name] = _rounded(folder, restoring, repairing, way, bits)
    for case in cases:
        given = load_slice(case, folder)
        found: dict[str, Any] = {"noisy": _judge(given.clean, given.noisy[..., 1])}
        images = []
        for name, (first, second) in pairs.items():
            images.append(first(given.noisy[None]))
            found[name] = _judge(given.clean, images[-1][0, ..., 0])
            found[f"{name} + Fine-Tune"] = _judge(given.clean, second(images[-1])[0, ..., 0])
        if len(images) > 1:
            found["ensemble"] = _judge(given.clean, np.mean(images, axis=0)[0, ..., 0])
        record["slices"][case.name] = found
    return record


def _judge(clean: Array, image: Array) -> dict[str, float]:
    return {"ssim": ssim(clean, image), "psnr": psnr(clean, image)}


Pair = tuple[Network, Network]
"""TomoGAN and Fine-Tune."""


def _members(folder: Path, size: int, way: str, bits: int, steps: int, members: int) -> dict[str, Graph]:
    """The float networks, by name, whose mean is the ensemble."""
    if steps:
        return {
            f"member {seed}": tomogan(size, size, "bilinear", retrained(folder, bits, steps, seed))
            for seed in range(members)
        }
    names = UPSAMPLINGS[:1] if way in ("exact", "int16x8") else UPSAMPLINGS
    return {name: tomogan(size, size, name, trained_weights("tomogan", name)) for name in names}


def _rounded(
    folder: Path, restoring: Graph, repairing: Graph, way: str, bits: int
) -> tuple[Pair, dict[str, int]]:
    """Both networks in a way, ready to run, and the bits of TomoGAN's filters."""
    if way in ("float", "control"):
        return (on_onnx_runtime(restoring), on_onnx_runtime(repairing)), _stored(restoring, 32)
    if way in ("int8", "int16x8"):
        noisy, clean = _calibration(folder, restoring)
        first = quantize_model(restoring, noisy, PRESETS[way])
        second = quantize_model(repairing, clean, PRESETS[way], {"input": output_range(first)})
        return (on_oracle(first, CANONICAL, 1), on_oracle(second, CANONICAL, 1)), _stored(restoring, 8)
    # Rounding leaves weights of the set as they are: it changes nothing after incremental training.
    span = MAX_SPAN if way == "exact" else None
    one, two = round_network(restoring, bits, span), round_network(repairing, bits, span)
    memory = {"weights": one.memory.weights, "fixed": one.memory.fixed, "variable": one.memory.variable}
    if way != "exact":
        return (on_onnx_runtime(one.graph), on_onnx_runtime(two.graph)), memory
    noisy, clean = _calibration(folder, restoring)
    first = quantize_rounded(one, noisy)
    second = quantize_rounded(two, clean, given={"input": output_range(first)})
    return (on_oracle(first, CANONICAL, 1), on_oracle(second, CANONICAL, 1)), memory


def _calibration(folder: Path, restoring: Graph) -> tuple[list[Array], list[Array]]:
    """Noisy and clean samples of the network's size: training slices, simulated once and kept."""
    _, size, _, _ = restoring.tensors[restoring.inputs[0]].shape
    path = folder / f"calibration-{size}-{simulator_digest()[:12]}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial.npz")
        np.savez(partial, noisy=simulated(size, 3, 0), clean=simulated(size, 1, 0))
        partial.replace(path)
    with np.load(path) as stored:
        return [stored["noisy"][n : n + 1] for n in range(6)], [stored["clean"][n : n + 1] for n in range(6)]


def _stored(graph: Graph, bits: int) -> dict[str, int]:
    weights = sum(layer.weights for layer in weight_layers(graph))
    return {"weights": weights, "fixed": bits * weights, "variable": bits * weights}


def retrained(folder: Path, bits: int, steps: int, seed: int) -> Mapping[str, Array]:
    """TomoGAN's weights after the schedule with ``steps`` steps between its parts, all powers of two; for 0
    bits those of the control. They are kept in ``folder``."""
    path = folder / "weights" / f"{bits}-{steps}-{seed}.npz"
    if path.is_file():
        return load_weights(path)
    import torch

    from training import data
    from training.incremental import quantize_incrementally, retrain_as_control
    from training.losses import pixel_loss
    from training.model import TomoGAN
    from training.patches import patches

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = TomoGAN("bilinear")
    weights = trained_weights("tomogan")
    assert weights is not None
    model.load(weights)
    batches = patches(*data.load(folder / "train.npz"), PATCH, BATCH, seed)

    def retrain(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(steps):
            noisy, clean = next(batches)
            loss = pixel_loss(module(noisy), clean, 0.2)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, RATE)

    if bits:
        quantize_incrementally(model, bits, retrain, optimizer)
    else:
        retrain_as_control(model, retrain, optimizer)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **model.weights())
    return load_weights(path)
