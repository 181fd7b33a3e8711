"""What the proof says: one verdict per layer, and every value that is not the source's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from karat24.golden.edgetpu.placing import Place

Verdict: TypeAlias = Literal["proved", "differs", "on_cpu", "not_provable"]
Value: TypeAlias = int | float | str | None


NOT_COVERED = (
    "what no known field of a compiled file shows, which is strides, dilation, padding and windows, which of "
    "several images an operation reads, and how the device adds and rounds"
)
"""What a proof does not say, whatever its verdict."""


@dataclass(frozen=True)
class Finding:
    """One value of the compiled file that is not the source's.

    ``where`` is a place a person can look at: a channel, an instruction, a byte of the parameters.
    """

    field: str
    where: str
    source: Value
    compiled: Value

    def __str__(self) -> str:
        return f"{self.field}{', ' + self.where if self.where else ''}: {self.source} -> {self.compiled}"


@dataclass(frozen=True)
class LayerProof:
    """One layer of the source.

    ``proved`` counts the values found bit for bit, by field. ``findings`` holds the first differences,
    ``finding_count`` says how many there are. ``reasons`` says what could not be compared, and why.
    ``parameters`` and ``stages`` (instructions) are where the layer lies in the compiled file.
    """

    layer: int
    op: str
    name: str
    verdict: Verdict
    proved: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    finding_count: int = 0
    reasons: tuple[str, ...] = ()
    parameters: tuple[Place, ...] = ()
    stages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "proved", MappingProxyType(dict(self.proved)))


@dataclass(frozen=True)
class ParameterBytes:
    """How the bytes of one executable's parameters are explained: by layers, as zeros between them, as
    0/1 matrices that only move channels, or not at all (first byte and end of each run).

    ``undescribed`` are runs that may be those of a layer whose parameters nobody has described; where there
    is no such layer, what is left is ``unexplained``."""

    kind: str
    size: int
    explained: int
    zeros: int
    routing: int
    unexplained: tuple[tuple[int, int], ...]
    undescribed: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Proof:
    """A compiled model held against its source, layer by layer.

    ``io`` holds differences of inputs, outputs and the division of work, which belong to no one layer.
    ``stages`` are instructions with an output stage that belongs to no layer and resembles no layer's stage.
    """

    layers: tuple[LayerProof, ...]
    io: tuple[Finding, ...]
    parameters: tuple[ParameterBytes, ...]
    io_proved: int
    stages: tuple[int, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """``proved`` only if every layer on the device is, and every byte of the parameters is explained."""
        verdicts = {layer.verdict for layer in self.layers}
        if self.io or "differs" in verdicts or any(part.unexplained for part in self.parameters):
            return "differs"
        unknown = self.stages or any(part.routing or part.undescribed for part in self.parameters)
        if unknown or "not_provable" in verdicts or "proved" not in verdicts:
            return "not_provable"
        return "proved"

    @property
    def exit_code(self) -> int:
        """0 proved, 1 something differs, 3 something could not be proved."""
        return {"proved": 0, "differs": 1}.get(self.verdict, 3)

    def count(self, verdict: Verdict) -> int:
        """Layers with a verdict."""
        return sum(layer.verdict == verdict for layer in self.layers)

    @property
    def is_foreign(self) -> bool:
        """Whether the compiled file was plainly made from another source: most layers with parameters are
        nowhere in it, or hardly a multiplier is right."""
        on_device = [layer for layer in self.layers if layer.verdict != "on_cpu"]
        differing = sum(layer.verdict == "differs" for layer in on_device)
        return 2 * differing > len(on_device)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "verdict": self.verdict,
            "another_source": self.is_foreign,
            "layers": [_layer(layer) for layer in self.layers],
            "inputs_and_outputs": {"proved": self.io_proved, "findings": [vars(item) for item in self.io]},
            "parameters": [vars(part) for part in self.parameters],
            "stages_of_no_layer": list(self.stages),
            "not_covered": NOT_COVERED,
        }


def _layer(proof: LayerProof) -> dict[str, Any]:
    return {
        **vars(proof),
        "proved": dict(proof.proved),
        "findings": [vars(item) for item in proof.findings],
        "parameters": [vars(place) for place in proof.parameters],
    }
