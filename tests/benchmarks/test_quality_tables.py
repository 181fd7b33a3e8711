"""Figures and tables: means by hand, markers replaced and never doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quality import tables
from benchmarks.quality.latency import PAPER, Latency, table_of
from benchmarks.quality.summary import counts, row
from refimpl.errors import UsageError

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


def test_markers_are_replaced_not_doubled(tmp_path: Path) -> None:
    """Twice the same table leaves the document as after once; what stands around it stays."""
    document = tmp_path / "README.md"
    document.write_text(
        "before\n<!-- quality: schemes -->\nold\n\nolder\n<!-- end of quality: schemes -->\nafter \\1\n"
    )
    made = {"schemes": "| new \\1 |\n", "families": "absent"}
    assert tables.render(document, made) == ["schemes"]
    once = document.read_text()
    assert once == (
        "before\n<!-- quality: schemes -->\n| new \\1 |\n<!-- end of quality: schemes -->\nafter \\1\n"
    )
    tables.render(document, made)
    assert document.read_text() == once


def test_a_document_without_markers_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("nothing here\n")
    with pytest.raises(UsageError, match="no place for a table"):
        tables.render(document, {"schemes": ""})
    document.write_text("<!-- quality: schemes -->\nnever closed\n")
    with pytest.raises(UsageError, match="not followed by"):
        tables.render(document, {"schemes": ""})
    assert document.read_text() == "<!-- quality: schemes -->\nnever closed\n"


def test_the_latency_table_stands_beside_the_papers() -> None:
    """The paper's parts add up to its totals; a runtime that differs from the oracle is marked."""
    medians = {"x": {"tomogan": 0.5, "stitching": 0.1, "fine_tune": 0.2, "total": 0.81}}
    text = table_of(Latency(1024, 2, 3, medians, {"x": 7}))
    assert "| x | 0.500 | 0.100 | 0.200 | 0.810 (differs) |" in text
    assert "| Edge TPU, USB accelerator (2019) | 0.435 | 0.049 | 0.070 | 0.554 |" in text
    assert "| Edge TPU, Dev Board (2019) | 0.512 | 0.120 | 0.166 | 0.798 |" in text
    assert len(PAPER) == 4
