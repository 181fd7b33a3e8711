"""The contests of the table: for each model a few, each of one runtime and the oracles beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.models import Model, unsigned
from karat24.contest.contestants import Contestant, Subject, as_onnx, oracle, renamed, runtime
from karat24.contest.runner import Rules
from karat24.export import read_model, write_model
from karat24.feeds import random_feeds
from karat24.refimpl.cost import count
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.kernels.jit.isa import FEATURES, chosen_isa, why_not
from karat24.refimpl.profiles import CANONICAL

LARGEST_FOR_REFERENCE = 256
"""The largest size for LiteRT's reference kernels, which need minutes for a 1024×1024 image."""

LARGEST_FOR_EVERY_ISA = 1024
"""Above this size only the best instruction set runs; smaller sizes show its ratio to the others."""

TRACED_SIZE = 1024
"""The size at which the cost of a full trace is measured."""

COLD_ROUNDS = 3

LARGE_MACS = 50_000_000
"""The least multiplication-additions of a public model whose first run is timed."""

GROUPS = {
    "xnnpack": "LiteRT with XNNPACK; the oracle on every instruction set, and keeping every tensor at 1024",
    "builtin": "LiteRT's optimised kernels",
    "ref": f"LiteRT's reference kernels, at most at {LARGEST_FOR_REFERENCE}; the oracle on portable, too",
    "ort-s8s8": "ONNX Runtime, QDQ with int8 activations",
    "ort-u8s8": "ONNX Runtime, QDQ with uint8 activations",
    "float": "the float32 network on LiteRT and on ONNX Runtime (flagships)",
    "cold": "the oracle's first run with an empty cache of kernels (smallest flagships, large public models)",
}


@dataclass(frozen=True)
class Unit:
    """One contest of the table."""

    model: Model
    group: str
    threads: int
    instruction_sets: tuple[str, ...]

    @property
    def key(self) -> str:
        """The key of its results in the file."""
        return f"{self.model.name} {self.group} {self.threads}"

    def contestants(self) -> tuple[Subject, list[Contestant]]:
        """The model as .tflite, and the contestants. Raises the errors of converting the model."""
        graph = self.model.quantized()
        subject = as_subject(graph)
        plain = oracle(subject, CANONICAL, self.threads)
        match self.group:
            case "xnnpack":
                return subject, self._beside_xnnpack(subject, plain)
            case "builtin":
                return subject, [plain, *self._judged(subject, "litert-builtin")]
            case "ref":
                others = [oracle(subject, CANONICAL, self.threads, isa) for isa in self._others()]
                return subject, [plain, *others, runtime(subject, "litert-ref", self.threads)]
            case "ort-s8s8":
                return subject, [plain, *self._judged(as_onnx(subject), "ort", "ort s8s8")]
            case "ort-u8s8":
                return subject, [
                    plain,
                    *self._judged(as_onnx(as_subject(unsigned(graph))), "ort", "ort u8s8"),
                ]
            case "float":
                return subject, [plain, *self._float()]
            case _:
                return subject, [plain]

    def rules(self, rules: Rules) -> Rules:
        """The rules of this contest, adapted from those of the table."""
        if self.group == "cold":
            return replace(rules, cold=True, rounds=COLD_ROUNDS)
        return replace(rules, cold=False)

    def _others(self) -> list[str]:
        """The instruction sets that are forced: all but the best, for networks that are not too large."""
        if self.model.size > LARGEST_FOR_EVERY_ISA:
            return []
        return [isa for isa in self.instruction_sets if isa != chosen_isa()]

    def _beside_xnnpack(self, subject: Subject, plain: Contestant) -> list[Contestant]:
        others = [oracle(subject, CANONICAL, self.threads, isa) for isa in self._others()]
        if self.model.size == TRACED_SIZE:
            others.append(oracle(subject, CANONICAL, self.threads, traced=True))
        return [plain, *others, *self._judged(subject, "litert-xnnpack")]

    def _judged(self, subject: Subject, delegate: str, name: str = "") -> list[Contestant]:
        """A runtime and the oracle under the profile that describes it."""
        timed = renamed(runtime(subject, delegate, self.threads), name or delegate)
        return [oracle(subject, timed.profile, self.threads), timed]

    def _float(self) -> list[Contestant]:
        graph = self.model.float32()
        assert graph is not None
        written = write_model(graph, "onnx")
        onnx_graph = read_model(written)
        return [
            renamed(_unjudged(as_subject(graph), "litert-xnnpack", self.threads), "litert float"),
            renamed(
                _unjudged(Subject(written, onnx_graph, _feeds(onnx_graph)), "ort", self.threads), "ort float"
            ),
        ]


def units(
    models: Sequence[Model],
    groups: Sequence[str],
    threads: int,
    instruction_sets: Sequence[str] | None = None,
) -> Iterator[Unit]:
    """The table's contests, in order; for the reference kernels a large flagship is replaced by a smaller
    one."""
    sets = tuple(instruction_sets or [isa for isa in FEATURES if why_not(isa) is None])
    smallest = min((model.size for model in models if model.size), default=0)
    seen = set()
    for model in models:
        for group in groups:
            if group == "float" and not model.size:
                continue
            if group == "cold" and not _worth_a_cold_start(model, smallest):
                continue
            chosen = model
            if group == "ref" and model.size > LARGEST_FOR_REFERENCE:
                chosen = model.resized(LARGEST_FOR_REFERENCE)
            unit = Unit(chosen, group, threads, sets)
            if unit.key not in seen:
                seen.add(unit.key)
                yield unit


def _worth_a_cold_start(model: Model, smallest: int) -> bool:
    if model.size:
        return model.size == smallest
    try:
        return count(model.quantized()).macs >= LARGE_MACS
    except KaratError:
        return False


def as_subject(graph: Graph) -> Subject:
    """A .tflite file of the graph and random input."""
    return Subject(write_model(graph), graph, _feeds(graph))


def _feeds(graph: Graph) -> tuple[Array, ...]:
    feeds = random_feeds(graph, 0)
    return tuple(feeds[index] for index in graph.inputs)


def _unjudged(subject: Subject, delegate: str, threads: int) -> Contestant:
    """A runtime on a float network, whose arithmetic no profile describes."""
    return replace(runtime(subject, delegate, threads), profile="")
