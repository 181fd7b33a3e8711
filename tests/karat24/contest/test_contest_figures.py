"""The arithmetic of a contest: quartiles, ratios, shares, verdicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from karat24.contest.figures import Contest, Entry, Parity, Quartiles, layer_times, ratios
from karat24.contest.runner import MOST_PER_TURN, _bits, _untimed, runs_per_turn
from karat24.contest.table import seconds_text, table, trace_costs


def entry(name: str, kind: str, seconds: list[float], **more: Any) -> Entry:
    quartiles = Quartiles.of(seconds) if seconds else None
    return replace(
        Entry(
            name, kind, "p", "tflite", "", 1, False, {}, seconds, quartiles, 0.0, None, 0, None, None, None,
            "", "",
        ),
        **more,
    )  # fmt: skip


def contest(entries: list[Entry], parity: list[Parity]) -> Contest:
    return Contest(
        "m", "0", 1_000_000, 10, 1, parity, entries, ratios(entries), {}, {"cpu": "c"}, {}, "2026-01-01"
    )


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([2.0], (2.0, 2.0, 2.0)),
        ([3.0, 1.0], (1.5, 2.0, 2.5)),
        ([5.0, 1.0, 2.0, 4.0, 3.0], (2.0, 3.0, 4.0)),
    ],
)
def test_quartiles(seconds: list[float], expected: tuple[float, float, float]) -> None:
    """One run, an even and an odd number of them; order must not matter."""
    found = Quartiles.of(seconds)
    assert (found.lower, found.median, found.upper) == expected


def test_a_ratio_is_the_runtime_over_the_oracle() -> None:
    """Medians, not means: one slow run changes nothing. Not for a trace, nor of somebody stopped."""
    found = ratios(
        [
            entry("a", "oracle", [1.0, 2.0, 100.0]),
            entry("b", "oracle", [4.0]),
            entry("a traced", "oracle", [5.0], traced=True),
            entry("x", "tflite", [3.0]),
            entry("y", "onnx", []),
        ]
    )
    assert [(r.oracle, r.runtime, r.ratio) for r in found] == [("a", "x", 1.5), ("b", "x", 0.75)]


def test_the_cost_of_a_trace() -> None:
    entries = [entry("oracle p", "oracle", [2.0]), entry("oracle p traced", "oracle", [3.0], traced=True)]
    held = contest(entries, [])
    assert trace_costs(held) == [("oracle p", 1.5)]
    assert "every tensor kept / none, oracle p: 1.50" in table(held)


def test_layers_share_out_the_whole() -> None:
    found = layer_times(
        [
            {"layer": 0, "name": "", "op": "CONV_2D", "seconds": 0.003},
            {"layer": 1, "name": "", "op": "ADD", "seconds": 0.001},
            {"layer": None, "name": "fused", "op": "Conv", "seconds": 0.004},
        ],
        {0: 6_000_000},
    )
    assert [layer.share for layer in found] == pytest.approx([0.375, 0.125, 0.5])
    assert [layer.gmac_per_s for layer in found] == pytest.approx([2.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("verdicts", "stopped", "code"),
    [
        (["equal"], "", 0),
        ([], "", 0),
        (["equal", "differs", "not_compared"], "", 1),
        (["not_compared"], "", 3),
        (["equal"], "it died", 3),
        (["differs"], "it died", 1),
    ],
)
def test_the_worst_verdict_decides(verdicts: list[str], stopped: str, code: int) -> None:
    parity = [Parity("o", "r", "p", 1, 1, verdict, "") for verdict in verdicts]
    assert contest([entry("r", "tflite", [], stopped=stopped)], parity).exit_code == code


def test_bits_are_compared_not_values() -> None:
    """A NaN equals itself, -0.0 is not 0.0, and a scalar has one element."""
    nan = np.array([np.nan, 0.0], np.float32)
    assert (_bits(nan) == _bits(nan.copy())).all()
    assert (_bits(nan) != _bits(np.array([np.nan, -0.0], np.float32))).any(axis=-1).tolist() == [False, True]
    assert _bits(np.array(3, np.int8)).shape == (1, 1)


@pytest.mark.parametrize(
    ("seconds", "runs"), [(0.0, MOST_PER_TURN), (1e-5, MOST_PER_TURN), (0.01, 10), (0.09, 1), (60.0, 1)]
)
def test_small_models_run_several_times_in_a_turn(seconds: float, runs: int) -> None:
    assert runs_per_turn(seconds) == runs


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.345, "12.3 s"), (0.0123, "12.3 ms"), (45e-6, "45 µs"), (1.0, "1 s")]
)
def test_seconds_in_a_fitting_unit(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_a_contestant_is_found_by_name() -> None:
    """Neither the first nor the last one."""
    found = contest([entry("a", "oracle", [1.0]), entry("b", "tflite", [2.0]), entry("c", "onnx", [3.0])], [])
    assert found.entry("b").seconds == [2.0]


@pytest.mark.parametrize(("runs", "untimed"), [(1, 0), (2, 1), (9, 1), (10, 2), (50, 10)])
def test_a_turn_of_several_runs_begins_with_untimed_ones(runs: int, untimed: int) -> None:
    assert _untimed(runs) == untimed
