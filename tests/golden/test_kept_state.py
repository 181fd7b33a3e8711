"""Samples as one sequence: the runtime and the oracle keep what the run before left in variables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karat24.cli.main import main
from karat24.delegates import delegate_named
from karat24.export.tflite import read_tflite, write_tflite
from karat24.golden.report import Mode, Report
from karat24.golden.verify import verify
from karat24.refimpl.errors import DelegateError, UsageError
from karat24.refimpl.graph import Array
from tests.cases import recurrent
from tests.cases.case import Case
from tests.cases.lstm import Lstm
from tests.support.small_network import small_graph

CASES: dict[str, Callable[[], Case]] = {
    "svdf": lambda: recurrent.svdf("kept"),
    "lstm": lambda: Lstm("kept", cells=17, outputs=17, steps=2).case(),
}


def _samples(case: Case, count: int = 4) -> list[list[Array]]:
    rng = np.random.default_rng(11)
    (fed,) = case.feeds
    return [[rng.integers(-128, 128, fed.shape).astype(fed.dtype)] for _ in range(count)]


def _verify(case: Case, delegate: Any, mode: Mode = "isolated", keep_state: bool = True) -> Report:
    content = write_tflite(case.graph)
    return verify(
        content, read_tflite(content), delegate, _samples(case), mode=mode, threads=1, keep_state=keep_state
    )


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize("lane", ["litert-ref", "litert-xnnpack", "tflm"])
@pytest.mark.parametrize("case", CASES)
def test_a_sequence_is_judged(case: str, lane: str, mode: Mode) -> None:
    with delegate_named(lane, time_limit=60.0) as delegate:
        if not delegate.probe().available:
            pytest.skip(f"{lane}: {delegate.probe().reason}")
        report = _verify(CASES[case](), delegate, mode)
    assert report.exit_code() == 0, report.table()
    assert report.samples == 4
    assert any("one sequence" in note for note in report.notes)


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
def test_a_runtime_that_forgets_is_found_out(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    with delegate_named("litert-ref", time_limit=60.0) as delegate:

        def forget(model: Any, feeds: Any, *, first: bool, **how: Any) -> Any:
            return delegate.run(model, feeds, **how)

        monkeypatch.setattr(delegate, "run_in_sequence", forget)
        assert _verify(CASES["lstm"](), delegate, mode).exit_code() == 1
        assert _verify(CASES["lstm"](), delegate, mode, keep_state=False).exit_code() == 0


def test_a_runtime_that_forgets_in_the_whole_model_only_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer cut out, whose file is in memory, keeps its state; the unchanged file does not."""
    case, path = CASES["lstm"](), tmp_path / "lstm.tflite"
    path.write_bytes(write_tflite(case.graph))
    with delegate_named("litert-ref", time_limit=60.0) as delegate:
        kept = delegate.run_in_sequence

        def forget(model: Any, feeds: Any, *, first: bool, **how: Any) -> Any:
            return kept(model, feeds, first=first or isinstance(model, Path), **how)

        monkeypatch.setattr(delegate, "run_in_sequence", forget)
        report = verify(path, read_tflite(path), delegate, _samples(case), threads=1, keep_state=True)
    assert report.exit_code() == 1
    assert not any(layer.differs for layer in report.layers)


def test_a_lost_state_is_an_error_and_no_first_state() -> None:
    models = [write_tflite(Lstm(edge).case().graph) for edge in ("a", "b", "c")]
    feeds = _samples(Lstm("a").case(), 1)[0]
    with delegate_named("litert-ref", time_limit=60.0) as delegate:
        delegate.run_in_sequence(models[0], feeds, first=True, tensors="outputs")
        for model in models[1:]:
            delegate.run(model, feeds, tensors="outputs")
        with pytest.raises(DelegateError, match="is lost"):
            delegate.run_in_sequence(models[0], feeds, first=False, tensors="outputs")


def test_what_cannot_keep_a_state_is_a_usage_error() -> None:
    with delegate_named("oracle") as oracle, pytest.raises(UsageError, match="cannot keep variables"):
        _verify(CASES["svdf"](), oracle)
    graph = small_graph()
    with delegate_named("litert-ref") as delegate, pytest.raises(UsageError, match="no variables"):
        verify(write_tflite(graph), graph, delegate, [], keep_state=True)


def test_the_command_keeps_the_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lstm.tflite"
    path.write_bytes(write_tflite(CASES["lstm"]().graph))
    command = ["verify", str(path), "--delegate", "litert-ref", "--samples", "3", "--threads", "1"]
    assert main([*command, "--keep-state"]) == 0
    assert "one sequence" in capsys.readouterr().out
    assert main([*command, "--keep-state", "--against", "litert-builtin"]) == 2
