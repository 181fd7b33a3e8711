"""``karat quantize``: which steps it takes, and the table of what each gains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from export.quantize.measure import STEPS
from export.tflite import read_tflite
from karat.cli import main

SIZE = ["--height", "32", "--width", "32"]


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Eight tiles of smooth grey, of which two are held out."""
    y, x = np.mgrid[0:64, 0:64] / 64.0
    images = np.stack([np.sin(5 * x + phase) * np.cos(3 * y) for phase in (0.0, 1.0)])
    path = tmp_path / "slices.npy"
    np.save(path, images.astype(np.float32))
    return path


def quantize(slices: Path, *more: str) -> int:
    return main(["quantize", "fine-tune", *SIZE, "--calibration", str(slices), *more])


def test_the_gains_as_a_table_and_as_json(slices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step in both, in order, with the same figures; nothing is written."""
    assert quantize(slices, "--report-gains") == 0
    table = capsys.readouterr().out.splitlines()
    assert quantize(slices, "--report-gains", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in rows] == list(STEPS)
    for line, row in zip(table[2:], rows, strict=True):
        assert line.startswith(row["step"])
        assert f"{row['deviation']['snr_db']:.2f} dB" in line
        assert line.endswith("dropped") != row["kept"]
    assert rows[-1]["scheme"]["filter_ranges"] == "mse"


def test_steps_change_what_is_written(slices: Path, tmp_path: Path) -> None:
    """Each switch against the preset's own choice: another file, of the same layers."""
    files = {}
    for name, switches in {
        "preset": [],
        "again": [],
        "ranges": ["--ranges", "percentile"],
        "equalized": ["--equalize"],
        "uncorrected": ["--no-correct-bias"],
    }.items():
        path = tmp_path / f"{name}.tflite"
        assert quantize(slices, "--output", str(path), *switches) == 0
        files[name] = path.read_bytes()
    assert files.pop("again") == files["preset"]
    assert len(set(files.values())) == 4
    assert len({tuple(layer.op for layer in read_tflite(file).layers) for file in files.values()}) == 1


def test_filter_ranges_change_filters_of_many_weights(tmp_path: Path) -> None:
    """1152 weights to a channel have tails worth clipping; the nine of Fine-Tune have none."""
    path = tmp_path / "noise.npy"
    np.save(path, np.random.default_rng(0).random((1, 16, 16, 3), np.float32))
    graphs = []
    for choice in ("minmax", "mse"):
        output = tmp_path / f"{choice}.tflite"
        arguments = ["quantize", "tomogan", "--height", "16", "--width", "16", "--calibration", str(path)]
        assert main([*arguments, "--filter-ranges", choice, "--output", str(output)]) == 0
        graphs.append(read_tflite(output.read_bytes()))
    plain, clipped = (
        [t.quantization.scale for t in graph.tensors if t.name.endswith("/filter")] for graph in graphs
    )
    assert any(
        a > b for one, other in zip(plain, clipped, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_best_writes_what_the_report_found(slices: Path, tmp_path: Path) -> None:
    best, plain = tmp_path / "best.tflite", tmp_path / "plain.tflite"
    assert quantize(slices, "--best", "--output", str(best)) == 0
    assert quantize(slices, "--no-correct-bias", "--filter-ranges", "minmax", "--output", str(plain)) == 0
    assert best.read_bytes() != plain.read_bytes()


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        ([], "nothing to do"),
        (["--json", "--output", "x.tflite"], "--json prints the gains"),
        (["--report-gains", "--json", "--output", "x.tflite"], "--json prints the gains"),
        (["--best", "--ranges", "mse", "--output", "x.tflite"], "--best chooses"),
        (["--best", "--no-equalize", "--output", "x.tflite"], "--best chooses"),
        (["--report-gains", "--output", "x.onnx"], "written as .tflite"),
        (["--report-gains", "--height", "64", "--width", "64"], "takes at least 4"),
    ],
)
def test_wrong_use_is_one_line(
    switches: list[str], said: str, slices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tiles of 64×64 leave none to hold out."""
    assert quantize(slices, *switches) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
