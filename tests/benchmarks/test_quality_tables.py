"""Figures and tables of restoration quality: means by hand, and what stands in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quality import tables
from benchmarks.quality.latency import PAPER, Latency, table_of
from benchmarks.quality.summary import counts, row

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "quality.md"
NONE = {"bright": {"present": 0, "lost": 0, "invented": 0}, "dark": {"present": 4, "lost": 1, "invented": 2}}


def entry(ssim: float, psnr: float = 20.0) -> dict[str, object]:
    return {"ssim": ssim, "psnr": psnr, "inclusions": NONE}


ENTRIES = {
    "noisy": {"rock-000": entry(0.3), "rock-001": entry(0.5), "bone-000": entry(0.4)},
    "float whole": {"rock-000": entry(0.8, 30), "rock-001": entry(0.9, 34), "bone-000": entry(0.7, 26)},
    "int8 whole": {"rock-000": entry(0.79), "rock-001": entry(0.91), "bone-000": entry(0.67)},
    "int8 tflm": {"rock-000": entry(0.78)},
}


def test_means_gains_and_the_worst_slice() -> None:
    found = row(ENTRIES, "int8 whole")
    assert found.ssim == pytest.approx(0.79)
    assert found.gain == pytest.approx(0.39)
    assert found.to_float == pytest.approx(-0.01)
    assert (found.worst, found.worst_ssim, found.slices) == ("bone-000", 0.67, 3)
    assert row(ENTRIES, "float whole").psnr == pytest.approx(30)


def test_a_few_slices_are_compared_with_the_same_few() -> None:
    """The profile saw one slice; the difference to the canonical one is over that slice alone."""
    text = tables.profiles(ENTRIES)
    assert "| `tflm` | 0.78000 (-0.01000) |" in text
    assert "| `litert-2.3-ref` | 0.79000 |" in text


def test_counts_are_sums() -> None:
    found = counts(ENTRIES, "noisy", ["rock-000", "bone-000"])
    assert found["dark"] == {"present": 8, "kept": 6, "lost": 2, "invented": 4}
    assert "| noisy input | 0 / 0 / 0 | 9 / 3 / 6 | 0 / 0 / 0 | 3 / 1 / 2 |" in tables.inclusions(ENTRIES)


def test_every_table_is_made() -> None:
    text = tables.report(ENTRIES)
    assert all(f"<!-- quality: {name} -->" in text for name in tables.TABLES)
    assert "| float, whole image | 0.8000 | +0.4000 | +0.0000 | 30.00 | 0.700 (bone-000) |" in text
    assert "| **bone** (1) | 0.4000 |" in text


def rows(path: Path, place: str) -> list[str]:
    """The rows of the table at a marked place, without its two heading lines."""
    text = path.read_text(encoding="utf-8").partition(f"<!-- {place} -->")[2]
    table = text.partition(f"<!-- end of {place} -->")[0]
    return [line for line in table.splitlines() if line.startswith("|")][2:]


def test_the_readme_quotes_the_results() -> None:
    """Each row of the README's table holds figures of the row with the same title in the full table."""
    quoted, kept = rows(ROOT / "README.md", "quality: in short"), rows(RESULTS, "quality: schemes")
    assert len(quoted) == len(tables.IN_SHORT)
    full = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in kept}
    for line in quoted:
        _, title, ssim, to_float, psnr, _ = (cell.strip() for cell in line.split("|"))
        assert [ssim, to_float, psnr] == [full[title][2], full[title][4], full[title][5]], title


def test_the_latency_table_stands_beside_the_papers() -> None:
    """The paper's parts add up to its totals; a runtime that differs from the oracle is marked."""
    medians = {"x": {"tomogan": 0.5, "stitching": 0.1, "fine_tune": 0.2, "total": 0.81}}
    text = table_of(Latency(1024, 2, 3, medians, {"x": 7}))
    assert "| x | 0.500 | 0.100 | 0.200 | 0.810 (differs) |" in text
    assert "| Edge TPU, USB accelerator (2019) | 0.435 | 0.049 | 0.070 | 0.554 |" in text
    assert "| Edge TPU, Dev Board (2019) | 0.512 | 0.120 | 0.166 | 0.798 |" in text
    assert len(PAPER) == 4
