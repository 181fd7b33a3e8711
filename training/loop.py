"""The training loop: adversarial and pixel losses, checkpoints and progress."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from karat24.refimpl.errors import UsageError
from training.fake_quantization import FakeQuantization
from training.losses import critic_loss, lost_pattern, lost_structure, pixel_loss
from training.magnitudes import MagnitudePenalty
from training.model import Discriminator, NamedConvolutions


@dataclass(frozen=True)
class Schedule:
    """The schedule of a training: Adam, with a learning rate that falls along a cosine to a hundredth.

    The pixel loss is ``L1 + similarity (1 - SSIM)``. The other numbers are weights relative to it:
    ``adversarial`` of the critic's score, ``perceptual`` of the distance in VGG features, ``squared`` of the
    mean squared error, which keeps learnt ranges from clipping rare bright values, ``structure`` of the loss
    of faint structure, at ``structure_scales`` sizes, ``response`` of the missed patterns by which the last
    ``twins`` patches of a batch differ from the first ones, and ``magnitude`` of large activations. The
    critic is used after ``adversarial_from`` steps, in every ``adversarial_every``-th step, with its weight
    multiplied by that number, since it costs three times as much as the generator.
    """

    steps: int
    learning_rate: float = 1e-3
    adversarial: float = 0.0
    adversarial_from: int = 0
    adversarial_every: int = 8
    perceptual: float = 0.0
    squared: float = 0.0
    similarity: float = 0.2
    structure: float = 0.0
    structure_scales: int = 1
    twins: int = 0
    response: float = 0.0
    magnitude: float = 0.0
    checkpoint_every: int = 500
    average: float = 0.999


@dataclass
class State:
    """The content of a checkpoint: networks, their optimizers, and the average of the weights."""

    model: NamedConvolutions
    critic: Discriminator
    optimizer: torch.optim.Optimizer
    judge: torch.optim.Optimizer
    average: dict[str, Tensor]

    @staticmethod
    def of(model: NamedConvolutions, learning_rate: float, device: torch.device) -> State:
        """The state before the first step."""
        model = model.to(device, memory_format=torch.channels_last)
        critic = Discriminator().to(device, memory_format=torch.channels_last)
        return State(
            model,
            critic,
            torch.optim.Adam(model.parameters(), learning_rate, betas=(0.9, 0.99)),
            torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.9)),
            {name: value.detach().clone() for name, value in model.state_dict().items()},
        )

    def save(self, path: Path, step: int) -> None:
        """Writes the checkpoint so that a crash never leaves half of one."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        kept = {"step": step, "average": self.average, "random": torch.get_rng_state(), **parts}
        torch.save(kept, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def resume(self, path: Path) -> int:
        """Loads a checkpoint if there is one; returns the step to continue with."""
        if not path.is_file():
            return 0
        kept = torch.load(path, weights_only=True)
        for name in _PARTS:
            getattr(self, name).load_state_dict(kept[name])
        for name, value in kept["average"].items():
            self.average[name].copy_(value)
        torch.set_rng_state(kept["random"])
        return int(kept["step"])


_PARTS = ("model", "critic", "optimizer", "judge")


def train(
    model: NamedConvolutions,
    batches: Iterator[tuple[Tensor, Tensor]],
    schedule: Schedule,
    folder: Path,
    device: torch.device,
    perceptual: nn.Module | None = None,
    stop_after: int | None = None,
) -> NamedConvolutions:
    """Trains, keeping a checkpoint and ``log.jsonl`` in ``folder``; continues from them when they exist.

    Returns a model holding the exponential average of the weights. bfloat16 is used for the forward
    pass (not in quantization-aware training), float32 for weights and losses. ``stop_after`` ends a run
    before its schedule does.

    Raises UsageError if the folder holds a run with another schedule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep_schedule(folder / "schedule.json", schedule)
    torch.use_deterministic_algorithms(True, warn_only=True)
    state = State.of(model, schedule.learning_rate, device)
    start = state.resume(folder / "checkpoint.pt")
    for _ in range(start):
        next(batches)
    began = time.monotonic()
    last = min(schedule.steps, stop_after or schedule.steps)
    for step in range(start, last):
        for group in state.optimizer.param_groups:
            group["lr"] = cosine(step, schedule)
        noisy, clean = (t.to(device, memory_format=torch.channels_last) for t in next(batches))
        entry = {"step": step, **one_step(state, noisy, clean, schedule, step, perceptual)}
        with torch.no_grad():
            keep = min(schedule.average, (step + 1) / (step + 10))
            for name, value in state.model.state_dict().items():
                state.average[name].lerp_(value, 1 - keep)
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        if (step + 1) % 50 == 0:
            left = (time.monotonic() - began) / (step + 1 - start) * (last - step - 1)
            print(
                f"step {step + 1}/{last} loss {entry['loss']:.5f} {left / 60:.1f} min left",
                flush=True,
            )
        if (step + 1) % schedule.checkpoint_every == 0 or step + 1 == last:
            state.save(folder / "checkpoint.pt", step + 1)
    model.load_state_dict(state.average)
    return model


def faint_loss(restored: Tensor, clean: Tensor, schedule: Schedule, losses: dict[str, float]) -> Tensor:
    """The weighted terms for faint structure and for patterns; each is noted in ``losses``, for the log."""
    loss = torch.zeros((), device=restored.device)
    if schedule.structure:
        lost = lost_structure(restored, clean, schedule.structure_scales)
        losses["lost"] = float(lost.detach())
        loss = loss + schedule.structure * lost
    if schedule.response:
        missed = lost_pattern(restored, clean, schedule.twins)
        losses["missed"] = float(missed.detach())
        loss = loss + schedule.response * missed
    return loss


def one_step(
    state: State, noisy: Tensor, clean: Tensor, schedule: Schedule, step: int, perceptual: nn.Module | None
) -> dict[str, float]:
    """One step of the generator, and of the critic in its steps; returns the losses for the log."""
    # bfloat16 rounds about as coarsely as 8 bits: it would hide their effect.
    rounds = isinstance(state.model.rounding, FakeQuantization)
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=not rounds):
        restored = state.model(noisy)
    restored = restored.float()
    loss = pixel_loss(restored, clean, schedule.similarity)
    losses = {"loss": float(loss.detach())}
    if schedule.squared:
        loss = loss + schedule.squared * nn.functional.mse_loss(restored, clean)
    if isinstance(state.model.rounding, MagnitudePenalty):
        excess = state.model.rounding.taken()
        loss = loss + schedule.magnitude * excess
        losses["excess"] = float(excess.detach())
    if schedule.structure or schedule.response:
        loss = loss + faint_loss(restored, clean, schedule, losses)
    turn = step >= schedule.adversarial_from and step % schedule.adversarial_every == 0
    if schedule.adversarial and turn:
        with torch.autocast(noisy.device.type, torch.bfloat16):
            judged = critic_loss(state.critic, clean, restored.detach())
        state.judge.zero_grad(set_to_none=True)
        judged.backward()
        state.judge.step()
        with torch.autocast(noisy.device.type, torch.bfloat16):
            verdict = state.critic(restored).mean()
        loss = loss - schedule.adversarial * schedule.adversarial_every * verdict
        losses["critic"] = float(judged.detach())
    if schedule.perceptual and perceptual is not None:
        with torch.autocast(noisy.device.type, torch.bfloat16):
            distance = perceptual(restored, clean)
        loss = loss + schedule.perceptual * distance.float()
        losses["perceptual"] = float(distance.detach())
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    return losses


def keep_schedule(path: Path, schedule: Schedule) -> None:
    """Writes the schedule, or raises UsageError where a run to be resumed has another one."""
    wanted = json.dumps(asdict(schedule), indent=1) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") != wanted:
        raise UsageError(
            f"{path.parent}: holds a run with another schedule ({path.name}); give another --folder"
        )
    path.write_text(wanted, encoding="utf-8")


def cosine(step: int, schedule: Schedule) -> float:
    """The learning rate of a step, after 200 steps of warm-up."""
    warm = min(1.0, (step + 1) / 200)
    fall = 0.5 * (1 + np.cos(np.pi * step / schedule.steps))
    return float(schedule.learning_rate * warm * (0.01 + 0.99 * fall))
