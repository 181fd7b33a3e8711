"""The result of a contest: timings, parity and ratios, and their form as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = "karat24-bench-1"


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of one contestant's runs, in seconds."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Quartiles:
        """The quartiles of at least one run, between readings (inclusive method)."""
        if len(seconds) == 1:
            return cls(seconds[0], seconds[0], seconds[0])
        lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(lower, median, upper)


@dataclass(frozen=True)
class LayerTime:
    """One layer, or one node a runtime fused layers into; ``layer`` is None where it is not known.

    ``share`` is of the sum over layers; ``gmac_per_s`` is 0 where no multiplications are counted.
    """

    layer: int | None
    name: str
    op: str
    seconds: float
    share: float
    gmac_per_s: float


@dataclass(frozen=True)
class Entry:
    """One contestant's figures.

    ``seconds`` are the timed runs (empty when it was ``stopped``, with the reason, or not timed).
    ``gmac_per_s`` counts the model's multiplication-additions; ``peak_fraction`` relates that to the measured
    peak of ``isa``'s micro-kernel, for a runtime to that of the best instruction set here. It is more than 1
    where transforms save products. ``peak_memory_bytes``: the process's resident high-water mark after the
    timed runs (the only run, if none was timed). ``cold_start`` and ``warm_start``: seconds, see
    ``process.Start``; cold is with an empty cache of compiled kernels. ``layers`` is None unless asked for.
    """

    name: str
    kind: str
    profile: str
    format: str
    isa: str
    threads: int
    traced: bool
    versions: Mapping[str, str]
    seconds: Sequence[float]
    quartiles: Quartiles | None
    gmac_per_s: float
    peak_fraction: float | None
    peak_memory_bytes: int
    cold_start: Mapping[str, float] | None
    warm_start: Mapping[str, float] | None
    layers: Sequence[LayerTime] | None
    layers_why_not: str
    stopped: str


@dataclass(frozen=True)
class Parity:
    """Outputs of the oracle and of another contestant on the same input, bit by bit.

    ``verdict`` is ``equal``, ``differs`` or ``not_compared``, with the ``reason``.
    """

    oracle: str
    other: str
    profile: str
    values: int
    differing: int
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class Ratio:
    """``ratio``: the runtime's median over the oracle's; above 1 the oracle is the faster."""

    oracle: str
    runtime: str
    ratio: float


@dataclass(frozen=True)
class Contest:
    """Everything one contest found. ``peaks``: instruction set to measured GMAC/s with ``threads``."""

    model: str
    sha256: str
    macs: int
    parameters: int
    threads: int
    parity: Sequence[Parity]
    entries: Sequence[Entry]
    ratios: Sequence[Ratio]
    peaks: Mapping[str, float]
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    date: str

    @property
    def exit_code(self) -> int:
        """0: all equal; 1: something differs; 3: something could not be compared, or failed."""
        verdicts = {parity.verdict for parity in self.parity}
        if "differs" in verdicts:
            return 1
        if "not_compared" in verdicts or any(entry.stopped for entry in self.entries):
            return 3
        return 0

    def entry(self, name: str) -> Entry:
        """The figures of the contestant of that name."""
        return next(entry for entry in self.entries if entry.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"schema": SCHEMA, **asdict(self), "exit_code": self.exit_code}


def ratios(entries: Sequence[Entry]) -> tuple[Ratio, ...]:
    """Every runtime's median over every oracle's, of those that were timed; no runtime keeps a trace."""
    timed = [entry for entry in entries if entry.quartiles is not None]
    return tuple(
        Ratio(mine.name, theirs.name, theirs.quartiles.median / mine.quartiles.median)
        for mine in timed
        for theirs in timed
        if mine.kind == "oracle" and not mine.traced and theirs.kind != "oracle"
        if mine.quartiles and theirs.quartiles
    )


def layer_times(found: Sequence[Mapping[str, Any]], macs: Mapping[int, int]) -> tuple[LayerTime, ...]:
    """Layers as ``stopwatch`` timed them; ``macs`` by layer index."""
    total = sum(layer["seconds"] for layer in found)
    return tuple(
        LayerTime(
            layer["layer"], layer["name"], layer["op"], layer["seconds"],
            layer["seconds"] / total if total else 0.0,
            _rate(macs.get(layer["layer"], 0) if layer["layer"] is not None else 0, layer["seconds"]),
        )
        for layer in found
    )  # fmt: skip


def _rate(macs: int, seconds: float) -> float:
    """Thousand million multiplication-additions per second."""
    return macs / seconds / 1e9 if seconds else 0.0
