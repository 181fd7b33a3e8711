"""The papers' experiments: work that is resumed, statistics by hand, and conclusions that can say no."""

from __future__ import annotations

import argparse
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from benchmarks.papers import powers_report, selective_report, slices_report
from benchmarks.papers.data_sets import read_ts
from benchmarks.papers.statistics import holm, paired
from benchmarks.papers.tasks import Task, keep, kept, run_tasks
from karat24.refimpl.errors import UsageError

BITS = [str(bits) for bits in range(2, 10)]


def square(number: int) -> dict[str, int]:
    return {"square": number * number}


def test_what_is_kept_is_not_done_again(tmp_path: Path) -> None:
    tasks = [Task(f"group/{n}", square, (n,)) for n in range(3)]
    keep(tmp_path, "group/1", {"square": -1})
    said: list[str] = []
    assert run_tasks(tasks, tmp_path, 1, 1, said.append) == 0
    found = kept(tasks, tmp_path)
    assert {name: record["square"] for name, record in found.items()} == {
        "group/0": 0, "group/1": -1, "group/2": 4,
    }  # fmt: skip
    assert found["group/2"]["cpu_seconds"] >= 0
    assert found["group/2"]["wall_seconds"] > 0
    assert said[0].startswith("3 tasks, 1 of them done")
    assert run_tasks(tasks, tmp_path, 0, 1, said.append) == 0


def test_without_a_budget_nothing_begins_and_is_counted_as_left(tmp_path: Path) -> None:
    tasks = [Task(str(n), square, (n,)) for n in range(3)]
    assert run_tasks(tasks, tmp_path, 0, 1, lambda _: None) == 3
    assert kept(tasks, tmp_path) == {}


def busy(seconds: float) -> dict[str, float]:
    begun = time.process_time()
    while time.process_time() < begun + seconds:
        pass
    return {}


def test_the_budget_is_of_processor_time(tmp_path: Path) -> None:
    """The first of three tasks takes all of it, however long it waits for the processor."""
    tasks = [Task(str(n), busy, (0.05,)) for n in range(3)]
    assert run_tasks(tasks, tmp_path, 0.03 / 60, 1, lambda _: None) == 2


def test_an_interval_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, error 1/√3, and Student's t for two degrees of freedom is 4.302653."""
    found = paired([2, 4, 6], [1, 2, 3])
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert found.p == pytest.approx(0.0741799, rel=1e-5)
    assert found.text == "+2.00 [-0.48, +4.48]"
    assert paired([1, 1], [1, 1]).p == 1
    assert paired([2, 2], [1, 1]).low == 1
    for pairs in (([1], [1]), ([1, 2], [1])):
        with pytest.raises(UsageError, match="do not make two pairs"):
            paired(*pairs)


def test_holm_stops_at_the_first_that_is_not_rejected() -> None:
    """Levels 0.05/4, /3, /2, /1: the third, 0.03, is above 0.025, and so the fourth is not looked at."""
    given = {"a": 0.001, "b": 0.016, "c": 0.03, "d": 0.04}
    assert holm(given) == {"a": True, "b": True, "c": False, "d": False}
    assert holm({"a": 0.02, "b": 0.03}) == {"a": True, "b": True}


def test_remembered_retraining_gives_the_bits_of_retraining() -> None:
    """5 and 9 bits round large weights alike, so that one retraining does for both; 2 bits differ at once."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from benchmarks.papers.powers import Memory, remembered
    from training.incremental import quantize_incrementally

    begun = torch.nn.Linear(6, 5)
    with torch.no_grad():
        begun.weight.copy_(torch.linspace(-1, 0.9, 30).reshape(5, 6) ** 3)
    parts: list[int] = []

    def retrain(part: int, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        parts.append(part)
        generator = torch.Generator().manual_seed(part)
        for _ in range(3):
            optimizer.zero_grad()
            module(torch.rand(4, 6, generator=generator)).square().mean().backward()
            optimizer.step()

    def rounded(bits: int, memory: Memory) -> torch.Tensor:
        module = deepcopy(begun)
        quantize_incrementally(module, bits, remembered(retrain, memory), lambda p: torch.optim.Adam(p, 0.05))
        return module.weight.detach()

    alone = {bits: rounded(bits, {}) for bits in (2, 5, 9)}
    assert parts == [0, 1, 2] * 3
    parts.clear()
    memory: Memory = {}
    for bits, expected in alone.items():
        assert torch.equal(rounded(bits, memory), expected)
    assert parts == [0, 1, 2, 0, 1, 2]


# ---- conclusions ----


def powers(width: str, gain: float) -> list[dict]:
    """Four seeds whose every number of bits gains so much over the control, give or take."""
    return [
        {
            "data": "digits", "width": width, "seed": seed, "quick": False, "weights": 10, "test": 100,
            "accuracy": {"float": 80.0, "control": 90.0 + seed}
            | dict.fromkeys(BITS, 90.0 + seed + gain + 0.01 * seed),
        }
        for seed in range(4)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wide", "narrow", "said"),
    [
        (1.0, -1.0, "digits: supported"),
        (1.0, 1.0, "digits: not as claimed"),
        (-1.0, -1.0, "digits: not seen"),
        (-0.015, 1.0, "digits: not seen"),
    ],
)
def test_the_conclusion_about_powers_can_say_no(
    wide: float, narrow: float, said: str, tmp_path: Path
) -> None:
    records = {
        f"{w}{n}": r
        for w, gain in (("wide", wide), ("narrow", narrow))
        for n, r in enumerate(powers(w, gain))
    }
    options = argparse.Namespace(quick=False, folder=tmp_path, left=0)
    text, picture = powers_report.write(records, options, tmp_path / "out")
    content = text.read_text(encoding="utf-8")
    assert said in content
    assert "mnist1d: not all networks have run twice, so there is no conclusion." in content
    assert "A tenth of the training" not in content
    assert picture.is_file()
    assert powers_report.write({"one": records["wide0"]}, options, tmp_path) == []


def selective(gain: float, loss: float) -> dict[str, dict]:
    """Three seeds: at each width but 1 the selective network gains over the single one, and loses to that of
    width 1."""
    one = {"both": 90.0, "selective": 90.0, "perfect": 91.0, "formula": 90.0}
    records: dict[str, dict] = {}
    for seed in range(3):
        value = 90.0 - loss + 0.01 * seed
        narrow = one | {"selective": value, "both": value - gain - 0.02 * seed}
        records[str(seed)] = {
            "data": "digits", "distortion": "blur 1", "seed": seed, "test": 10, "misses": 0.01,
            "false_alarms": 0.02, "widths": {"1.0": one} | dict.fromkeys(("0.75", "0.5", "0.25"), narrow),
        }  # fmt: skip
    return records


@pytest.mark.parametrize(
    ("gain", "loss", "said"),
    [(0.5, 0.5, "supported at width 0.75, 0.5, 0.25"), (0.5, 1.5, "not seen"), (-0.5, 0.5, "not seen")],
)
def test_the_conclusion_about_selective_networks_can_say_no(
    gain: float, loss: float, said: str, tmp_path: Path
) -> None:
    options = argparse.Namespace(quick=True, left=2)
    text, _ = selective_report.write(selective(gain, loss), options, tmp_path)
    content = text.read_text(encoding="utf-8")
    assert f"digits, blur 1: {said}" in content
    assert "false alarms 2.00 %, misses 1.00 %" in content
    assert "3 tasks of one thread took 0 minutes" in content
    assert "Unfinished: 2 tasks are left" in content
    assert "A tenth of the training" in content


def test_errors_of_the_slice_selector_go_into_the_formula(tmp_path: Path) -> None:
    """Of four clean slices one is denoised, of two noisy ones one is missed; all SSIM are of their kind."""
    clean = [{"noisy": False, "score": s, "left": 1.0, "denoised": 0.8, "noise": 0.1} for s in (-1, -1, 0, 2)]
    noisy = [{"noisy": True, "score": s, "left": 0.5, "denoised": 0.9, "noise": 0.2} for s in (3, 0)]
    assert slices_report.rates(clean + noisy) == (0.25, 0.5)
    by_hand = (3 * 1.0 + 0.8 + 0.9 + 0.5) / 6
    assert slices_report.measured(clean + noisy) == pytest.approx(by_hand)
    assert slices_report.formula(clean + noisy, 2 / 6, 0.25, 0.5) == pytest.approx(by_hand)
    record = {"family": "foam", "slices": clean + noisy}
    (path,) = slices_report.write({"a": record}, argparse.Namespace(size=128, left=0), tmp_path)
    assert "**False alarms 25.0 %, misses 50.0 %.**" in path.read_text(encoding="utf-8")
    assert slices_report.write({"a": {"slices": clean}}, argparse.Namespace(size=128, left=0), tmp_path) == []


def test_series_of_a_ts_file_are_cut_and_filled(tmp_path: Path) -> None:
    path = tmp_path / "x.ts"
    long = ",".join(map(str, range(29)))
    path.write_text(f"#about\n@data\n1,2,3:4,5,6:2\n{long}:{long}:3\n")
    series, labels = read_ts(path)
    assert series.shape == (2, 2, 25)
    assert series[0, :, :4].tolist() == [[1, 2, 3, 0], [4, 5, 6, 0]]
    assert series[1, 0].tolist() == list(range(25))
    assert labels.tolist() == [0, 1]
    path.write_text("1,two:1\n")
    with pytest.raises(UsageError, match="no series of numbers"):
        read_ts(path)
    with pytest.raises(UsageError, match="nowhere"):
        read_ts(tmp_path / "nowhere.ts")
