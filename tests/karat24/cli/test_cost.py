"""What a model costs, beside the paper's figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from karat24 import cost, paper
from karat24.cli import main
from karat24.export.tflite import write_tflite
from karat24.refimpl.networks import fine_tune, tomogan
from tests.support.small_network import small_graph


def test_a_layer_is_counted_by_hand() -> None:
    """8×8 outputs of 5 channels, each over 3×3×3: 8,640 MAC, one more operation per output for the bias."""
    first, second, added, pooled = cost.cost_rows(small_graph())[:4]
    assert (first.op, first.macs, first.operations) == ("CONV_2D", 8640, 2 * 8640 + 320)
    assert (first.parameters, first.activation_bytes) == (5 * 27 + 5, 320)
    assert second.macs == 320 * 45
    assert (added.macs, added.parameters, added.activation_bytes) == (0, 0, 320)
    assert pooled.activation_bytes == 80


def test_totals_are_the_rows_sums() -> None:
    content = cost.describe(small_graph())
    for name in ("macs", "operations", "activation_bytes"):
        assert content[name] == sum(row[name] for row in content["layers"])
    assert "per_image" in content
    assert content["per_image"]["tiles"] == 128 * 128


@pytest.mark.parametrize("size", [64, 1024])
def test_our_networks_cost_what_the_paper_says(size: int) -> None:
    """Fine-Tune to three digits; TomoGAN, whose exact layers the paper does not list, within 2 %."""
    repair = cost.describe(fine_tune(size, size))["per_image"]
    assert round(repair["operations"], -6) == 622_000_000
    assert abs(repair["operations"] - paper.FINE_TUNE_OPERATIONS) < 1_000_000
    denoise = cost.describe(tomogan(size, size, "transposed"))["per_image"]
    assert denoise["tiles"] == (1024 // size) ** 2
    assert abs(denoise["operations_at_output"] / paper.TOMOGAN_OPERATIONS - 1) < 0.02


def test_the_paper_s_totals_are_its_parts() -> None:
    for device in paper.DEVICES[:2]:
        assert device.total == pytest.approx(device.tomogan + device.stitching + device.fine_tune)
        assert device.joules == pytest.approx(device.watts * device.total)
    assert paper.DEVICES[3].joules is None


def test_the_command_prints_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    assert main(["inspect", str(path), "--cost"]) == 0
    out = capsys.readouterr().out
    assert "the paper of 2019, per 1024×1024 image: TomoGAN 301,000,000,000 operations" in out
    assert "Edge TPU, USB accelerator: 0.554 s, 2 W, 1.108 J, 4 TOPS int8" in out
    assert main(["inspect", str(path), "--cost", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["macs"] == 8640
