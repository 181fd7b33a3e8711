"""Incremental quantization to powers of two: some weights are rounded and frozen, the others retrained.

Each step rounds the largest weights that are not frozen yet to the set of powers of their layer, which never
changes, and freezes them to the last bit; training the others compensates for the rounding. After the last
step all weights are powers of two; biases and batch normalization stay float.

Every update of the optimizer is undone on frozen weights, including weight decay and momentum, and each step
starts with an optimizer of its own. As a control an equal schedule runs without rounding and freezing, so
that the effect of more epochs is not mistaken for an effect of quantization.

Source: Zhou et al., "Incremental Network Quantization" (2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from karat24.export.quantize.powers_of_two import PowersOfTwo, powers_for, round_filter
from karat24.refimpl.errors import UsageError
from karat24.refimpl.networks.pruning import kept

SHARES = (0.5, 0.75, 0.875, 1.0)
"""Accumulated share of frozen weights after each step."""

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)

Retrain = Callable[[nn.Module, torch.optim.Optimizer], None]
"""Trains a module for one step of the schedule, with this optimizer."""


def partition(weights: NDArray[np.float32], frozen: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The mask of frozen weights, extended to ``round(share * size)`` by the largest that are free.

    Of equal magnitudes the lower index comes first. Frozen weights stay frozen, even if there are more of
    them than the share.
    """
    wanted = round(share * weights.size) - int(np.count_nonzero(frozen))
    grown = frozen.copy()
    free = np.flatnonzero(~frozen.reshape(-1))
    order = np.argsort(-np.abs(weights.reshape(-1)[free]), kind="stable")
    grown.reshape(-1)[free[order[: max(wanted, 0)]]] = True
    return grown


@dataclass
class FrozenWeight:
    """A module's weight tensor, the set of powers it is rounded to, and its frozen weights: their ``mask``
    and ``values`` have the weight's shape."""

    name: str
    weight: nn.Parameter
    powers: PowersOfTwo
    mask: Tensor
    values: Tensor

    @staticmethod
    def of(name: str, weight: nn.Parameter, bits: int, max_span: int | None) -> FrozenWeight:
        """A weight without frozen values; the set of powers follows from the present weights."""
        values = weight.detach().clone()
        powers = powers_for(_array(values), bits, max_span)
        return FrozenWeight(name, weight, powers, torch.zeros_like(values, dtype=torch.bool), values)

    def freeze(self, share: float) -> None:
        """Rounds and freezes the largest free weights until ``share`` of all are frozen."""
        self.hold()
        now = _array(self.weight)
        self.mask.copy_(torch.from_numpy(partition(now, self.mask.cpu().numpy(), share)))
        # Frozen values are in the set already, so that rounding does not change them.
        self.values.copy_(torch.from_numpy(round_filter(now, self.powers).real))
        self.hold()

    def hold(self) -> None:
        """Puts the frozen weights back."""
        with torch.no_grad():
            self.weight.copy_(torch.where(self.mask, self.values, self.weight))


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights to be rounded, by name: those of convolutions, linear and recurrent layers, without biases.

    A parameter that two layers share is listed once. Raises UsageError for a module without any.
    """
    found: dict[str, nn.Parameter] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, WEIGHTED):
            found[f"{name}.weight".removeprefix(".")] = layer.weight
        elif isinstance(layer, RECURRENT):
            for own, parameter in layer.named_parameters(recurse=False):
                if own.startswith("weight"):
                    found[f"{name}.{own}".removeprefix(".")] = parameter
    shared = {id(parameter): name for name, parameter in reversed(found.items())}
    unique = {name: found[name] for name in reversed(shared.values())}
    if not unique:
        raise UsageError(f"{type(module).__name__} has no convolution, linear or recurrent layer to quantize")
    return unique


def quantize_incrementally(
    module: nn.Module,
    bits: int,
    retrain: Retrain,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    shares: Sequence[float] = SHARES,
    max_span: int | None = None,
) -> tuple[FrozenWeight, ...]:
    """Quantizes a trained module in place; returns its weights with their sets, all frozen at the end.

    ``retrain`` is called after each step but the last, after which no weight is free; ``optimizer`` makes the
    optimizer of each step for all of the module's parameters. Raises UsageError for shares that do not rise
    to 1, and what :func:`powers_for` raises.
    """
    check_shares(shares)
    frozen = tuple(FrozenWeight.of(n, w, bits, max_span) for n, w in weights_of(module).items())
    for share in shares:
        for weight in frozen:
            weight.freeze(share)
        if share < 1:
            stepper = optimizer(module.parameters())
            stepper.register_step_post_hook(lambda *_: [weight.hold() for weight in frozen])
            retrain(module, stepper)
    return frozen


def retrain_as_control(
    module: nn.Module,
    retrain: Retrain,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    shares: Sequence[float] = SHARES,
) -> None:
    """The schedule of :func:`quantize_incrementally` on float weights: as many calls of ``retrain``, each
    with an optimizer of its own, in place."""
    check_shares(shares)
    for share in shares:
        if share < 1:
            retrain(module, optimizer(module.parameters()))


def prune_incrementally(
    module: nn.Module,
    shares: Sequence[float],
    retrain: Retrain,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    dense: Sequence[str] = (),
) -> None:
    """Prunes in place: for each of ``shares``, sets that share of each weight tensor, the least magnitudes,
    to 0 and retrains the other weights. ``dense`` names tensors that are not pruned, as :func:`weights_of`
    does.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (2015). Raises
    UsageError for an unknown name in ``dense``.
    """
    weights = weights_of(module)
    for name in dense:
        if name not in weights:
            raise UsageError(f"no weights {name!r}; there are {', '.join(weights)}")
    for share in shares:
        masks = {n: torch.from_numpy(kept(_array(w), share)) for n, w in weights.items() if n not in dense}

        def hold(*_: object, masks: dict[str, Tensor] = masks) -> None:
            with torch.no_grad():
                for name, mask in masks.items():
                    weights[name].mul_(mask)

        hold()
        stepper = optimizer(module.parameters())
        stepper.register_step_post_hook(hold)
        retrain(module, stepper)


def check_shares(shares: Sequence[float]) -> None:
    """Raises UsageError unless the shares rise from above 0 to 1."""
    rising = all(low < high for low, high in pairwise([0.0, *shares]))
    if not shares or not rising or shares[-1] != 1:
        raise UsageError(f"shares {list(shares)} do not rise from above 0 to 1")


class Ensemble(nn.Module):
    """An ensemble, whose output is the mean of its members' probabilities.

    ``probabilities`` turns a member's output into probabilities: softmax over classes (the default) or a
    sigmoid for maps of pixels. Members only differ in their initialization and training. The paper does not
    say how it averages. Raises UsageError for fewer than two members.
    """

    def __init__(
        self, members: Sequence[nn.Module], probabilities: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        if len(members) < 2:
            raise UsageError(f"an ensemble needs two members or more, not {len(members)}")
        self.members = nn.ModuleList(members)
        self._probabilities = probabilities or (lambda x: torch.softmax(x, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the members' probabilities."""
        return torch.stack([self._probabilities(member(x)) for member in self.members]).mean(0)


def _array(values: Tensor) -> NDArray[np.float32]:
    return values.detach().cpu().float().numpy()
