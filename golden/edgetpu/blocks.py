"""Channel blocks of output stages: whether they stand together as those of known pairs do.

A stage names the output channels of a block and of the last one. Each stage by itself may be one of several
ways, so a wrong one is only noticed beside the others. In known pairs the stages of a layer are all alike, or
whole blocks followed by last ones. Layers with equal constants share their stages, and are judged together:
each has some of them, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from karat24.export.edgetpu.instructions import Stage
from karat24.golden.edgetpu.expected import blocks_of
from karat24.golden.edgetpu.pairing import Paired
from karat24.refimpl.graph import LayerView

Blocks: TypeAlias = tuple[int, int]
Pattern: TypeAlias = tuple[Blocks, ...]
"""Blocks in the order in which a layer's stages have them, each once or several times."""

WHOLE: Blocks = (64, 64)
FOURS: Blocks = (4, 4)
MOST_TRIED = 256
"""Stages of which the changed one is sought."""


def unseen_blocks(layers: Sequence[Paired]) -> Mapping[int, str]:
    """Why the blocks of a layer's stages prove nothing, by its index. ``layers`` are in the file's order."""
    found: dict[int, str] = {}
    groups = {tuple(sorted({layer.view.layer.index, *layer.shared})) for layer in layers if layer.stages}
    by_index = {layer.view.layer.index: layer for layer in layers}
    for group in groups:
        odd = _odd([by_index[index] for index in group])
        if odd:
            shown = ", ".join(str(stage.instruction) for stage in odd[:4])
            reason = f"no pair shows such channel blocks among a layer's stages, at instruction {shown}"
            found |= dict.fromkeys(group, reason)
    return found


def _odd(layers: Sequence[Paired]) -> Sequence[Stage]:
    """The stages that may have changed; none where all fit, or where too little is known to tell."""
    if any("output_zero_point" not in way.values for layer in layers for way in layer.ways):
        return ()
    own = {stage.instruction: stage for layer in layers for stage in layer.stages}
    stages = [own[instruction] for instruction in sorted(own)]
    predicted = [_predicted(layer) for layer in layers]
    if not all(predicted):
        return _unknown(layers[0].view, stages) if len(layers) == 1 else ()
    patterns = [_patterns(blocks) for blocks in predicted]
    kinds = [_kind(stage) for stage in stages]
    if _fit(kinds, patterns):
        return ()
    possible = frozenset().union(*predicted)
    changed = [
        stage
        for place, stage in enumerate(stages[:MOST_TRIED])
        if any(_fit([*kinds[:place], kind, *kinds[place + 1 :]], patterns) for kind in possible)
    ]
    return changed or stages


def _predicted(layer: Paired) -> frozenset[Blocks]:
    """The blocks that the layer's stages may have; none where its way predicts none."""
    ways = [layer.closest(stage)[0] for stage in layer.stages]
    return ways[0].blocks if ways and all(way.blocks for way in ways) else frozenset()


def _patterns(blocks: frozenset[Blocks]) -> list[Pattern]:
    """The orders that a layer of these blocks may have."""
    last = next((kind for kind in blocks if kind[0] == kind[1] and kind not in (WHOLE, FOURS)), None)
    if len(blocks - {FOURS}) == 1 or last is None:
        return [(kind,) for kind in blocks]
    return [(WHOLE, last), *((kind,) for kind in blocks - {WHOLE, last})]


def _fit(kinds: Sequence[Blocks], patterns: Sequence[Sequence[Pattern]]) -> bool:
    """Whether the stages can be cut into one piece for each layer, in order."""
    states: set[tuple[int, Pattern, int]] = {(-1, (), -1)}
    for kind in kinds:
        after: set[tuple[int, Pattern, int]] = set()
        for layer, pattern, place in states:
            if place >= 0 and pattern[place] == kind:
                after.add((layer, pattern, place))
            if place + 1 < len(pattern):
                if pattern[place + 1] == kind:
                    after.add((layer, pattern, place + 1))
            elif layer + 1 < len(patterns):
                after |= {(layer + 1, new, 0) for new in patterns[layer + 1] if new[0] == kind}
        states = after
    return any(layer == len(patterns) - 1 and place == len(pattern) - 1 for layer, pattern, place in states)


def _unknown(view: LayerView, stages: Sequence[Stage]) -> list[Stage]:
    """The stages whose blocks follow from no input's or output's channels, where no blocks are predicted."""
    known = {FOURS}
    for tensor in (*view.inputs, *view.outputs):
        if tensor is not None and tensor.shape and not tensor.is_constant:
            known |= blocks_of(tensor.shape[-1])
    return [stage for stage in stages if _kind(stage) not in known]


def _kind(stage: Stage) -> Blocks:
    return stage.block, stage.last_block
