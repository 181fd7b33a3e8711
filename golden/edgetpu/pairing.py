"""Which output stage belongs to which layer.

Layers and stages that agree in every predicted field belong together; several layers with equal
constants share their stages. A stage left over is a changed copy of a layer's, of the one it resembles
most; where it resembles none, it may be a step inside an op that is not understood.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from karat24.export.edgetpu.instructions import InstructionStream, Stage
from karat24.golden.edgetpu.consistency import SAME_NUMBERS
from karat24.golden.edgetpu.expected import (
    INFINITE,
    ONE,
    OPAQUE,
    Expected,
    expected_stages,
    needs_stage,
    output_numbers,
)
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import LayerView

UNDERSTOOD = ("multiply", "add", "pool", "move")
"""Units whose every stage must belong to a layer."""

CORE = ("multiplier", "per_channel")
"""Fields whose place every known compiler shares."""

NUMBERS = frozenset({"multiplier", "lower", "upper"})
"""Fields that stand in one instruction and tell a stage by themselves, where the multiplier is not 1."""

NEARBY = 128
"""Instructions between the copies of one stage, at most, where they stand together."""

MAX_LEFT = 2000
"""Stages that are compared with every layer, or with one that lacks its own; a sound file has a few dozen."""

ANYWHERE = 1 << 62

Changed: TypeAlias = tuple[Stage, Expected, tuple[str, ...]]
"""A stage, what it should be, and the fields in which it is not."""


@dataclass
class Paired:
    """A layer's stages: those as expected, and those that are not, each with what it should be."""

    view: LayerView
    ways: tuple[Expected, ...]
    reason: str = ""
    """Why there are no ways, where the layer's own tensors are it."""

    stages: list[Stage] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)

    def has(self, stage: Stage) -> bool:
        """Whether the stage is as the layer's must be."""
        return any(not way.mismatches(stage) for way in self.ways)

    def closest(self, stage: Stage) -> tuple[Expected, tuple[str, ...]]:
        """The way the stage agrees with best, and the fields in which it does not."""
        return min(((way, way.mismatches(stage)) for way in self.ways), key=lambda found: len(found[1]))

    def most_like(self, stages: Sequence[Stage]) -> list[Changed]:
        """The stages of the layer's unit that differ in fewest fields; none where that is most of them."""
        found = [(stage, *self.closest(stage)) for stage in stages[:MAX_LEFT]]
        found = [item for item in found if "unit" not in item[2]]
        fewest = min((len(wrong) for _, _, wrong in found), default=0)
        return [item for item in found if len(item[2]) == fewest and 2 * fewest <= len(item[1].values)]

    def find_by_numbers(self, stream: InstructionStream, known: frozenset[int]) -> None:
        """Takes stages in unknown surroundings, by multiplier and clamps alone; ``known`` holds the
        instructions of all others."""
        for way in self.ways:
            if set(way.values) >= NUMBERS and way.values["multiplier"] != ONE:
                numbers = (int(way.values[name]) for name in ("multiplier", "lower", "upper"))
                found = [stage for stage in stream.holding(*numbers) if stage.instruction not in known]
                if found:
                    self.stages += found
                    self.ways = (way.without({*way.values, "channels"} - NUMBERS),)
                    return

    @property
    def missing(self) -> bool:
        """Whether the layer must have a stage and has none."""
        return bool(self.ways) and needs_stage(self.view) and not self.stages and not self.changed


def pair(
    views: Sequence[LayerView], stream: InstructionStream
) -> tuple[list[Paired], list[Stage], frozenset[str]]:
    """Every layer with its stages, in the order of ``views``, the stages that belong to none, and the
    fields that stand elsewhere in this stream, which are not compared."""
    stages = stream.stages()
    layers = [_paired(view) for view in views]
    known = [layer for layer in layers if layer.ways]
    elsewhere = _fields_elsewhere(known, stages)
    for layer in known:
        layer.ways = tuple(way.without(elsewhere) for way in layer.ways)
    by_multiplier: dict[object, list[Paired]] = {}
    for layer in known:
        for multiplier in {way.values["multiplier"] for way in layer.ways}:
            by_multiplier.setdefault(multiplier, []).append(layer)
    left: list[Stage] = []
    for stage in stages:
        owners = [layer for layer in by_multiplier.get(stage.multiplier, ()) if layer.has(stage)]
        for layer in owners:
            layer.stages.append(stage)
            layer.shared += [other.view.layer.index for other in owners if other is not layer]
        if not owners:
            left.append(stage)
    spans = _opaque(layers)
    left = _one_field_off(known, left, spans)
    recognised = frozenset(stage.instruction for stage in stages)
    for layer in known:
        if layer.missing:
            layer.find_by_numbers(stream, recognised)
    left = _of_layers_without(known, left, stages)
    return layers, [stage for stage in left if _must_belong(stage, spans)], elsewhere


def _paired(view: LayerView) -> Paired:
    """Without ways where the layer's tensors lack the numbers to predict from."""
    try:
        return Paired(view, expected_stages(view))
    except ModelError as error:
        return Paired(view, (), str(error))


def _fields_elsewhere(known: Sequence[Paired], stages: Sequence[Stage]) -> frozenset[str]:
    """Fields that are wrong for most layers although the multiplier is right: another version of the
    compiler puts them elsewhere."""
    by_core: dict[tuple[object, object], list[Stage]] = {}
    for stage in stages:
        by_core.setdefault((stage.multiplier, stage.per_channel), []).append(stage)
    seen: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for layer in known:
        way = layer.ways[0]
        names = {*way.values, *(["channels"] if way.blocks else [])} - set(CORE)
        key = way.values["multiplier"], way.values["per_channel"]
        alike = [way.mismatches(stage) for stage in by_core.get(key, ())]
        if alike:
            seen.update(names)
            right.update(name for name in names if any(name not in mismatches for mismatches in alike))
    return frozenset(name for name in seen if 2 * right[name] < seen[name])


def _one_field_off(known: Sequence[Paired], left: Sequence[Stage], spans: Sequence[Opaque]) -> list[Stage]:
    """Stages that differ from a layer's in a single field are that layer's; inside an op that is
    not understood only beside the layer's others, since its own steps have the most common values, and
    not where it is that op's own output that the stage gives."""
    still = list(left[MAX_LEFT:])
    for stage in left[:MAX_LEFT]:
        if any(opaque.gives(stage) for opaque in spans):
            still.append(stage)
            continue
        reach = NEARBY if _inside(stage, spans) else ANYWHERE
        near = [
            layer
            for layer in known
            if len(wrong := layer.closest(stage)[1]) == 1
            and wrong != ("unit",)
            and _distance(layer, stage) <= reach
        ]
        if near:
            layer = min(near, key=lambda layer: (_claim(layer), _distance(layer, stage)))
            layer.changed.append((stage, *layer.closest(stage)))
        else:
            still.append(stage)
    return still


def _claim(layer: Paired) -> int:
    """Least for the layer that a changed stage is most likely of: one whose stages have all changed, then one
    that has others, and last one that needs none."""
    if layer.stages:
        return 1
    return 0 if needs_stage(layer.view) else 2


def _of_layers_without(
    known: Sequence[Paired], left: Sequence[Stage], stages: Sequence[Stage]
) -> list[Stage]:
    """A layer that lacks its stage takes, of those left over, the ones that agree with it best; where
    nothing is left over, other layers with equal constants hold its own."""
    still = list(left)
    for layer in known:
        if not layer.missing:
            continue
        best = layer.most_like(still)
        if not best and any("unit" in way.values for way in layer.ways):
            best = layer.most_like(_between_neighbours(known, layer, stages))
        layer.changed += best
        still = [stage for stage in still if all(stage is not item[0] for item in best)]
    return still


def _between_neighbours(known: Sequence[Paired], layer: Paired, stages: Sequence[Stage]) -> list[Stage]:
    """Stages behind the first of what the layer reads, and before the last of what reads it."""
    read, written = set(layer.view.layer.inputs), set(layer.view.layer.outputs)
    before = [o.stages[0].instruction for o in known if o.stages and read.intersection(o.view.layer.outputs)]
    behind = [
        o.stages[-1].instruction for o in known if o.stages and written.intersection(o.view.layer.inputs)
    ]
    first, last = max(before, default=-1), max(behind, default=ANYWHERE)
    return [stage for stage in stages if first < stage.instruction < last]


def _distance(layer: Paired, stage: Stage) -> int:
    """To the nearest of the layer's stages, which stand in order."""
    place = bisect_left(layer.stages, stage.instruction, key=lambda own: own.instruction)
    beside = layer.stages[max(place - 1, 0) : place + 1]
    return min((abs(own.instruction - stage.instruction) for own in beside), default=0)


@dataclass(frozen=True)
class Opaque:
    """An op whose inner stages are not understood: the instructions that it may lie in, first and last
    not among them, and the numbers of its output, where it gives some of its own."""

    first: int
    last: int
    output: Mapping[str, int | str | bool]

    def holds(self, stage: Stage) -> bool:
        """Whether the stage stands where the op's may."""
        return self.first < stage.instruction < self.last

    def gives(self, stage: Stage) -> bool:
        """Whether the stage gives the op's output."""
        return (
            self.holds(stage)
            and bool(self.output)
            and all(getattr(stage, name) == value for name, value in self.output.items())
        )


def _opaque(layers: Sequence[Paired]) -> list[Opaque]:
    """Each op whose inner stages are not understood, between the stages of the layers around it."""
    found = []
    for position, layer in enumerate(layers):
        if layer.view.op in OPAQUE or not layer.ways:
            before = [other.stages[-1].instruction for other in layers[:position] if other.stages]
            behind = [other.stages[0].instruction for other in layers[position + 1 :] if other.stages]
            own = layer.view.op not in SAME_NUMBERS
            output = output_numbers(layer.view) if own else MappingProxyType({})
            found.append(Opaque(max(before, default=-1), min(behind, default=ANYWHERE), output))
    return found


def _inside(stage: Stage, spans: Sequence[Opaque]) -> bool:
    return any(opaque.holds(stage) for opaque in spans)


def _must_belong(stage: Stage, spans: Sequence[Opaque]) -> bool:
    """Whether a stage that belongs to no layer is worth a remark: it is neither inside an op that is not
    understood nor a plain copy."""
    if stage.unit not in UNDERSTOOD or _inside(stage, spans):
        return False
    plain_move = (stage.multiplier, stage.lower, stage.upper) == (ONE, *INFINITE)
    return not (stage.unit == "move" and plain_move)


def out_of_order(layers: Sequence[Paired]) -> list[tuple[LayerView, LayerView]]:
    """Producers and consumers whose stages, each its own layer's alone, stand the other way round."""
    first = {
        layer.view.layer.index: layer.stages[0].instruction
        for layer in layers
        if layer.stages and not layer.shared
    }
    producer = {index: layer.view for layer in layers for index in layer.view.layer.outputs}
    edges = [(producer.get(index), layer.view) for layer in layers for index in layer.view.layer.inputs]
    return [
        (before, behind)
        for before, behind in edges
        if before is not None
        and before.layer.index in first
        and behind.layer.index in first
        and first[before.layer.index] > first[behind.layer.index]
    ]
