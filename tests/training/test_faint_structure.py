"""Training that keeps faint structure: planted patterns, twins, the terms that punish their loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from karat24.refimpl.errors import UsageError  # noqa: E402
from training.loop import Schedule, train  # noqa: E402
from training.losses import lost_pattern, lost_structure  # noqa: E402
from training.magnitudes import LIMIT, MagnitudePenalty  # noqa: E402
from training.model import TomoGAN  # noqa: E402
from training.patches import patches  # noqa: E402
from training.planting import STRONGEST, Planting  # noqa: E402

NOISY = np.random.default_rng(1).random((2, 40, 40, 3), dtype=np.float32)
CLEAN = NOISY.mean(axis=3)


def test_a_pattern_is_faint_and_drawn_anew() -> None:
    planting, rng = Planting(0, 5.0), np.random.default_rng(0)
    drawn = [planting.draw_any(rng, 32) for _ in range(20)]
    assert max(float(np.abs(pattern).max()) for pattern in drawn) < 3 * STRONGEST
    assert all(pattern.shape == (32, 32) for pattern in drawn)
    assert len({pattern.tobytes() for pattern in drawn}) == 20
    nothing = sum(not planting.draw(rng, 32).any() for _ in range(100))
    assert 30 < nothing < 80


def test_patterns_are_in_every_slice_and_in_the_target() -> None:
    plain = next(patches(NOISY, CLEAN, 32, 4, 3))
    planted = next(patches(NOISY, CLEAN, 32, 1, 3, planting=Planting(0, 5.0)))
    by_slice = (planted[0] - plain[0][:1])[0]
    assert float((by_slice - (planted[1] - plain[1][:1])[0]).abs().max()) < 1e-6


def test_twins_differ_by_a_pattern_alone() -> None:
    noisy, clean = next(patches(NOISY, CLEAN, 32, 5, 3, planting=Planting(0, 5.0), twins=2))
    assert len(noisy) == len(clean) == 5
    pattern = clean[3:] - clean[:2]
    assert float(pattern.abs().max()) > 0
    assert float((noisy[3:] - noisy[:2] - pattern).abs().max()) < 1e-6


def test_twins_need_patterns_and_room() -> None:
    for arguments in ({"twins": 1}, {"twins": 3, "planting": Planting(0, 5.0)}):
        with pytest.raises(UsageError, match="twins"):
            next(patches(NOISY, CLEAN, 32, 4, 3, **arguments))


def test_copies_of_the_middle_slice() -> None:
    given, _ = next(patches(NOISY, CLEAN, 32, 4, 3, repeated=1.0))
    assert torch.equal(given[:, 0], given[:, 1])
    assert torch.equal(given[:, 2], given[:, 1])


def test_a_pattern_that_is_missed_costs_its_whole_weight() -> None:
    _, clean = next(patches(NOISY, CLEAN, 32, 4, 3, planting=Planting(0, 5.0), twins=2))
    assert float(lost_pattern(clean, clean, 2)) == pytest.approx(0.0, abs=1e-6)
    wiped_out = torch.cat((clean[:2], clean[:2]))
    assert float(lost_pattern(wiped_out, clean, 2)) == pytest.approx(1.0, abs=1e-5)


def test_broad_structure_is_looked_for_at_half_the_size() -> None:
    """A wave of 40 pixels is nearly flat in a window of 11; at a quarter of the size it is not."""
    wave = 0.5 + 0.02 * torch.sin(torch.arange(96) * (2 * torch.pi / 40)).expand(1, 1, 96, 96)
    flat = torch.full_like(wave, 0.5)
    assert float(lost_structure(flat, wave, 3)) > 1.2 * float(lost_structure(flat, wave))


def test_a_run_can_end_before_its_schedule_does(tmp_path: Path) -> None:
    """And goes on from there, as if it had not ended."""
    ended = []
    for stops in ((2, None), (None,)):
        for stop in stops:
            torch.manual_seed(0)
            batches = patches(NOISY, CLEAN, 32, 4, 3, planting=Planting(0, 5.0), twins=1)
            model = train(
                TomoGAN("bilinear"), batches, Schedule(4, twins=1, response=0.1),
                tmp_path / str(len(stops)), torch.device("cpu"), stop_after=stop,
            )  # fmt: skip
        ended.append(model.weights())
    assert len((tmp_path / "2" / "log.jsonl").read_text().splitlines()) == 4
    assert all(np.array_equal(ended[0][name], ended[1][name]) for name in ended[0])


def test_only_large_activations_cost() -> None:
    """Twice the limit costs its square; the limit itself nothing; a pass begins anew."""
    penalty = MagnitudePenalty()
    for value in (LIMIT, -2 * LIMIT):
        assert torch.equal(penalty.activation("x", torch.full((1, 3), value)), torch.full((1, 3), value))
    assert float(penalty.taken()) == pytest.approx(LIMIT**2)
    penalty.activation("x", torch.zeros(1, 3))
    assert float(penalty.taken()) == 0.0


def test_training_brings_large_activations_down(tmp_path: Path) -> None:
    """A network whose first filter is ten times too large, over twenty steps with the penalty and without."""
    excess = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = TomoGAN("bilinear")
        with torch.no_grad():
            model.layer("mix").weight.mul_(10)
        model.rounding = MagnitudePenalty()
        model = train(
            model, patches(NOISY, CLEAN, 32, 2, 3), Schedule(20, learning_rate=1e-2, magnitude=weight),
            tmp_path / str(weight), torch.device("cpu"),
        )  # fmt: skip
        model(torch.from_numpy(NOISY.transpose(0, 3, 1, 2).copy()))
        excess[weight] = float(model.rounding.taken().detach())
    assert excess[1.0] < 0.5 * excess[0.0]
