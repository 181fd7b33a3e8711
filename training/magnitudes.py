"""A penalty on large activations, so that a float network can be rounded to 8 bits later.

Without it activations grow as training goes on: the last layers then subtract large numbers from each other,
and 8 bits of a large number are coarse. ``refimpl/networks/trained/README.md`` has figures.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LIMIT = 4.0
"""Activations up to this magnitude cost nothing; grey values are 0 to 1."""

IMAGES = 2
"""The images of a batch that are looked at, its first ones: enough, and cheap."""


class MagnitudePenalty(nn.Module):
    """Rounds nothing; adds up the mean squared excess over :data:`LIMIT` of all activations of one pass,
    over the first :data:`IMAGES` images."""

    def __init__(self) -> None:
        super().__init__()
        self._terms: list[Tensor] = []

    def filter(self, weight: Tensor, out_axis: int) -> Tensor:  # noqa: ARG002 - FakeQuantization's signature
        """The filter itself."""
        return weight

    def activation(self, name: str, x: Tensor) -> Tensor:  # noqa: ARG002 - FakeQuantization's signature
        """The activation itself."""
        self._terms.append((x[:IMAGES].float().abs() - LIMIT).clamp_min(0.0).square().mean())
        return x

    def taken(self) -> Tensor:
        """The sum over the activations since the last call."""
        terms, self._terms = self._terms, []
        return torch.stack(terms).sum()
