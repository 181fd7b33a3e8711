"""Reports made by hand, with verdicts as asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from karat24.golden.diff import diff_arrays
from karat24.golden.report import LayerVerdict, OutputVerdict, Report, Verdict


def layer(index: int, verdict: Verdict) -> LayerVerdict:
    """Four values, one of them 3 steps off where the verdict says that something differs."""
    expected = np.zeros(4, np.int8)
    found = expected.copy()
    found[2] = 3 if verdict in ("mismatch", "explained") else 0
    diff = None if verdict == "not_compared" else diff_arrays(expected, found)
    reason = "" if verdict == "bit_exact" else f"why it is {verdict}"
    return LayerVerdict(
        index, "CONV_2D", index + 10, f"tensor {index}", "int8", "gemmlowp", verdict, diff, reason
    )


def small_report(verdicts: Sequence[Verdict]) -> Report:
    """A layer per verdict, and an output that is exact."""
    output = OutputVerdict(99, "y", "int8", "bit_exact", layer(0, "bit_exact").diff)
    return Report(
        model="model.tflite",
        model_sha256="0" * 64,
        feeds_sha256="1" * 64,
        delegate="litert-ref",
        profile="litert-2.3-ref",
        mode="isolated",
        samples=1,
        layers=tuple(layer(index, verdict) for index, verdict in enumerate(verdicts)),
        versions={"ai-edge-litert": "2.3.0"},
        machine={"machine": "x86_64", "system": "Linux", "cpu": "any"},
        outputs=(output,),
        notes=("a note",),
    )
