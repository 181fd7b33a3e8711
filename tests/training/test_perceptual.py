"""The perceptual loss reads VGG-19 as torchvision stores it."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from karat24.refimpl.errors import UsageError  # noqa: E402
from training.perceptual import PerceptualLoss  # noqa: E402


def test_perceptual_loss_takes_torchvisions_names(tmp_path: Path) -> None:
    path = tmp_path / "vgg19.pth"
    with pytest.raises(UsageError, match="vgg19"):
        PerceptualLoss(path)
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="vgg19"):
        PerceptualLoss(path)
    shapes = vgg_shapes()
    torch.manual_seed(0)
    torch.save({name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}, path)
    loss, image = PerceptualLoss(path), torch.rand(1, 1, 32, 32, requires_grad=True)
    assert loss(image, image).item() == 0.0
    loss(image, torch.rand(1, 1, 32, 32)).backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0


def vgg_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the convolutions in torchvision's ``vgg19().features``, up to conv5_4."""
    places = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    widths = [64, 64, 128, 128, *[256] * 4, *[512] * 8]
    shapes: dict[str, tuple[int, ...]] = {}
    for place, inputs, outputs in zip(places, [3, *widths], widths, strict=False):
        shapes[f"features.{place}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{place}.bias"] = (outputs,)
    return shapes
