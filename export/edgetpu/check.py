"""Which layers of a model the Edge TPU's compiler will map, and what to change about the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from karat24.export.edgetpu.constraints import GENERAL, LIMITS, message
from karat24.export.edgetpu.read import is_compiled
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph, LayerView

Outcome: TypeAlias = Literal["maps", "may_stay", "stays", "behind"]


@dataclass(frozen=True)
class LayerCheck:
    """One layer. ``maps``: it keeps every documented limit. ``may_stay``: it keeps them, and the compiler
    may still leave it on the CPU. ``stays``: it breaks a limit. ``behind``: it reads the output of a
    layer that stays or may stay, and the compiler maps a single run of layers. ``runtime`` is the lowest
    documented to take the op (compilers have mapped a QUANTIZE that only changes the sign for runtime 12)."""

    layer: int
    op: str
    name: str
    outcome: Outcome
    reasons: tuple[str, ...]
    runtime: int


def check_graph(graph: Graph) -> tuple[LayerCheck, ...]:
    """Checks every layer, in order. Raises UsageError for a graph that is no .tflite, or compiled already."""
    if graph.format != "tflite":
        raise UsageError(
            "the Edge TPU's compiler takes .tflite files only; give the int8 .tflite of this model"
        )
    if is_compiled(graph):
        raise UsageError("this model is compiled for the Edge TPU already; give the .tflite it was made from")
    lost: dict[int, LayerView] = {}
    checks = []
    for view in graph.views():
        check = _check(view)
        cause = next((lost[i] for i in view.layer.inputs if i in lost), None)
        if check.outcome == "maps" and cause is not None:
            reason = f"it reads what layer {cause.layer.index} ({cause.op}) computes, maybe on the CPU"
            check = LayerCheck(check.layer, check.op, check.name, "behind", (reason,), check.runtime)
        if check.outcome != "maps":
            lost |= dict.fromkeys(view.layer.outputs, view)
        checks.append(check)
    return tuple(checks)


def _check(view: LayerView) -> LayerCheck:
    name = view.outputs[0].name if view.outputs else ""
    limits = LIMITS.get(view.op)
    if limits is None:
        reason = f"the Edge TPU has no {view.op}; replace it, or let it be the last layer, on the CPU"
        return LayerCheck(view.layer.index, view.op, name, "stays", (reason,), 0)
    found = [(constraint, constraint(view)) for constraint in (*GENERAL, *limits.constraints)]
    broken = tuple(f"{message(constraint)}; here {wrong}" for constraint, wrong in found if wrong)
    outcome: Outcome = "stays" if broken else "may_stay" if limits.doubt else "maps"
    reasons = broken or ((limits.doubt,) if limits.doubt else ())
    return LayerCheck(view.layer.index, view.op, name, outcome, reasons, limits.needs(view))
