"""What the engine, an op's slow spec and its fast kernel promise one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from refimpl.graph import Array, LayerView
from refimpl.profiles.rules import Rule


class SpecResult(NamedTuple):
    """What a spec returns: the outputs and, where the op has them, int32 accumulators.

    Accumulators have the shape of output 0 and hold what the requantization
    consumes: products summed, zero points removed, bias added.
    """

    outputs: tuple[Array, ...]
    accumulator: Array | None = None


Values: TypeAlias = Sequence[Array | None]
"""One array per layer input, constants included; None where an optional input is left out."""

Check: TypeAlias = Callable[[LayerView], None]
"""Refuses a layer no implementation can run: ModelError when it is malformed (arity, ranks,
shapes that do not follow from one another), UnsupportedOp when it is a variant nobody wrote.
After it passes, spec and kernel may rely on every shape."""

Spec: TypeAlias = Callable[[LayerView, Values, Rule], SpecResult]


@dataclass(frozen=True)
class Op:
    """One line of the op table. ``accumulates``: its spec and kernel can give int32 accumulators."""

    check: Check
    spec: Spec
    accumulates: bool = False


class Kernel(Protocol):
    """A prepared layer: reads ``inputs``, fills every element of ``outputs``, and of
    ``accumulator`` (int32, shaped like output 0) unless it is None."""

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer once."""


@dataclass(frozen=True)
class Target:
    """The machine a kernel is prepared for: instruction set and number of threads."""

    isa: str = "portable"
    threads: int = 1


Prepare: TypeAlias = Callable[[LayerView, Rule, Target], Kernel | None]
"""Called once per layer when a graph is compiled: packs constants, derives multipliers. None where
no kernel was written for the variant, whose spec then runs."""
