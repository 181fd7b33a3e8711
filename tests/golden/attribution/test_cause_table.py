"""Every mistake, in three architectures and three depths of each: cause, place and layer are named.

A mistake that changes no value of the layer cannot be seen, and then nothing may be named; one whose values
another profile gives, too, is explained by that profile. The other cells are counted, so that the table
cannot grow empty.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from karat24.golden.recordings.judge import verify_recorded
from karat24.golden.report import LayerVerdict, Report
from karat24.refimpl.graph import Array
from tests.support.int8_networks import NETWORKS
from tests.support.mistake_table import MISTAKES, Row, rounding
from tests.support.mistakes import PROFILE, causes, judged, sound

PLACES = [
    *(("plain", layer) for layer in (0, 2, 4)),
    *(("residual", layer) for layer in (0, 2, 5)),
    *(("mobile", layer) for layer in (0, 3, 5)),
]
"""Networks and their layers at the front, in the middle and at the back: 3x3 convolutions, of which the two
behind the first of ``mobile`` are depthwise."""

LEAST_SEEN = 40
"""Mistakes that must be seen, and named, in every place."""


def report_of(name: str, layer: int, row: Row) -> Report:
    if row.kind != "stale model":
        return judged(name, layer, row.mistake, row.ties)
    run, old = sound(name), NETWORKS[name](seed=77)
    wrong = {run.graph.view(layer).output().index: wrong_output(name, layer, row)}
    trace = run.program.run(run.feeds, trace=True, given=wrong).trace
    assert trace is not None
    return verify_recorded(
        run.model, run.graph, dict(trace.tensors), run.feeds, profile=PROFILE, threads=1,
        others=[("old.tflite", old)],
    )  # fmt: skip


def wrong_output(name: str, layer: int, row: Row) -> Array:
    run = sound(name, row.ties)
    view = run.graph.view(layer)
    inputs = [run.tensors[t.index] if t.data is None else t.data for t in view.inputs if t is not None]
    return row.mistake(run.graph, view, inputs)


def require_explained(name: str, layer: int, row: Row, verdict: LayerVerdict, label: str) -> None:
    """A profile is named that gives the very values of this layer; it comes before mistakes that do so."""
    assert verdict.attribution is None, label
    said = re.match(r"every value equals (\S+): ", verdict.reason)
    assert said is not None, (label, verdict.reason)
    named = rounding(said[1])(sound(name, row.ties).graph.view(layer))
    assert named is not None
    given = wrong_output(name, layer, replace(named, ties=row.ties))
    assert np.array_equal(given, wrong_output(name, layer, row)), label


def require_named(row: Row, verdict: LayerVerdict, label: str) -> None:
    """The mistake is named with its place, and no other kind is: these values allow no other."""
    assert verdict.verdict == "mismatch", label
    found = causes(verdict)
    assert list(found) == [row.kind], (label, verdict.reason)
    assert any(place.endswith(row.place) or row.place in place for place in found[row.kind]), (label, found)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), PLACES)
def test_every_mistake_is_named(name: str, layer: int) -> None:
    seen = 0
    for label, make in MISTAKES.items():
        row = make(sound(name).graph.view(layer))
        if row is None:
            continue
        row = make(sound(name, row.ties).graph.view(layer)) or row
        report = report_of(name, layer, row)
        wrong = [verdict for verdict in report.layers if verdict.origin == "introduced"]
        if not wrong:
            assert report.exit_code() == 0, label
            continue
        assert [verdict.layer for verdict in wrong] == [layer], label
        assert report.exit_code() == 1
        if wrong[0].verdict == "explained":
            require_explained(name, layer, row, wrong[0], label)
            continue
        require_named(row, wrong[0], label)
        seen += 1
    assert seen >= LEAST_SEEN
