"""What a model costs, beside the paper's figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from karat24 import cost, paper
from karat24.cli import main
from karat24.export.quantize import PRESETS, quantize_model
from karat24.export.tflite import write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.networks import fine_tune, tomogan
from karat24.refimpl.networks.pruning import prune
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


def test_energy_of_a_networks_weights() -> None:
    """Fine-Tune at 8×8: 144 and 144 weights, each moved for 208 and once for each of a row's 8 pixels."""
    found = cost.describe(fine_tune(8, 8))["data_access"]
    assert (found["weights"], found["nonzero"]) == (288, 288)
    assert found["macs"] == {"executed": 288 * 64, "block-input": 288 * 64}
    assert {reading: amounts["16 bits"] for reading, amounts in found["energy"].items()} == {
        "row": 288 * 216, "once": 288 * 209, "image": 288 * 272,
    }  # fmt: skip


def test_zeros_and_twelve_bits_cost_less() -> None:
    energy = cost.describe(prune(fine_tune(8, 8), 0.75))["data_access"]["energy"]["row"]
    assert energy == {
        "16 bits": 288 * 216,
        "16 bits, without zeros": 72 * 216,
        "12 bits, without zeros": 72 * 216 * 12 / 16,
    }  # fmt: skip


def test_a_zero_of_an_unsigned_filter_is_its_zero_point() -> None:
    graph = prune(fine_tune(8, 8), 0.75)
    samples = [np.random.default_rng(1).random((1, 8, 8, 1), np.float32)]
    unsigned = quantize_model(graph, samples, PRESETS["uint8-2019"].without_steps())
    signed = quantize_model(graph, samples, PRESETS["int8"].without_steps())
    filters = [t for t in unsigned.tensors if t.name.endswith("/filter")]
    assert {t.dtype for t in filters} == {"uint8"}
    assert all(t.zero_point > 0 for t in filters)
    for quantized in (unsigned, signed):
        assert 0 < cost.data_access(quantized)["nonzero"] <= 72


def test_a_computed_filter_has_no_cost_of_data_access() -> None:
    builder = GraphBuilder("computed")
    x = builder.input("x", (1, 4), "float32")
    filter_ = builder.input("filter", (2, 4), "float32")
    y = builder.layer(
        "FULLY_CONNECTED", (x, filter_), (builder.tensor("y", (1, 2), "float32"),),
        fused_activation_function="NONE",
    )  # fmt: skip
    content = cost.describe(builder.build([y]))
    assert "'filter' is not a constant" in content["data_access"]["problem"]
    assert any(line.startswith("energy of data access: not counted") for line in cost.lines(content))


def test_the_command_prints_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    assert main(["inspect", str(path), "--cost"]) == 0
    out = capsys.readouterr().out
    assert "the paper of 2019, per 1024×1024 image: TomoGAN 301,000,000,000 operations" in out
    assert "Edge TPU, USB accelerator: 0.554 s, 2 W, 1.108 J, 4 TOPS int8" in out
    assert re.search(r"energy of moving weights, in MAC, reading 'row': [\d,]+ in 16 bits", out)
    assert main(["inspect", str(path), "--cost", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["macs"] == 8640
