"""Targets that teachers give, and batches cut into tiles."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from karat24.refimpl.errors import UsageError  # noqa: E402
from training.__main__ import network_of, tomogan_lesson  # noqa: E402
from training.model import TomoGAN  # noqa: E402
from training.patches import cut, taught, tiled  # noqa: E402


def images(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    noisy = torch.from_numpy(np.random.default_rng(0).random((count, 3, side, side), dtype=np.float32))
    return noisy, noisy[:, 1:2]


@pytest.fixture(scope="module")
def teachers() -> list[TomoGAN]:
    torch.manual_seed(0)
    return [TomoGAN("bilinear"), TomoGAN("transposed")]


def test_a_taught_batch_can_be_learnt_from(teachers: list[TomoGAN]) -> None:
    """The teacher's gradients are off, the student's stay on."""
    noisy, clean = images(1, 16)
    given, target = next(taught(iter([(noisy, clean)]), teachers[:1]))
    assert torch.equal(given, noisy)
    assert torch.allclose(target, teachers[0](noisy).detach(), atol=1e-4)
    assert not target.requires_grad
    student = TomoGAN("bilinear")
    (student(given) - target).square().sum().backward()
    assert student.layer("output").weight.grad.abs().sum() > 0


def test_several_teachers_give_their_mean(teachers: list[TomoGAN]) -> None:
    noisy, clean = images(1, 16)
    _, target = next(taught(iter([(noisy, clean)]), teachers))
    with torch.no_grad():
        first, second = (teacher(noisy) for teacher in teachers)
    assert torch.allclose(target, (first + second) / 2, atol=1e-4)
    assert not torch.allclose(target, first, atol=1e-2)


def test_only_the_teacher_sees_the_margin(teachers: list[TomoGAN]) -> None:
    """Its output near the edge differs from that for the inner pixels alone: there it knows more."""
    noisy, clean = images(1, 32)
    given, target = next(taught(iter([(noisy, clean)]), teachers[:1], margin=8))
    assert torch.equal(given, noisy[..., 8:24, 8:24])
    with torch.no_grad():
        assert torch.allclose(target, teachers[0](noisy)[..., 8:24, 8:24], atol=1e-4)
        assert not torch.allclose(target, teachers[0](given), atol=1e-2)


def test_every_second_batch_is_cut_into_tiles() -> None:
    """Tiles run along rows, image by image; input and target are cut alike."""
    noisy, clean = images(2, 16)
    whole, parts = (pair for pair, _ in zip(tiled(iter([(noisy, clean)] * 2), 8), range(2), strict=True))
    assert torch.equal(whole[0], noisy)
    assert torch.equal(whole[1], clean)
    assert parts[0].shape == (8, 3, 8, 8)
    assert torch.equal(parts[0][1], noisy[0, :, :8, 8:])
    assert torch.equal(parts[0][6], noisy[1, :, 8:, :8])
    assert torch.equal(parts[1], parts[0][:, 1:2])


def test_tiles_fill_the_image() -> None:
    with pytest.raises(UsageError, match=r"16 x 16 pixels cannot be cut into tiles of 6"):
        cut(images(1, 16)[0], 6)


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_a_teacher_has_the_upsampling_of_its_weights(upsampling: str, teachers: list[TomoGAN]) -> None:
    """Teachers of both kinds can teach a student of either."""
    (teacher,) = (one for one in teachers if one.upsampling == upsampling)
    again = network_of(teacher.weights())
    assert again.upsampling == upsampling
    noisy, _ = images(1, 16)
    with torch.no_grad():
        assert torch.allclose(again(noisy), teacher(noisy), atol=1e-4)


def test_options_of_the_command_reach_the_batches(teachers: list[TomoGAN], tmp_path: Path) -> None:
    """Patches of 32 pixels of which a student sees 16, whole and then in tiles of 8; both teachers teach."""
    paths = [tmp_path / f"{teacher.upsampling}.npz" for teacher in teachers]
    for path, teacher in zip(paths, teachers, strict=True):
        np.savez(path, **teacher.weights())
    options = argparse.Namespace(
        upsampling="bilinear", seed=0, plant=None, patch=32, batch=2, repeated=0.0, twins=0,
        teacher=paths, margin=8, tiles=8,
    )  # fmt: skip
    noisy, clean = images(3, 32)
    slices = noisy.permute(0, 2, 3, 1).numpy(), clean[:, 0].numpy()
    _, batches, _ = tomogan_lesson(options, *slices)
    (whole, target), (tiles, _) = (next(batches) for _ in range(2))
    assert whole.shape == (2, 3, 16, 16)
    assert tiles.shape == (2 * 4, 3, 8, 8)
    options.margin, options.tiles, options.teacher = 0, None, paths[1:]
    _, plain, _ = tomogan_lesson(options, *slices)
    given, by_one = next(plain)
    assert torch.equal(whole, given[..., 8:24, 8:24])
    with torch.no_grad():
        second = teachers[0](given)
    assert torch.allclose(target, ((by_one + second) / 2)[..., 8:24, 8:24], atol=1e-4)
