"""Finding the first layer a black box gets wrong.

A device that shows nothing of a model's inside, or any command that says right or wrong, is asked about
growing parts of the model: the first layers, with everything that later layers read as outputs. If the first
*n* layers are right and one more makes the part wrong, this layer is the wrong one. It is then asked about by
itself, on the oracle's inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from karat24.export import write_model
from karat24.export.cut import Cut, single_layer, up_to
from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.trace import Trace

Answer: TypeAlias = Literal["right", "wrong", "undecided"]


@dataclass(frozen=True)
class Part:
    """A part of a model as a file of its own, its inputs and what the oracle computes, by name."""

    name: str
    model: bytes
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]


Check: TypeAlias = Callable[[Part], Answer]
"""Runs a part and says whether it computes what is expected."""


@dataclass(frozen=True)
class Bisection:
    """``layer`` is the first wrong one, None where the whole is right or nothing was decided; ``alone`` says
    what it is by itself. ``between`` are the layers left where not every part could be decided."""

    whole: Answer
    layer: int | None
    alone: Answer | None
    between: tuple[int, int] | None = None


class Record:
    """Answers already given, in a file, so that a search that was interrupted goes on where it was.

    ``subject`` tells searches apart. Raises UsageError where the file belongs to another one or is damaged.
    """

    def __init__(self, path: Path, subject: str) -> None:
        self._path, self._subject = path, subject
        self.answers: dict[str, Answer] = {}
        if path.is_file():
            self.answers = self._read()

    def _read(self) -> dict[str, Answer]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            subject, answers = content["subject"], dict(content["answers"])
            if not {"right", "wrong"}.issuperset(answers.values()):
                raise ValueError("an answer nobody gives")
        except (ValueError, KeyError, TypeError, OSError):
            raise UsageError(f"{self._path}: no record of a search; remove it to begin anew") from None
        if subject != self._subject:
            raise UsageError(
                f"{self._path}: of a search with another model, input, profile or check; remove it, or give "
                "another folder"
            )
        return answers

    def ask(self, part: Part, check: Check) -> Answer:
        """The answer about a part, asked for once; what was undecided is asked again in a later search."""
        if part.name not in self.answers:
            answer = check(part)
            self.answers[part.name] = answer
            self._write()
        return self.answers[part.name]

    def _write(self) -> None:
        decided = {name: answer for name, answer in self.answers.items() if answer != "undecided"}
        beside = self._path.with_name(self._path.name + ".part")
        beside.write_text(
            json.dumps({"subject": self._subject, "answers": decided}, indent=1), encoding="utf-8"
        )
        beside.replace(self._path)


def first_layers(graph: Graph, trace: Trace, count: int) -> Part:
    """The first ``count`` layers; outputs are what later layers read of them, and the graph's own."""
    made = [index for layer in graph.layers[:count] for index in layer.outputs]
    read = {index for layer in graph.layers[count:] for index in layer.inputs} | set(graph.outputs)
    outputs = [index for index in made if index in read]
    if not outputs:
        raise ModelError(f"nothing reads what the first {count} layers compute")
    return _part(f"first {count} layers", up_to(graph, outputs), trace)


def one_layer(graph: Graph, trace: Trace, layer: int) -> Part:
    """One layer by itself, fed with the oracle's values."""
    return _part(f"layer {layer}", single_layer(graph, layer), trace)


def _part(name: str, cut: Cut, trace: Trace) -> Part:
    def values(indices: tuple[int, ...]) -> dict[str, Array]:
        return {cut.graph.tensors[i].name: trace.tensors[cut.tensors[i]] for i in indices}

    return Part(name, write_model(cut.graph), values(cut.graph.inputs), values(cut.graph.outputs))


def bisect(graph: Graph, trace: Trace, check: Check, record: Record) -> Bisection:
    """The first wrong layer, in about log2 of the number of layers checks.

    ``trace`` is the oracle's, with every tensor. A part that is wrong makes every longer one wrong: a
    difference that a later layer hides is not looked for.
    """
    count = len(graph.layers)
    whole = record.ask(first_layers(graph, trace, count), check)
    if whole != "wrong":
        return Bisection(whole, None, None)
    right, wrong = 0, count
    undecided: set[int] = set()
    while open_ := [n for n in range(right + 1, wrong) if n not in undecided]:
        middle = min(open_, key=lambda n: abs(2 * n - right - wrong))
        answer = record.ask(first_layers(graph, trace, middle), check)
        if answer == "right":
            right = middle
        elif answer == "wrong":
            wrong = middle
        else:
            undecided.add(middle)
    if wrong - right > 1:
        return Bisection(whole, None, None, (right, wrong - 1))
    layer = wrong - 1
    return Bisection(whole, layer, record.ask(one_layer(graph, trace, layer), check))


def each_layer(graph: Graph, trace: Trace, check: Check, record: Record) -> dict[int, Answer]:
    """Every layer by itself, fed with the oracle's values."""
    return {layer.index: record.ask(one_layer(graph, trace, layer.index), check) for layer in graph.layers}
