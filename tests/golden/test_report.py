"""The worst layer decides, and what was not compared never passes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from golden.diff import diff_arrays
from golden.report import LayerVerdict, Report, Verdict

SAME = diff_arrays(np.zeros(4, np.int8), np.zeros(4, np.int8))
OTHER = diff_arrays(np.zeros(4, np.int8), np.array([0, 1, -1, -1], np.int8))


def report(*verdicts: Verdict) -> Report:
    layers = tuple(
        LayerVerdict(
            index, "CONV_2D", index, f"t{index}", "int8", "gemmlowp", verdict,
            {"bit_exact": SAME, "not_compared": None}.get(verdict, OTHER),
        )
        for index, verdict in enumerate(verdicts)
    )  # fmt: skip
    return Report("m", "", "", "litert-ref", "litert-2.3-ref", "isolated", 1, layers, {}, {})


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code", "accepted"),
    [
        (("bit_exact", "bit_exact"), "bit_exact", 0, 0),
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
