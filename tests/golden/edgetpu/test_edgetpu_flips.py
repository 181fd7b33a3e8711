"""Negative control of the Edge TPU proof: each bit changed on either side is caught, and said where."""

from __future__ import annotations

import random

import pytest

from karat24.golden.edgetpu import Proof, prove
from tests.support.edgetpu_flips import Flip, draw
from tests.support.edgetpu_pairs import PAIRS, pair

SEED = 20190827


def check(seed: int, flips: int) -> None:
    rng = random.Random(seed)
    known = [(*pair(name), prove(pair(name)[0], [pair(name)[1]])) for name in PAIRS]
    missed = []
    for _ in range(flips):
        source, compiled, before = rng.choice(known)
        flip = draw(rng, source, compiled, before)
        problem = not_located(flip, prove(flip.source, [flip.compiled]))
        if problem:
            missed.append(f"{flip.kind}: {flip.about}: {problem}")
    assert not missed, "\n".join(missed)


def not_located(flip: Flip, proof: Proof) -> str:
    """Empty where the proof differs, and a finding is of a layer the change touches and names its place."""
    if proof.exit_code != 1:
        return f"not caught: {proof.verdict}"
    if not flip.layers:  # a byte that fills up to the next layer
        left = any(part.unexplained for part in proof.parameters)
        return "" if left else "no byte is said to belong to no layer"
    touched = [layer for layer in proof.layers if layer.layer in flip.layers and layer.verdict == "differs"]
    findings = [finding for layer in touched for finding in layer.findings]
    if flip.kind in ("scale", "zero point"):
        findings += list(proof.io)
    elsewhere = [layer.layer for layer in proof.layers if layer.verdict == "differs" and layer not in touched]
    if not findings:
        return f"located in layers {elsewhere} rather than {sorted(flip.layers)}"
    if elsewhere and flip.kind not in ("scale", "zero point"):
        return f"layers {elsewhere} differ as well"
    if any(repr(finding.source) == repr(finding.compiled) for finding in findings):  # 0.0 is not -0.0
        return "a difference between equal values"
    if not any(flip.words in finding.where for finding in findings):
        return f"no finding names {flip.words!r}: {[str(finding) for finding in findings]}"
    return ""


def test_every_flipped_bit_is_caught_and_located() -> None:
    check(SEED, 64)


@pytest.mark.slow
def test_a_thousand_flipped_bits_are_caught_and_located() -> None:
    check(SEED + 1, 1000)
