"""``karat24 seek``: what it writes, and that ``verify`` reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.tflite import read_tflite, write_tflite
from karat24.feeds import stacked_feeds
from tests.support.few_taps import fully_connected, graph_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(graph_of(fully_connected(0, "int8"))))
    return path


def test_a_case_of_two_images_is_two_samples_of_verify(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, report, coverage = (tmp_path / name for name in ("case.npz", "report.json", "coverage.json"))
    command = ["seek", str(model), "--images", "2", "--runs", "40", "--output", str(case)]
    assert main([*command, "--json", str(coverage)]) == 0
    content = json.loads(coverage.read_text())
    (layer,) = content["layers"]
    assert content["images"] == 2
    assert layer["ties"] <= layer["of_ties"]
    assert 0 < layer["ends"] <= layer["of_ends"] == 10
    assert f"{layer['ties']:,} ties of {layer['of_ties']:,}" in capsys.readouterr().out
    with np.load(case) as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {"data": (2, 1, 2)}
    verify = ["verify", str(model), "--delegate", "oracle", "--input", str(case), "--json", str(report)]
    assert main(verify) == 0
    assert json.loads(report.read_text())["samples"] == 2


def test_a_case_of_one_image_is_an_input_of_every_command(model: Path, tmp_path: Path) -> None:
    case = tmp_path / "case.npz"
    assert main(["seek", str(model), "--runs", "9", "--beside", "tflm", "--output", str(case)]) == 0
    assert main(["run", str(model), "--input", str(case)]) == 0
    assert stacked_feeds(read_tflite(model), case) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--profile", "nothing"], "no profile 'nothing'"),
        (["--beside", "ort-1.31"], "this model is .tflite"),
    ],
)
def test_what_cannot_be_done_is_said(
    model: Path, tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["seek", str(model), *options, "--output", str(tmp_path / "case.npz")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "case.npz").exists()
