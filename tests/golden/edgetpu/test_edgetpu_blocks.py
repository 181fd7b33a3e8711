"""Channel blocks of a layer's stages: the orders that pairs show, and a stage that departs from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from karat24.export.edgetpu.instructions import InstructionStream, Stage
from karat24.golden.edgetpu.blocks import unseen_blocks
from karat24.golden.edgetpu.pairing import Paired, pair
from tests.support import edgetpu_pairs

MOBILENET, POSENET, DEEPLAB = edgetpu_pairs.PAIRS
WHOLE, LOOP, LAST = (64, 64), (64, 32), (32, 32)
Blocks = tuple[int, int]


def found_in(name: str, op: str, channels: int) -> Paired:
    """The first layer of an op with so many outputs in a public pair, with its stages."""
    source, compiled = edgetpu_pairs.pair(name)
    stream = InstructionStream(compiled.ops[0].package.main.instructions)
    layers, _, _ = pair(list(source.views()), stream)
    return next(
        found
        for found in layers
        if found.view.op == op and found.stages and found.view.output().shape[-1] == channels
    )


def with_blocks(found: Paired, blocks: list[Blocks]) -> Paired:
    """As many stages as blocks, alike in everything else."""
    stages: list[Stage] = [
        replace(found.stages[0], instruction=100 * number, block=block, last_block=last)
        for number, (block, last) in enumerate(blocks, 1)
    ]
    return replace(found, stages=stages)


def reason(*layers: Paired) -> str:
    """What is said of the first of the layers."""
    return unseen_blocks(layers).get(layers[0].view.layer.index, "")


@pytest.mark.parametrize(
    ("blocks", "odd"),
    [
        ([LOOP] * 4, ""),
        ([WHOLE, LAST], ""),
        ([WHOLE] * 2 + [LAST] * 3, ""),
        ([LOOP, LOOP, WHOLE, LOOP], "300"),
        ([LOOP, LOOP, LOOP, WHOLE], "400"),
        ([WHOLE, LOOP, LOOP], "100"),
        ([LAST, WHOLE, WHOLE], "100, 200, 300"),
        ([WHOLE, LOOP], "100, 200"),
        ([WHOLE, WHOLE], "200"),
    ],
)
def test_stages_in_an_order_that_no_pair_shows_prove_nothing(blocks: list[Blocks], odd: str) -> None:
    layer = found_in(DEEPLAB, "CONV_2D", 96)
    assert reason(layer) == ""
    said = reason(with_blocks(layer, blocks))
    assert said.endswith(f"at instruction {odd}") if odd else not said


@pytest.mark.parametrize(("blocks", "odd"), [((4, 4), ""), ((64, 44), ""), ((20, 4), "200")])
def test_a_copy_moves_fours_or_the_blocks_of_its_channels(blocks: Blocks, odd: str) -> None:
    """1,001 channels are fifteen blocks of 64, and 44."""
    layer = found_in(MOBILENET, "RESHAPE", 1001)
    said = reason(with_blocks(layer, [(4, 4), blocks]))
    assert said.endswith(f"at instruction {odd}") if odd else not said


def test_a_pool_s_blocks_are_those_of_its_output_way() -> None:
    """It has a second way, for an output without clamps, which predicts no blocks."""
    layer = found_in(DEEPLAB, "AVERAGE_POOL_2D", 160)
    assert reason(with_blocks(layer, [WHOLE, LAST])) == ""
    assert reason(with_blocks(layer, [LOOP, LAST])).endswith("at instruction 100, 200")


@pytest.mark.parametrize(
    ("blocks", "odd"),
    [
        ([LOOP] * 4 + [WHOLE] * 4, ""),
        ([WHOLE, LAST] + [WHOLE] * 3, ""),
        ([LOOP] * 2 + [WHOLE] * 2 + [LOOP] + [WHOLE], "500"),
        ([WHOLE] * 4 + [LOOP] * 4, "100, 200, 300, 400"),
    ],
)
def test_layers_that_share_their_stages_have_them_in_the_file_s_order(blocks: list[Blocks], odd: str) -> None:
    """96 channels, then 192, whose blocks are all whole: both convolutions have equal constants."""
    first, second = found_in(POSENET, "CONV_2D", 96), found_in(POSENET, "CONV_2D", 192)
    indices = first.view.layer.index, second.view.layer.index
    pair_of = [
        replace(with_blocks(first, blocks), shared=[indices[1]]),
        replace(with_blocks(second, blocks), shared=[indices[0]]),
    ]
    pair_of[1].stages = [stage for stage in pair_of[1].stages if second.has(stage)]
    said = reason(*pair_of)
    assert said.endswith(f"at instruction {odd}") if odd else not said
