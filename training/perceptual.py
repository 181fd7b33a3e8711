"""The perceptual loss of the paper: distance between images in the features of VGG-19.

The weights, trained on ImageNet, are large and not shipped. Users who want this term give the file of
torchvision's ``vgg19`` (``torch.save`` of its state dict).
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own custom
from torch import Tensor, nn

from karat24.refimpl.errors import UsageError

_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)
"""Channels of VGG-19's convolutions up to conv5_4, zero for a max-pooling (Simonyan and Zisserman 2015)."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PerceptualLoss(nn.Module):
    """Mean squared difference of VGG-19's conv5_4 features, before their ReLU.

    Source: Liu et al., "TomoGAN", equation 4. Images are ``[batch, 1, y, x]`` grey, at least 16 pixels wide.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _WIDTHS:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            wanted = self.state_dict()
            self.load_state_dict({name: state[name] for name in wanted})
        except (OSError, KeyError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise UsageError(f"{path}: not the weights of torchvision's vgg19 ({error})") from error
        self.requires_grad_(False)

    def forward(self, found: Tensor, wanted: Tensor) -> Tensor:
        """One number, whose gradient only reaches ``found``."""
        return F.mse_loss(self._describe(found), self._describe(wanted.detach()))

    def _describe(self, image: Tensor) -> Tensor:
        mean = torch.tensor(_MEAN, device=image.device).view(1, 3, 1, 1)
        deviation = torch.tensor(_DEVIATION, device=image.device).view(1, 3, 1, 1)
        described: Tensor = self.features((image.expand(-1, 3, -1, -1) - mean) / deviation)
        return described
