"""Quantization-aware training: 8-bit rounding in the forward pass, its gradient passed straight through.

Rounding is that of ``karat24.export.quantize``: filters per output channel (symmetric, -127…127) or per
tensor, every activation per tensor with zero inside its range, tensors that must share parameters in one
range. Biases stay float; their 32-bit rounding is far finer. The ends of the activations' ranges are learnt
with the weights, so that a range is as wide as minimises the loss, and need not hold the rarest value.

Sources: Jacob et al. 2018, section 3 (straight-through rounding); Esser et al. 2020, "Learned step size
quantization", equations 3 and 4 (the gradient of a range).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from karat24.refimpl.errors import UsageError

LEAST_WIDTH = 1e-6
"""A range is at least this wide, so that a scale is never zero."""

PACE = 5.0
"""Factor by which the logarithm of a range's end moves faster than a weight, in the optimizer's steps."""

OBSERVED_BATCHES = 16
"""The number of batches over which initial ranges are observed."""

Ranges = Mapping[str, tuple[float, float]]
NONE_FIXED: Ranges = MappingProxyType({})


class RangeObserver(nn.Module):
    """Rounds nothing; records the least and greatest value of each activation."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: dict[str, tuple[float, float]] = {}

    def filter(self, weight: Tensor, out_axis: int) -> Tensor:  # noqa: ARG002 - FakeQuantization's signature
        """The filter itself."""
        return weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        """The activation itself."""
        low, high = (float(v) for v in torch.aminmax(x))
        old_low, old_high = self.ranges.get(name, (0.0, 0.0))
        self.ranges[name] = (min(low, old_low), max(high, old_high))
        return x


class FakeQuantization(nn.Module):
    """Rounds filters and activations to 8 bits as training goes on, and learns activations' ranges.

    ``ranges`` are the initial ones, by activation; each is widened to hold zero. An end at zero stays there.
    ``fixed`` are ranges that are not learnt, of activations whose values are quantized already.
    """

    def __init__(self, ranges: Ranges, per_channel: bool = True, fixed: Ranges = NONE_FIXED) -> None:
        super().__init__()
        self.per_channel, self.fixed = per_channel, dict(fixed)
        ranges = {name: ends for name, ends in ranges.items() if name not in fixed}
        self._rows = {name: row for row, name in enumerate(ranges)}
        start = [(min(low, 0.0), max(high, LEAST_WIDTH)) for low, high in ranges.values()]
        self.register_buffer("start", torch.tensor(start))
        self.growth = nn.Parameter(torch.zeros(len(ranges), 2))
        """The logarithm of each end over its initial value, divided by :data:`PACE`."""

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and greatest real value of each activation, by name."""
        ends = self._ends().tolist()
        return self.fixed | {name: (ends[row][0], ends[row][1]) for name, row in self._rows.items()}

    def filter(self, weight: Tensor, out_axis: int) -> Tensor:
        """A filter rounded to 8 bits; ``out_axis`` is the axis of output channels."""
        if self.per_channel:
            axes = [axis for axis in range(weight.dim()) if axis != out_axis]
            scale = weight.detach().abs().amax(axes).clamp_min(LEAST_WIDTH) / 127
            zero = torch.zeros_like(scale, dtype=torch.int32)
            rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scale, zero, out_axis, -127, 127)
            return rounded
        low, high = float(weight.detach().min()), float(weight.detach().max())
        scale_, zero_point = _parameters(low, high, 1, 255)
        rounded = torch.fake_quantize_per_tensor_affine(weight, scale_, zero_point, 1, 255)
        return rounded

    def activation(self, name: str, x: Tensor) -> Tensor:
        """An activation rounded to 8 bits. Raises UsageError for one that has no range."""
        if name in self.fixed:
            return x
        if name not in self._rows:
            raise UsageError(
                f"the weights have no range for the activation {name!r}; they belong to another network"
            )
        ends = self._ends()[self._rows[name]]
        low, high = ends.tolist()
        scale, zero_point = _parameters(low, high, 0, 255)
        y = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)
        grid = (-zero_point * scale, (255 - zero_point) * scale)
        rounded: Tensor = _EndsGradient.apply(y, x.detach()[:1], ends, grid)
        return rounded

    def _ends(self) -> Tensor:
        start: Tensor = self.start
        return start * torch.exp(PACE * self.growth)


class _EndsGradient(torch.autograd.Function):
    """Passes on rounded values, and gives the ends of their range a gradient.

    The gradient is estimated on the first image of a batch, and damped as in "Learned step size
    quantization", section 2.2.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, ends: Tensor, grid: tuple[float, float]) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(x, y[:1])
        ctx.grid = grid
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, None]:
        (gradient,) = gradients
        x, y = ctx.saved_tensors
        low, high = ctx.grid
        first = gradient[:1]
        inside = (x >= low) & (x <= high)
        # Inside the range an end changes the rounding error in proportion; outside it changes the value
        # itself.
        spread = (first * (y - x) * inside).sum() / (high - low)
        below, above = (first * (x < low)).sum(), (first * (x > high)).sum()
        damping = (first.numel() * 255) ** -0.5
        return gradient, None, torch.stack([below - spread, above + spread]) * damping, None


def _parameters(low: float, high: float, qmin: int, qmax: int) -> tuple[float, int]:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, LEAST_WIDTH) / (qmax - qmin)
    return scale, min(max(round(qmin - low / scale), qmin), qmax)


@torch.no_grad()
def observed(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> Ranges:
    """The range of each activation of ``model`` over the next :data:`OBSERVED_BATCHES` batches."""
    observer = RangeObserver()
    model.rounding = observer
    for _ in range(OBSERVED_BATCHES):
        model(next(batches)[0])
    model.rounding = None
    return observer.ranges
