"""``karat24 establish`` recovers rules blind, writes them down, and says when none fits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from karat24.delegates.oracle import OracleDelegate
from karat24.delegates.protocol import DelegateRun, Job
from karat24.golden.establish import Kind, establish
from karat24.refimpl.errors import DelegateError, UsageError
from karat24.refimpl.profiles import profile_named

KINDS = (Kind("CONV_2D", "uint8"), Kind("LEAKY_RELU", "int8"))


@pytest.mark.parametrize("name", ["litert-2.3-ref", "litert-2.3-builtin", "litert-2.3-xnnpack"])
def test_a_known_profile_is_recovered(name: str) -> None:
    """Effective scales in float32 and float64 part in few thresholds; one rule for each kind is left."""
    found = establish(OracleDelegate(name), KINDS)
    assert found.complete
    for finding in found.findings:
        assert name in finding.followed(), str(finding)
    assert found.nearest()[1] == len(KINDS)


def test_a_departure_is_found_and_written_down(tmp_path: Path) -> None:
    """LiteRT 2.4's change: uint8 convolutions with an effective scale in float64."""
    path = tmp_path / "next.json"
    rules = {"CONV_2D": {"uint8": {"method": "ruy", "multiplier": "float64"}}}
    path.write_text(json.dumps({"name": "next", "base": "litert-2.3-builtin", "rules": rules}))
    found = establish(OracleDelegate(str(path)), KINDS)
    (departure,) = found.departures()
    assert (departure.kind, departure.variant) == (KINDS[0], "uint8")
    (rule,) = departure.rules
    assert (rule.method, rule.multiplier) == ("ruy", "float64")
    path.write_text(json.dumps(found.profile("again")))
    assert profile_named(str(path)).table["CONV_2D"]["uint8"] == rule


def test_a_rule_outside_the_space_is_said_to_be() -> None:
    class Odd(OracleDelegate):
        """Its outputs are even."""

        def run_many(self, jobs: Iterable[Job], **options: object) -> Iterator[DelegateRun | DelegateError]:
            for answer in super().run_many(jobs):
                assert isinstance(answer, DelegateRun)
                outputs = [output.copy() for output in answer.outputs]
                for output in outputs:
                    output[output % 2 == 1] -= 1
                yield replace(answer, outputs=tuple(outputs))

    found = establish(Odd("litert-2.3-ref"), KINDS[:1])
    assert not found.complete
    assert "not in the space" in str(found.findings[0])
    assert "where it gives" in found.findings[0].counterexample


def departing(rule: str) -> str:
    return f'{{"name": "x", "base": "tflm", "rules": {{"ADD": {{"int8": {rule}}}}}}}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a profile in JSON"),
        ('{"name": "x"}', 'needs a "name" and a "base"'),
        ('{"name": "x", "base": "y"}', "no profile 'y' to depart from"),
        (
            '{"name": "x", "base": "tflm", "rules": {"ADD": {"int8": {"method": "magic"}}}}',
            "method is 'magic'",
        ),
        (
            '{"name": "x", "base": "tflm", "rules": {"ADD": {"int8": {"method": "ruy", "block": 8}}}}',
            "together",
        ),
    ],
)
def test_a_wrong_profile_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        profile_named(str(path))
