"""Negative control of the Edge TPU proof; ``python -m benchmarks.edgetpu_flips`` flips 1,000 bits."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import edgetpu_flips
from benchmarks.edgetpu_flips import KINDS, SEED, STAGE_FIELDS, flipped, in_field, main, not_located, with_bit
from karat24.golden.edgetpu import prove
from karat24.refimpl.graph import Graph
from tests.support.edgetpu_pairs import PAIRS, pair


def outputs(graph: Graph) -> tuple[str, ...]:
    """What tells the sources apart."""
    return tuple(graph.tensors[index].name for index in graph.outputs)


def test_every_flipped_bit_is_caught_and_located() -> None:
    """Of each kind, on either side, in each public pair: the first tenth of what the program flips."""
    pairs = [pair(name) for name in PAIRS]
    outcomes = list(flipped(pairs, 100, SEED))
    assert [str(outcome) for outcome in outcomes if outcome.problem] == []
    assert {outcome.flip.kind for outcome in outcomes} == set(KINDS)
    assert {outputs(outcome.flip.source) for outcome in outcomes} == {outputs(source) for source, _ in pairs}


@pytest.mark.parametrize("field", STAGE_FIELDS)
def test_every_field_of_a_stage_is_held(field: str) -> None:
    """One stage of every op, in the first public pair, whose layers are all proved. Random flips meet the
    constant of its one average pool once in thousands."""
    source, compiled = pair(PAIRS[0])
    sound = prove(source, [compiled])
    rng = random.Random(field)
    ops = {layer.op: layer for layer in sound.layers if layer.stages}
    assert set(ops) == {"CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "RESHAPE"}
    for layer in ops.values():
        flip = in_field(rng, source, compiled, sound, layer, field)
        if flip is not None:
            found = prove(flip.source, [flip.compiled])
            assert found.exit_code != 0, flip.about
            assert not_located(flip, found) == "", flip.about


def test_a_flip_that_is_missed_or_misplaced_is_told() -> None:
    """A proof that saw nothing, and one that saw another layer."""
    source, compiled = pair(PAIRS[0])
    (outcome,) = flipped([(source, compiled)], 1, seed=1)
    assert not_located(outcome.flip, prove(source, [compiled])).startswith("not caught")
    elsewhere = replace(outcome.flip, layers=frozenset({len(source.layers) - 1} - outcome.flip.layers))
    found = prove(outcome.flip.source, [outcome.flip.compiled])
    assert "rather than" in not_located(elsewhere, found)


def test_the_program_says_what_was_caught_and_what_was_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, compiled = pair(PAIRS[0])
    monkeypatch.setattr(edgetpu_flips, "PAIRS", PAIRS[:1])
    assert main(["--flips", "2"]) == 0
    assert "2 of 2 flipped bits are caught" in capsys.readouterr().out
    sound = prove(source, [compiled])
    monkeypatch.setattr(edgetpu_flips, "prove", lambda *_: sound)
    assert main(["--flips", "1"]) == 1
    assert "not caught" in capsys.readouterr().err
    assert main(["--flips", "1", "--models", str(tmp_path)]) == 2


def test_a_stage_among_a_layer_s_others_is_that_layer_s() -> None:
    """A copy that needs no stage has one field less in common with it than the convolution, or as many."""
    source, compiled = pair("posenet_mobilenet_v1_075_353_481_16_quant_decoder")
    sound = prove(source, [compiled])
    (layer,) = [layer for layer in sound.layers if layer.layer == 35]
    changed = with_bit(compiled, 128 * layer.stages[2])  # one multiplier per channel
    differing = [found for found in prove(source, [changed]).layers if found.verdict == "differs"]
    assert [found.layer for found in differing] == [35]
    assert [finding.where for finding in differing[0].findings] == [f"instruction {layer.stages[2]}"]
