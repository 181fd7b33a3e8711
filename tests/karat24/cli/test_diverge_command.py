"""``karat24 diverge``: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.tflite import write_tflite
from tests.support.few_taps import fully_connected, graph_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(graph_of(fully_connected(0, "int8"))))
    return path


def test_a_difference_is_shown_and_its_inputs_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, report = tmp_path / "case.npz", tmp_path / "report.json"
    command = ["diverge", str(model), "--profiles", "litert-2.3-ref", "litert-2.3-xnnpack"]
    assert main([*command, "--output", str(case), "--json", str(report)]) == 1
    assert "DIVERGES" in capsys.readouterr().out
    content = json.loads(report.read_text())
    (layer,) = content["layers"]
    assert (content["exit_code"], layer["verdict"], layer["how"]) == (1, "diverges", "staircase")
    with np.load(case) as arrays:
        assert {name: value.dtype for name, value in arrays.items()} == {"data": np.dtype(np.int8)}
    outputs = []
    for profile in ("litert-2.3-ref", "litert-2.3-xnnpack"):
        saved = tmp_path / f"{profile}.npz"
        assert (
            main(["run", str(model), "--input", str(case), "--profile", profile, "--save", str(saved)]) == 0
        )
        with np.load(saved) as arrays:
            outputs.append(next(iter(arrays.values()))[tuple(layer["example"]["element"])])
    assert outputs == layer["example"]["outputs"]


def test_one_profile_beside_itself_is_equal(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diverge", str(model), "--profiles", "litert-2.3-ref", "litert-2.3-ref"]) == 0
    assert "EQUAL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--profiles", "litert-2.3-ref", "nothing"], "no profile 'nothing'"),
        (["--profiles", "litert-2.3-ref", "ort-1.31"], "this model is .tflite"),
        (["--profiles", "litert-2.3-ref", "tflm", "--layer", "7"], "no layer 7"),
        (["--profiles", "litert-2.3-ref", "litert-2.3-ref", "--output", "x.npz"], "x.npz is not written"),
    ],
)
def test_what_cannot_be_done_is_said(
    model: Path, options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["diverge", str(model), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()
