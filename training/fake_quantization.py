"""Quantization-aware training: 8-bit rounding in the forward pass, its gradient passed straight through.

What is rounded is what ``export.quantize`` rounds: filters per output channel (symmetric, -127…127) or per
tensor, every activation per tensor with zero inside its range, a concatenation as one tensor. Biases stay
float; their 32-bit rounding is far finer. Source: Jacob et al. 2018, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST_WIDTH = 1e-6
"""A range is at least this wide, so that a scale is never zero."""


class FakeQuantization(nn.Module):
    """Rounds filters and activations to 8 bits as training goes on.

    An activation's range follows the least and greatest value of each batch as a moving average.
    """

    def __init__(self, per_channel: bool = True, momentum: float = 0.99) -> None:
        super().__init__()
        self.per_channel = per_channel
        self.momentum = momentum
        self._ranges: dict[str, tuple[float, float]] = {}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and greatest real value of each activation seen so far, by name."""
        return dict(self._ranges)

    def filter(self, weight: Tensor, out_axis: int) -> Tensor:
        """A filter as its 8-bit copy has it; ``out_axis`` is the axis of output channels."""
        if self.per_channel:
            axes = [axis for axis in range(weight.dim()) if axis != out_axis]
            scale = weight.detach().abs().amax(axes).clamp_min(LEAST_WIDTH) / 127
            zero = torch.zeros_like(scale, dtype=torch.int32)
            rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scale, zero, out_axis, -127, 127)
            return rounded
        low, high = float(weight.detach().min()), float(weight.detach().max())
        return _rounded(weight, low, high, 1, 255)

    def activation(self, name: str, x: Tensor) -> Tensor:
        """An activation as its 8-bit copy has it; in training its range is followed first."""
        if self.training or name not in self._ranges:
            low, high = (float(v) for v in torch.aminmax(x.detach()))
            if name in self._ranges:
                old_low, old_high = self._ranges[name]
                low = self.momentum * old_low + (1 - self.momentum) * low
                high = self.momentum * old_high + (1 - self.momentum) * high
            self._ranges[name] = (low, high)
        return _rounded(x, *self._ranges[name], 0, 255)


def _rounded(x: Tensor, low: float, high: float, qmin: int, qmax: int) -> Tensor:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, LEAST_WIDTH) / (qmax - qmin)
    zero_point = min(max(round(qmin - low / scale), qmin), qmax)
    rounded: Tensor = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, qmin, qmax)
    return rounded
