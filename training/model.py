"""The networks of ``karat24.refimpl.networks`` in PyTorch, with the same weight names.

Weights travel as OHWI float32 arrays (``box1/conv1/filter``), PyTorch keeps OIHW
(transposed convolutions IOHW). PyTorch's transposed convolution with padding 1
is TFLite's SAME with stride 2 and a 4×4 filter, the filter not flipped.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own custom
from numpy.typing import NDArray
from torch import Tensor, nn

from training.fake_quantization import FakeQuantization, RangeObserver
from training.magnitudes import MagnitudePenalty

Weights = Mapping[str, NDArray[np.float32]]

CONVOLUTIONS = {
    "mix": (3, 8, 1),
    "box1/conv1": (8, 32, 3),
    "box1/conv2": (32, 32, 3),
    "box2/conv1": (32, 64, 3),
    "box2/conv2": (64, 64, 3),
    "box3/conv1": (64, 128, 3),
    "box3/conv2": (128, 128, 3),
    "bottom/conv": (128, 128, 3),
    "up3/conv1": (256, 64, 3),
    "up3/conv2": (64, 64, 3),
    "up2/conv1": (128, 32, 3),
    "up2/conv2": (32, 32, 3),
    "up1/conv1": (64, 32, 3),
    "up1/conv2": (32, 32, 3),
    "head": (32, 16, 1),
    "output": (16, 1, 1),
}
"""Name: (input channels, output channels, filter size)."""

SHARED_BY_SKIPS = {"box1/conv2": "up1/concat", "box2/conv2": "up2/concat", "box3/conv2": "up3/concat"}
SHARED_BY_RESIZES = {"up2/conv2": "up1/concat", "up3/conv2": "up2/concat", "bottom/conv": "up3/concat"}
"""Activation to the one whose range it takes: a concatenation and its inputs have one scale, and so have a
bilinear resize and its input."""

UPSAMPLED_CHANNELS = {"up3/upsample": 128, "up2/upsample": 64, "up1/upsample": 32}


class NamedConvolutions(nn.Module):
    """Convolutions held by the names their weights have in the weight file."""

    def __init__(self) -> None:
        super().__init__()
        self._layers = nn.ModuleDict()
        self.rounding: FakeQuantization | RangeObserver | MagnitudePenalty | None = None
        """Set for quantization-aware training, or to keep activations small."""
        self.shares: Mapping[str, str] = {}
        """Activations rounded in the range of another one, because both have one scale in the 8-bit graph."""

    def add(self, name: str, layer: nn.Module) -> None:
        """Adds a layer, He-normal filter and zero bias."""
        fan_in = layer.weight[0].numel()
        if isinstance(layer, nn.ConvTranspose2d):
            fan_in = layer.weight.shape[0] * layer.weight[0, 0].numel() // 4
        nn.init.normal_(layer.weight, std=(2.0 / fan_in) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        self._layers[name.replace("/", "_")] = layer

    def layer(self, name: str) -> nn.Module:
        """The layer called ``name``."""
        return self._layers[name.replace("/", "_")]

    def conv(self, name: str, x: Tensor, relu: bool = True, rounded: bool = True) -> Tensor:
        """Runs a convolution, then ReLU unless the layer is the linear last one.

        With ``rounded=False`` the next op rounds the result together with its other operand.
        """
        layer = self.layer(name)
        transposed = isinstance(layer, nn.ConvTranspose2d)
        weight = layer.weight
        if self.rounding is not None:
            weight = self.rounding.filter(weight, 1 if transposed else 0)
        if transposed:
            x = F.conv_transpose2d(x, weight, layer.bias, layer.stride, layer.padding)
        else:
            x = F.conv2d(x, weight, layer.bias, layer.stride, layer.padding)
        x = F.relu(x) if relu else x
        return self.round(name, x) if rounded else x

    def round(self, name: str, x: Tensor) -> Tensor:
        """The activation called ``name``, in 8 bits during quantization-aware training."""
        return x if self.rounding is None else self.rounding.activation(self.shares.get(name, name), x)

    def names(self) -> list[str]:
        """Layer names as in the weight file."""
        raise NotImplementedError

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Every weight by name, OHWI float32."""
        found = {}
        for name in self.names():
            layer = self.layer(name)
            order = (1, 2, 3, 0) if isinstance(layer, nn.ConvTranspose2d) else (0, 2, 3, 1)
            found[f"{name}/filter"] = _array(layer.weight).transpose(order).copy()
            if layer.bias is not None:
                found[f"{name}/bias"] = _array(layer.bias)
        return found

    def ranges(self) -> dict[str, NDArray[np.float32]]:
        """``<activation>/range`` → ``[low, high]``, as learnt; empty without quantization-aware training."""
        if not isinstance(self.rounding, FakeQuantization):
            return {}
        return {f"{name}/range": np.array(ends, np.float32) for name, ends in self.rounding.ranges().items()}

    def load(self, weights: Weights, partly: bool = False) -> None:
        """Sets weights by name, as :meth:`weights` gives them; with ``partly`` some may be missing."""
        with torch.no_grad():
            for name in self.names():
                if partly and f"{name}/filter" not in weights:
                    continue
                layer = self.layer(name)
                order = (3, 0, 1, 2) if isinstance(layer, nn.ConvTranspose2d) else (0, 3, 1, 2)
                layer.weight.copy_(torch.from_numpy(weights[f"{name}/filter"].transpose(order).copy()))
                if layer.bias is not None:
                    layer.bias.copy_(torch.from_numpy(weights[f"{name}/bias"].copy()))


def _array(parameter: Tensor) -> NDArray[np.float32]:
    return parameter.detach().cpu().float().numpy().astype(np.float32)


class TomoGAN(NamedConvolutions):
    """The generator: ``[batch, 3, y, x]`` → ``[batch, 1, y, x]``; sizes are multiples of 8."""

    def __init__(self, upsampling: str) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.shares = SHARED_BY_SKIPS | (SHARED_BY_RESIZES if upsampling == "bilinear" else {})
        for name, (inputs, outputs, size) in CONVOLUTIONS.items():
            self.add(name, nn.Conv2d(inputs, outputs, size, padding=size // 2))
        if upsampling == "transposed":
            for name, channels in UPSAMPLED_CHANNELS.items():
                self.add(name, nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False))

    def names(self) -> list[str]:
        """Layer names as in the weight file."""
        return [*CONVOLUTIONS, *(UPSAMPLED_CHANNELS if self.upsampling == "transposed" else ())]

    def upsample(self, name: str, x: Tensor) -> Tensor:
        """Doubles height and width."""
        if self.upsampling == "transposed":
            # TRANSPOSE_CONV fuses no activation in .tflite: the input of RELU has its own rounding.
            return F.relu(self.round(f"{name}/linear", self.conv(name, x, relu=False, rounded=False)))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        """Denoises the middle slice of three adjacent ones."""
        x = self.conv("mix", self.round("input", x))
        box1 = self.conv("box1/conv2", self.conv("box1/conv1", x))
        box2 = self.conv("box2/conv2", self.conv("box2/conv1", F.max_pool2d(box1, 2)))
        box3 = self.conv("box3/conv2", self.conv("box3/conv1", F.max_pool2d(box2, 2)))
        x = self.conv("bottom/conv", F.max_pool2d(box3, 2))
        for number, skip in ((3, box3), (2, box2), (1, box1)):
            x = torch.cat((skip, self.upsample(f"up{number}/upsample", x)), dim=1)
            x = self.round(f"up{number}/concat", x)
            x = self.conv(f"up{number}/conv2", self.conv(f"up{number}/conv1", x))
        return self.conv("output", self.conv("head", x), relu=False)


CARRIERS = 8
STEP = 1.5 / 255
"""The approximate grey per 8-bit step of an activation that holds a restored slice."""


class FineTune(NamedConvolutions):
    """The two-layer repair network: ``[batch, 1, y, x]`` → ``[batch, 1, y, x]``."""

    def __init__(self) -> None:
        super().__init__()
        self.add("repair", nn.Conv2d(1, 16, 3, padding=1))
        self.add("output", nn.Conv2d(16, 1, 3, padding=1))
        self._begin_as_identity()

    def _begin_as_identity(self) -> None:
        """Initializes half of the channels to the image plus an offset, so that ReLU keeps grey values from
        -0.25 on.

        Each offset differs by a fraction of an 8-bit step, so that roundings differ and the mean is finer
        than each channel.
        """
        repair, output = self.layer("repair"), self.layer("output")
        lifts = 0.25 + torch.arange(CARRIERS) / CARRIERS * STEP
        with torch.no_grad():
            output.weight.mul_(0.01)
            repair.weight[:CARRIERS], repair.weight[:CARRIERS, 0, 1, 1] = 0.0, 1.0
            output.weight[0, :CARRIERS], output.weight[0, :CARRIERS, 1, 1] = 0.0, 1 / CARRIERS
            repair.bias[:CARRIERS], output.bias[0] = lifts, -lifts.mean()

    def names(self) -> list[str]:
        """Layer names as in the weight file."""
        return ["repair", "output"]

    def forward(self, x: Tensor) -> Tensor:
        """Repairs a restored slice."""
        return self.conv("output", self.conv("repair", self.round("input", x)), relu=False)


class Discriminator(nn.Module):
    """TomoGAN's critic: six 3×3 convolutions, every second one with stride 2, then two dense layers.

    Source: Liu et al., "TomoGAN", section 2. It has half the channels, so that two cores can train it, and
    global averaging in place of flattening, so that it takes any patch size.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2),
                nn.Conv2d(width, width, 3, stride=2, padding=1), nn.LeakyReLU(0.2),
            ]  # fmt: skip
            channels = width
        self.features = nn.Sequential(*layers)
        self.score = nn.Sequential(nn.Linear(channels, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        """One score per image: ``[batch, 1, y, x]`` → ``[batch, 1]``."""
        return self.score(self.features(x).mean(dim=(2, 3)))
