"""The worst layer decides, and what was not compared never passes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from karat24.golden.diff import diff_arrays
from karat24.golden.layer_record import LayerRecord
from karat24.golden.report import LayerVerdict, OutputVerdict, Report, Verdict
from karat24.refimpl.bounds import Interval
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array

SAME = diff_arrays(np.zeros(4, np.int8), np.zeros(4, np.int8))
OTHER = diff_arrays(np.zeros(4, np.int8), np.array([0, 1, -1, -1], np.int8))


def report(*verdicts: Verdict) -> Report:
    layers = tuple(
        LayerVerdict(
            index, "CONV_2D", index, f"t{index}", "int8", "gemmlowp", verdict,
            {"bit_exact": SAME, "within_bound": SAME, "not_compared": None}.get(verdict, OTHER),
        )
        for index, verdict in enumerate(verdicts)
    )  # fmt: skip
    outputs = (OutputVerdict(0, "t0", "int8", "bit_exact", SAME),) if layers else ()
    return Report("m", "", "", "litert-ref", "litert-2.3-ref", "isolated", 1, layers, {}, {}, outputs)


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code", "accepted"),
    [
        (("bit_exact", "bit_exact"), "bit_exact", 0, 0),
        (("bit_exact", "within_bound"), "within_bound", 0, 0),
        (("within_bound", "explained"), "explained", 1, 0),
        (("within_bound", "not_compared"), "not_compared", 3, 3),
        (("bit_exact", "explained"), "explained", 1, 0),
        (("bit_exact", "mismatch"), "mismatch", 1, 1),
        (("bit_exact", "not_compared"), "not_compared", 3, 3),
        (("not_compared", "explained"), "not_compared", 1, 3),
        (("not_compared", "explained", "mismatch"), "mismatch", 1, 1),
        ((), "not_compared", 3, 3),
    ],
)
def test_worst_layer_decides(
    verdicts: tuple[Verdict, ...], verdict: Verdict, code: int, accepted: int
) -> None:
    """The last case: a report about no layer at all is no pass."""
    found = report(*verdicts)
    assert found.verdict == verdict
    assert found.exit_code() == code
    assert found.exit_code(accept_explained=True) == accepted


def test_json_and_table_name_the_first_divergence() -> None:
    found = report("bit_exact", "mismatch", "mismatch")
    content = json.loads(found.to_json())
    assert content["first_divergence"] == {"layer": 1, "tensor": 1}
    assert content["layers"][1]["diff"]["histogram"] == {"-1": 2, "0": 1, "1": 1}
    assert content["exit_code"] == 1
    table = found.table()
    assert "-1:2 +1:1" in table
    assert "6 of 12 values differ" in table
    assert "t0" not in table


def judged(*samples: Array) -> LayerVerdict:
    """A float layer's verdict over samples, each between -1 and 1 in every value."""
    builder = GraphBuilder()
    x = builder.input("x", (4,), "float32")
    builder.layer("COS", [x], [builder.tensor("y", (4,), "float32")])
    record = LayerRecord(builder.build([1]).view(0), 0, "unspecified")
    interval = Interval.around(np.zeros(4), np.ones(4))
    for sample in samples:
        record.add_bounded(interval, sample.astype(np.float32))
    return record.verdict()


def test_within_a_bound_says_how_much_of_it_was_used() -> None:
    verdict = judged(np.array([0, 0.5, -0.25, 0]), np.array([0, 0, -0.75, 0]))
    assert verdict.verdict == "within_bound"
    assert verdict.bound is not None
    assert (verdict.bound.elements, verdict.bound.outside, verdict.bound.largest) == (8, 0, 0.75)
    assert "8 of 8 values" in verdict.reason
    assert "0.75 of the way" in verdict.reason
    found = replace(report("bit_exact"), layers=(verdict,))
    content = json.loads(found.to_json())
    assert (content["verdict"], content["exit_code"]) == ("within_bound", 0)
    assert content["layers"][0]["bound"]["largest"] == 0.75
    assert found.summary().startswith("WITHIN_BOUND: ")
    assert "1 within_bound" in found.summary()


def test_one_unit_outside_a_bound_in_any_sample_is_a_mismatch() -> None:
    outside = np.array([0, 0, np.nextafter(np.float32(1), np.float32(2)), 0])
    for samples in ((outside,), (np.ones(4), outside), (outside, np.ones(4))):
        verdict = judged(*samples)
        assert (verdict.verdict, verdict.diff and verdict.diff.mismatch_count) == ("mismatch", 1)
        assert replace(report("bit_exact"), layers=(verdict,)).exit_code() == 1


def test_the_headline_says_why_this_profile_and_what_the_version_lacks_once() -> None:
    note = "onnxruntime 1.33.0 is installed: pip install 'onnxruntime==1.32.*'"
    other = "the input was quantized"
    found = replace(
        report("bit_exact"),
        notes=(note, other),
        profile_reason=f"u8s8 pairs saturate at 16 bits here; {note}",
    )
    assert (
        f"against litert-2.3-ref (u8s8 pairs saturate at 16 bits here; {note}), isolated" in found.summary()
    )
    assert found.table().count(note) == 1
    assert found.table().endswith(f"note: {other}")
    content = json.loads(found.to_json())
    assert content["notes"] == [note, other]
    assert content["profile_reason"].startswith("u8s8 pairs")
    assert "against litert-2.3-ref, isolated" in report("bit_exact").summary()
