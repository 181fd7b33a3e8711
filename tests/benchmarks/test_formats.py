"""The contest of both formats: turns are paired, and every turn is a run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.formats import BothFormats, time_both
from benchmarks.models import Model
from karat24.refimpl.graph import Graph
from tests.support.small_network import small_graph


def test_turns_are_paired() -> None:
    """Ratios of neighbouring turns have another median than the turns: 1.25, not 1.5."""
    times = BothFormats("any", (1.0, 2.0, 4.0), (3.0, 2.0, 5.0))
    assert times.ratio == 1.25
    assert times.best == 2.0


@dataclass(frozen=True)
class _Small(Model):
    def quantized(self) -> Graph:
        return small_graph()


def test_both_formats_of_a_network_are_timed() -> None:
    times = time_both(_Small("small"), threads=1, rounds=2)
    assert len(times.tflite) == len(times.onnx) == 2
    assert min(*times.tflite, *times.onnx) > 0.0
