"""The command line on .onnx files."""

from __future__ import annotations

from pathlib import Path

import pytest

from export import read_model
from export.onnx import write_quantized_onnx
from export.tflite import write_tflite
from karat.cli import main
from tests.support.small_network import small_graph


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    return path


@pytest.mark.parametrize(("flavour", "op"), [("qdq", "Conv"), ("qoperator", "QLinearConv")])
def test_export_and_inspect(
    model: Path, flavour: str, op: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The .onnx holds the flavour asked for; inspect lists its layers with scales and zero points."""
    target = tmp_path / "small.onnx"
    assert main(["export", str(model), "--output", str(target), "--flavour", flavour]) == 0
    assert op in {layer.op for layer in read_model(target).layers}
    capsys.readouterr()
    assert main(["inspect", str(target)]) == 0
    shown = capsys.readouterr().out
    assert f"  {op} " in shown
    assert "int8 1x5x8x8 scale 0.0234375 zero point -128  'first'" in shown


def test_pieces_of_onnx_models(model: Path, tmp_path: Path) -> None:
    """Read, cut, written again: layer 0 of the QOperator file alone."""
    whole, piece = tmp_path / "small.onnx", tmp_path / "piece.onnx"
    whole.write_bytes(write_quantized_onnx(small_graph(), "qoperator"))
    assert main(["export", str(whole), "--layer", "0", "--output", str(piece)]) == 0
    (layer,) = read_model(piece).layers
    assert layer.op == "QLinearConv"


def test_what_cannot_be_exported(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "small.onnx"
    assert main(["export", str(model), "--output", str(target), "--flavour", "tensorrt"]) == 2
    assert "int8-symmetric" in capsys.readouterr().err
    assert not target.exists()


def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.onnx"
    for content in (b"", b"\x00" * 64, b"PK\x03\x04 not a model", write_tflite(small_graph())):
        path.write_bytes(content)
        assert main(["inspect", str(path)]) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        assert "odd.onnx" in errors
