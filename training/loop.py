"""The training loop: adversarial plus pixel loss, resumable, with progress."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.losses import critic_loss, pixel_loss
from training.model import Discriminator, NamedConvolutions


@dataclass(frozen=True)
class Schedule:
    """How long and how hard: Adam, learning rate falling along a cosine to a hundredth.

    ``adversarial`` weighs the critic's verdict against the pixel loss; the critic joins after
    ``adversarial_from`` steps, when there is something to judge.
    """

    steps: int
    learning_rate: float = 1e-3
    adversarial: float = 0.0
    adversarial_from: int = 0
    checkpoint_every: int = 500
    average: float = 0.999


def train(
    model: NamedConvolutions,
    batches: Iterator[tuple[Tensor, Tensor]],
    schedule: Schedule,
    folder: Path,
    device: torch.device,
) -> NamedConvolutions:
    """Trains, keeping a checkpoint and ``log.jsonl`` in ``folder``; continues from them when they exist.

    Returns a model holding the exponential average of the weights. bfloat16 is used for the forward
    pass, float32 for weights and losses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    model = model.to(device, memory_format=torch.channels_last)
    critic = Discriminator().to(device) if schedule.adversarial else None
    optimizer = torch.optim.Adam(model.parameters(), schedule.learning_rate, betas=(0.9, 0.99))
    judge = torch.optim.Adam(critic.parameters(), 1e-4, betas=(0.5, 0.9)) if critic else None
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    start = resume(folder / "checkpoint.pt", model, critic, optimizer, judge, average)
    for _ in range(start):
        next(batches)
    began = time.monotonic()
    for step in range(start, schedule.steps):
        rate = cosine(step, schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        noisy, clean = (t.to(device, memory_format=torch.channels_last) for t in next(batches))
        with torch.autocast(device.type, torch.bfloat16):
            restored = model(noisy)
        restored = restored.float()
        loss = pixel_loss(restored, clean)
        entry = {"step": step, "loss": float(loss.detach())}
        if critic is not None and judge is not None and step >= schedule.adversarial_from:
            judged = critic_loss(critic, clean, restored.detach())
            judge.zero_grad(set_to_none=True)
            judged.backward()
            judge.step()
            loss = loss - schedule.adversarial * critic(restored).mean()
            entry["critic"] = float(judged.detach())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            keep = min(schedule.average, (step + 1) / (step + 10))
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        if (step + 1) % 50 == 0:
            left = (time.monotonic() - began) / (step + 1 - start) * (schedule.steps - step - 1)
            print(
                f"step {step + 1}/{schedule.steps} loss {entry['loss']:.5f} {left / 60:.1f} min left",
                flush=True,
            )
        if (step + 1) % schedule.checkpoint_every == 0 or step + 1 == schedule.steps:
            save(folder / "checkpoint.pt", step + 1, model, critic, optimizer, judge, average)
    (folder / "schedule.json").write_text(json.dumps(asdict(schedule), indent=1) + "\n", encoding="utf-8")
    model.load_state_dict(average)
    return model


def cosine(step: int, schedule: Schedule) -> float:
    """The learning rate of a step, after 200 steps of warm-up."""
    warm = min(1.0, (step + 1) / 200)
    fall = 0.5 * (1 + np.cos(np.pi * step / schedule.steps))
    return float(schedule.learning_rate * warm * (0.01 + 0.99 * fall))


def save(
    path: Path,
    step: int,
    model: nn.Module,
    critic: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    judge: torch.optim.Optimizer | None,
    average: dict[str, Tensor],
) -> None:
    """Writes the checkpoint so that a crash never leaves half of one."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "critic": critic.state_dict() if critic else None,
        "optimizer": optimizer.state_dict(),
        "judge": judge.state_dict() if judge else None,
        "average": average,
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def resume(
    path: Path,
    model: nn.Module,
    critic: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    judge: torch.optim.Optimizer | None,
    average: dict[str, Tensor],
) -> int:
    """Loads a checkpoint if there is one; returns the step to go on from."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if critic is not None and state["critic"] is not None:
        critic.load_state_dict(state["critic"])
    if judge is not None and state["judge"] is not None:
        judge.load_state_dict(state["judge"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    return int(state["step"])
