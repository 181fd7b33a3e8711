"""Staircases of random layers against the specs; ``python -m benchmarks.thresholds`` does it for 1,000."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import thresholds
from benchmarks.thresholds import OPERATIONS, Tally, main, random_layer, run
from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles import PROFILES, Rule
from karat24.refimpl.profiles.rules import Method
from karat24.refimpl.staircase import Staircase, staircase
from karat24.refimpl.staircase.requantization import Requantization

LAYERS = 6


def test_thresholds_are_where_the_specs_step() -> None:
    """Every op under every profile: odd zero points and those at the ends, ties, blocks and tails, fused
    activations, saturating pairs."""
    tallies = {name: Tally() for name in PROFILES}
    assert len(list(run(OPERATIONS, tallies, LAYERS))) == LAYERS * len(OPERATIONS)
    for name, tally in tallies.items():
        without = set(tally.without_rule)
        ops = {op for op in OPERATIONS if op.isupper() == (PROFILES[name].format == "tflite")}
        assert {op: tally.layers[op] + tally.without_rule[op] for op in ops} == dict.fromkeys(ops, LAYERS)
        assert without == {
            "edgetpu": {"CONV_2D", "TRANSPOSE_CONV"},
            "onnx-spec": {"com.microsoft:QGemm"},
        }.get(name, set())


@pytest.mark.parametrize(("profile", "moved"), [("ort-1.31", 1), ("ort-1.31", -1), ("onnx-spec", 1)])
def test_a_threshold_one_accumulator_off_is_found(
    profile: str, moved: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One threshold of one channel."""

    def wrong(rounding: Requantization, method: Method, first: Array, last: Array) -> Staircase:
        found = staircase(rounding, method, first, last)
        steps = found.thresholds.copy()
        steps[128, 5] += moved
        return replace(found, thresholds=steps)

    arguments = ["--layers", "1", "--profiles", profile]
    assert main(arguments) == 0
    monkeypatch.setattr(thresholds, "staircase", wrong)
    assert main(arguments) == 1
    assert "is not what the spec computes" in capsys.readouterr().err


@pytest.mark.parametrize("op", ["CONV_2D", "QLinearConv"])
def test_a_spec_that_rounds_otherwise_than_its_last_step_is_found(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole spec is held to the staircase, not its last step alone."""
    view = random_layer(op, 3)
    rule = next(p for p in PROFILES.values() if (p.format == "tflite") == op.isupper()).rule(view)
    thresholds.check(view, rule, 3)
    known = thresholds.OPS[op]

    def off_by_one(view: LayerView, values: Values, rule: Rule) -> SpecResult:
        result = known.spec(view, values, rule)
        return result._replace(outputs=(result.outputs[0] ^ 1,))

    monkeypatch.setattr(thresholds, "OPS", {op: replace(known, spec=off_by_one)})
    with pytest.raises(AssertionError):
        thresholds.check(view, rule, 3)
