"""Which layers of the source each custom op of a compiled model stands for, and which stayed on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from karat24.export.edgetpu import CompiledModel, CompiledOp
from karat24.golden.edgetpu.finding import Finding
from karat24.refimpl.graph import Graph, LayerView, Tensor


@dataclass(frozen=True)
class Mapping:
    """``device`` maps a source layer to the position of its op among all ops; ``cpu`` maps one to the
    compiled graph's layer. ``findings`` holds names that are not found in the source."""

    ops: tuple[CompiledOp, ...]
    device: dict[int, int]
    cpu: dict[int, LayerView]
    findings: tuple[Finding, ...]


def map_layers(source: Graph, models: Sequence[CompiledModel]) -> Mapping:
    """Finds each op's layers: all those between the tensors its inputs and outputs are called after.

    ``models`` are one file, or the segments of a pipeline.
    """
    named = {tensor.name: tensor for tensor in reversed(source.tensors)}
    producer = {index: view for view in source.views() for index in view.layer.outputs}
    device: dict[int, int] = {}
    cpu: dict[int, LayerView] = {}
    findings: list[Finding] = []
    ops = tuple(op for model in models for op in model.ops)

    def find(tensor: Tensor, role: str) -> Tensor | None:
        if tensor.name not in named:
            findings.append(Finding("name", role, None, tensor.name))
        return named.get(tensor.name)

    for position, op in enumerate(ops):
        given = {t.index for i in op.view.inputs if i is not None and (t := find(i, "input")) is not None}
        wanted = [t.index for o in op.view.outputs if (t := find(o, "output")) is not None]
        for layer in _between(producer, given, wanted):
            device.setdefault(layer, position)
    for model in models:
        for view in model.cpu_layers:
            found = (
                find(view.output(), f"layer {view.layer.index}, left on the CPU") if view.outputs else None
            )
            if found is not None and found.index in producer:
                cpu[producer[found.index].layer.index] = view
    return Mapping(ops, device, cpu, tuple(findings))


def _between(producer: dict[int, LayerView], given: set[int], wanted: list[int]) -> list[int]:
    """Layers that compute ``wanted`` from ``given``, in order."""
    taken: set[int] = set()
    pending = list(wanted)
    while pending:
        index = pending.pop()
        view = producer.get(index)
        if index in given or view is None or view.layer.index in taken:
            continue
        taken.add(view.layer.index)
        pending += [i for i in view.layer.inputs if i >= 0]
    return sorted(taken)
