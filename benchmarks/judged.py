"""Counting the layers of public models that the oracle judges: ``python -m benchmarks.judged``.

Models are the .tflite files of a folder, and the onnx package's own node tests of quantized ops. A layer is
*judged* under a profile if its rule is known, or held to a *bound* if no document fixes the order of its
float32 sums. No model is run: ``karat24 verify`` also decides before a run what it compares. The page counts
the layers for each profile, and names every layer that no profile judges.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.markdown import table
from benchmarks.onnx_node_tests import as_model, node_tests
from benchmarks.results import ROOT
from karat24.export import read_model
from karat24.export.onnx import lower_qdq, read_onnx
from karat24.refimpl.bounds import bounds_for
from karat24.refimpl.errors import KaratError, ModelError, RefusedByRuntime
from karat24.refimpl.graph import Graph, LayerView
from karat24.refimpl.profiles import PROFILES, Profile
from karat24.refimpl.profiles.rules import GIVEN
from karat24.refimpl.step import check_layer

PAGE = ROOT / "benchmarks" / "results" / "judged.md"
EXPLAINED = """`python -m benchmarks.judged` writes this page; it runs no model. A layer is *judged* under a
profile if its rounding rule is known, so that every bit is compared. It is *within a bound* if no document
fixes the order of its float32 sums, *refused* if the profile's runtime refuses it, and *lacking* if the
oracle does not know it.

"""
OUTCOMES = ("judged", "bound", "refused", "lacking")


@dataclass(frozen=True)
class Answer:
    """A profile's answer about a layer: one of ``OUTCOMES``, and the reason if the layer is not judged."""

    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Counted:
    """A layer of a model, and each profile's answer by the profile's name."""

    model: str
    op: str
    answers: dict[str, Answer]

    @property
    def best(self) -> Answer:
        """The best answer of all profiles, in the order of ``OUTCOMES``."""
        return min(self.answers.values(), key=lambda answer: OUTCOMES.index(answer.outcome))


def answer(view: LayerView, profile: Profile) -> Answer:
    """The answer of the profile about one layer."""
    rule = GIVEN
    try:
        rule = check_layer(view, profile)
        if rule.method != "unspecified":
            return Answer("judged")
        reason, outcome = "float32 in an order that no document fixes", "lacking"
    except RefusedByRuntime as error:
        return Answer("refused", _without_layer(error, view))
    except ModelError as error:
        reason, outcome = _without_layer(error, view), "lacking"
    try:
        bounds_for(view, rule)
    except ModelError:
        return Answer(outcome, reason)
    return Answer("bound")


def _without_layer(error: KaratError, view: LayerView) -> str:
    """The message without the layer's number and name, which other layers do not share."""
    text = str(error).replace(str(view), view.op)
    for tensor in (*view.inputs, *view.outputs):
        if tensor is not None:
            text = text.replace(f"tensor {tensor.index} ({tensor.name!r})", "a tensor")
    return text.split("; profiles that run it")[0]


def count(model: str, graph: Graph, profiles: Iterable[Profile]) -> Iterator[Counted]:
    """Every layer of a graph under every profile."""
    profiles = tuple(profiles)
    for view in graph.views():
        yield Counted(model, view.op, {profile.name: answer(view, profile) for profile in profiles})


def lanes(format_: str) -> list[Profile]:
    """The profiles of a format that were held against a runtime on x86-64."""
    return [
        profile
        for profile in PROFILES.values()
        if profile.format == format_ and not profile.variant_of and not profile.caveat
    ]


def count_folder(folder: Path) -> tuple[list[Counted], dict[str, str]]:
    """The layers of every .tflite file below a folder, and the reason for each file that cannot be read."""
    layers: list[Counted] = []
    unread: dict[str, str] = {}
    for path in sorted(folder.rglob("*.tflite")):
        name = path.relative_to(folder).as_posix()
        try:
            layers += count(name, read_model(path), lanes("tflite"))
        except KaratError as error:
            unread[name] = str(error)
    return layers, unread


def count_node_tests() -> tuple[list[Counted], dict[str, str]]:
    """The layers of the onnx package's node tests of quantized ops, as a runtime runs them."""
    layers: list[Counted] = []
    unread: dict[str, str] = {}
    for name, test in sorted(node_tests().items()):
        try:
            layers += count(name, lower_qdq(read_onnx(as_model(test)[0])), lanes("onnx"))
        except KaratError as error:
            unread[name] = str(error)
    return layers, unread


def section(title: str, layers: Sequence[Counted], unread: dict[str, str]) -> str:
    """The counts of one set of models, and the layers that no profile judges."""
    names = sorted({name for layer in layers for name in layer.answers})
    rows = [_row(name, [layer.answers[name] for layer in layers]) for name in names]
    rows.append(_row("any of them", [layer.best for layer in layers]))
    heads = ("profile", "layers", "judged", "within a bound", "refused by the runtime", "lacking", "share")
    text = f"## {title}\n\n{len({layer.model for layer in layers})} models.\n\n{table(heads, rows)}"
    rest: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for layer in layers:
        if layer.best.outcome in ("refused", "lacking"):
            rest[layer.op, layer.best.reason][layer.model] += 1
    if rest:
        text += "\nJudged under no profile:\n\n"
    for (op, reason), models in sorted(rest.items()):
        where = ", ".join(f"{model} ({number})" for model, number in sorted(models.items()))
        text += f"- {op}: {reason}. {where}\n"
    if unread:
        text += "\nNot read:\n\n" + "".join(f"- {name}: {reason}\n" for name, reason in unread.items())
    return text


def _row(name: str, answers: Sequence[Answer]) -> tuple[str, ...]:
    outcomes = Counter(answer.outcome for answer in answers)
    defined = outcomes["judged"] + outcomes["bound"]
    share = f"{100 * defined / len(answers):.1f} %" if answers else "-"
    return (name, str(len(answers)), *(str(outcomes[outcome]) for outcome in OUTCOMES), share)


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts, and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judged", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models", metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=PAGE, metavar="PAGE")
    options = parser.parse_args(arguments)
    sections = []
    if options.models.is_dir():
        sections.append(section("Models of a folder", *count_folder(options.models)))
    try:
        sections.append(section("Node tests of the onnx package", *count_node_tests()))
    except ImportError as error:
        sections.append(f"## Node tests of the onnx package\n\nNot counted: {error}.\n")
    page = "# Layers that are judged\n\n" + EXPLAINED + "\n".join(sections)
    options.output.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
