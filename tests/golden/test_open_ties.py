"""TensorRT leaves exact ties to the kernel it picks: excused by name, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from karat24.delegates.oracle import OracleDelegate
from karat24.delegates.protocol import DelegateRun, Job
from karat24.export.onnx import read_onnx
from karat24.golden.recordings.judge import verify_recorded
from karat24.golden.verify import verify
from karat24.refimpl.errors import DelegateError
from karat24.refimpl.graph import Array
from tests.cases.onnx_ops import OnnxCase, ties


class Wrong(OracleDelegate):
    """The oracle, with one step added to some values."""

    def __init__(self, profile: str, at: Array, step: int) -> None:
        super().__init__(profile)
        self._at, self._step = at, step

    def run_many(self, jobs: Iterable[Job], **options: object) -> Iterator[DelegateRun | DelegateError]:
        for answer in super().run_many(jobs):
            assert isinstance(answer, DelegateRun)
            output = answer.outputs[0].copy()
            output[self._at] += output.dtype.type(self._step)
            yield DelegateRun(answer.trace, (output,))


def case() -> OnnxCase:
    return next(case for case in ties() if case.name == "ties_int8_3")


def some_ties(beside: int) -> Array:
    """Two elements whose sums lie ``beside`` a tie: channel o has the sum ``o - 1100 + x``."""
    at = np.zeros((1, 2201, 2, 3), bool)
    at[0, [1102 + beside, 1110 + beside], 1, 0] = True
    return at


VERDICTS = pytest.mark.parametrize(
    ("profile", "beside", "step", "verdict"),
    [
        ("tensorrt", 0, -1, "explained"),
        ("tensorrt", 1, -1, "mismatch"),
        ("tensorrt", 0, -2, "mismatch"),
        ("ort-1.31", 0, -1, "mismatch"),
    ],
)


@VERDICTS
def test_a_recording_is_judged_likewise(profile: str, beside: int, step: int, verdict: str) -> None:
    given = case()
    graph = read_onnx(given.model)
    output = OracleDelegate(profile).run(given.model, given.feeds).outputs[0].copy()
    output[some_ties(beside)] += output.dtype.type(step)
    dump = {graph.outputs[0]: output}
    report = verify_recorded(given.model, graph, dump, given.feeds, profile=profile, threads=1)
    assert [layer.verdict for layer in report.layers] == [verdict]


@VERDICTS
def test_only_one_step_on_exact_ties_is_excused(profile: str, beside: int, step: int, verdict: str) -> None:
    """Sums 2 and 10 are 0.5 and 2.5: ties. Beside them, two steps off, or elsewhere is a mismatch."""
    given = case()
    wrong = Wrong(profile, some_ties(beside), step)
    report = verify(given.model, read_onnx(given.model), wrong, [given.feeds], profile=profile, threads=1)
    assert [layer.verdict for layer in report.layers] == [verdict]
    if verdict == "explained":
        assert "exact ties" in report.layers[0].reason
        assert report.layers[0].tie_distance == 0
