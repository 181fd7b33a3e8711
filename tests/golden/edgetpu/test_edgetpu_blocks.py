"""Channel blocks of a layer's stages: the orders that pairs show, and a stage that departs from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from karat24.export.edgetpu.instructions import InstructionStream, Stage
from karat24.golden.edgetpu import prove
from karat24.golden.edgetpu.blocks import unseen_blocks
from karat24.golden.edgetpu.pairing import Paired, pair
from tests.support import edgetpu_pairs

WHOLE, LOOP, LAST = (64, 64), (64, 32), (32, 32)
Blocks = tuple[int, int]


def found_in(name: str, op: str, channels: int) -> Paired:
    """The first layer of an op with so many outputs in a public pair, with its stages."""
    source, compiled = edgetpu_pairs.pair(name)
    prove(source, [compiled])
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


@pytest.mark.parametrize(
    ("blocks", "odd"),
    [
        ([LOOP] * 4, ""),
        ([WHOLE, LAST], ""),
        ([WHOLE] * 2 + [LAST] * 3, ""),
        ([LOOP] * 8 + [WHOLE] * 48, ""),
        ([LOOP, LOOP, WHOLE, LOOP], "300"),
        ([LOOP, LOOP, LOOP, WHOLE], "400"),
        ([WHOLE, LOOP, LOOP], "100"),
        ([LAST, WHOLE, WHOLE], "100"),
        ([WHOLE, LOOP], "100, 200"),
    ],
)
def test_stages_in_an_order_that_no_pair_shows_prove_nothing(blocks: list[Blocks], odd: str) -> None:
    layer = found_in("deeplabv3_mnv2_dm05_pascal_quant", "CONV_2D", 96)
    assert layer.stages
    assert unseen_blocks(layer) == ""
    reason = unseen_blocks(with_blocks(layer, blocks))
    assert reason.endswith(f"at instruction {odd}") if odd else not reason


@pytest.mark.parametrize(("blocks", "odd"), [((4, 4), ""), ((64, 44), ""), ((20, 4), "200")])
def test_a_copy_moves_fours_or_the_blocks_of_its_channels(blocks: Blocks, odd: str) -> None:
    """1,001 channels are fifteen blocks of 64, and 44."""
    layer = found_in("mobilenet_v1_0.25_128_quant", "RESHAPE", 1001)
    reason = unseen_blocks(with_blocks(layer, [(4, 4), blocks]))
    assert reason.endswith(f"at instruction {odd}") if odd else not reason


def test_a_pool_s_blocks_are_those_of_its_output_way() -> None:
    """It has a second way, for an output without clamps, which predicts no blocks."""
    layer = found_in("deeplabv3_mnv2_dm05_pascal_quant", "AVERAGE_POOL_2D", 160)
    assert unseen_blocks(with_blocks(layer, [WHOLE, LAST])) == ""
    assert unseen_blocks(with_blocks(layer, [LOOP, LAST])).endswith("at instruction 100, 200")


def test_stages_that_other_layers_share_are_not_compared_with_one_another() -> None:
    layer = found_in("deeplabv3_mnv2_dm05_pascal_quant", "CONV_2D", 96)
    shared = replace(with_blocks(layer, [LOOP, WHOLE, LOOP]), shared=[1])
    assert not unseen_blocks(shared)
