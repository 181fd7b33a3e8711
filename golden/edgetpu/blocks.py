"""Channel blocks of a layer's output stages: whether they stand together as those of known pairs do.

A stage names the output channels of a block and of the last one. Each stage by itself may be one of several
ways, so a wrong one is only noticed beside the layer's others: in known pairs they are all alike, or whole
blocks followed by last ones, or loops over all blocks followed by multiples of as many whole ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from karat24.export.edgetpu.instructions import Stage
from karat24.golden.edgetpu.expected import blocks_of
from karat24.golden.edgetpu.pairing import Paired
from karat24.refimpl.graph import LayerView

WHOLE = (64, 64)
FOURS = (4, 4)


def unseen_blocks(found: Paired) -> str:
    """Why the blocks of the layer's stages prove nothing; empty where they stand as those of known pairs."""
    if found.shared or not found.stages or any("output_zero_point" not in way.values for way in found.ways):
        return ""
    stages = sorted(found.stages, key=lambda stage: stage.instruction)
    predicted = all(found.closest(stage)[0].blocks for stage in stages)
    odd = _mixed(stages) if predicted else _unknown(found.view, stages)
    if not odd:
        return ""
    shown = ", ".join(str(stage.instruction) for stage in odd[:4])
    return f"no pair shows such channel blocks among a layer's stages, at instruction {shown}"


def _mixed(stages: Sequence[Stage]) -> list[Stage]:
    """The rarest stages, where blocks of several kinds are not in a known order."""
    runs = [(kind, len(list(run))) for kind, run in groupby(stages, _kind)]
    if len(runs) == 1:
        return []
    if len(runs) == 2:
        (first, count), (second, more) = runs
        is_last_behind = first == WHOLE and second[0] == second[1] < 64
        is_whole_behind = first[0] == 64 > first[1] and second == WHOLE and more % count == 0
        if is_last_behind or is_whole_behind:
            return []
    counts = Counter(map(_kind, stages))
    return [stage for stage in stages if counts[_kind(stage)] == min(counts.values())]


def _unknown(view: LayerView, stages: Sequence[Stage]) -> list[Stage]:
    """The stages whose blocks follow from no input's or output's channels, where no blocks are predicted."""
    known = {FOURS}
    for tensor in (*view.inputs, *view.outputs):
        if tensor is not None and tensor.shape and not tensor.is_constant:
            known |= blocks_of(tensor.shape[-1])
    return [stage for stage in stages if _kind(stage) not in known]


def _kind(stage: Stage) -> tuple[int, int]:
    return stage.block, stage.last_block
