"""The command line on .onnx files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export import read_model
from karat24.export.onnx import write_quantized_onnx
from karat24.export.tflite import write_tflite
from tests.support.onnx_sketches import Sketch
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


@pytest.fixture
def quantized_twice(tmp_path: Path) -> dict[str, Path]:
    """One small model in both forms."""
    paths = {}
    for form in ("qdq", "qoperator"):
        paths[form] = tmp_path / f"{form}.onnx"
        paths[form].write_bytes(write_quantized_onnx(small_graph(), form))  # type: ignore[arg-type]
    return paths


def test_an_onnx_model_is_exported_with_integer_ops(quantized_twice: dict[str, Path], tmp_path: Path) -> None:
    """The QDQ file's convolutions become QLinearConv; asked for nothing, or for QDQ, it stays as it is."""
    target = tmp_path / "target.onnx"
    base = ["export", str(quantized_twice["qdq"]), "--output", str(target)]
    assert main([*base, "--flavour", "qoperator"]) == 0
    before, after = (
        [layer.op for layer in read_model(path).layers] for path in (quantized_twice["qdq"], target)
    )
    assert before.count("QLinearConv") == 0 < after.count("QLinearConv")
    assert before.count("Conv") == after.count("Conv") + after.count("QLinearConv")
    for more in ([], ["--flavour", "qdq"]):
        assert main([*base, *more]) == 0
        assert read_model(target).layers == read_model(quantized_twice["qdq"]).layers


@pytest.mark.parametrize(
    ("form", "flavour"), [("qoperator", "qdq"), ("qdq", "tensorrt"), ("qoperator", "tensorrt")]
)
def test_a_flavour_an_onnx_model_cannot_have_is_refused(
    form: str,
    flavour: str,
    quantized_twice: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "target.onnx"
    assert main(["export", str(quantized_twice[form]), "--output", str(target), "--flavour", flavour]) == 2
    errors = capsys.readouterr().err
    assert f"--flavour {flavour}" in errors
    assert ".tflite model it was made of" in errors
    assert not target.exists()


def test_a_flavour_of_what_is_not_quantized_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--height", "16", "--width", "16"]
    target = tmp_path / "tomogan.onnx"
    assert main(["export", "tomogan", *size, "--output", str(target), "--flavour", "qdq"]) == 2
    assert "this one is float" in capsys.readouterr().err
    assert main(["export", "tomogan", *size, "--output", str(target)]) == 0
    assert main(["export", str(target), "--output", str(target), "--flavour", "qoperator"]) == 2
    assert "this one is float" in capsys.readouterr().err
    assert main(["export", str(target), "--output", str(tmp_path / "x.tflite"), "--flavour", "qdq"]) == 2


def test_an_axis_left_out_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A square filter with a scale per channel; with an axis, or another shape, there is nothing to say."""
    path = tmp_path / "square.onnx"
    for shape, attributes, said in (
        ((3, 3, 1, 1), {}, True),
        ((3, 3, 1, 1), {"axis": 0}, False),
        ((4, 3, 1, 1), {}, False),
    ):
        s = Sketch()
        scales, zeros = s.constant(np.full(3, 0.01, np.float32)), s.constant(np.zeros(3, np.int8))
        w = s.node("DequantizeLinear", s.constant(np.ones(shape, np.int8)), scales, zeros, **attributes)
        path.write_bytes(s.model((1, 3, 4, 4), s.node("Conv", "x", w)).SerializeToString())
        assert main(["inspect", str(path)]) == 0
        shown = capsys.readouterr().out
        assert ("has 3 scales and no axis, so they belong to axis 1 of (3, 3, 1, 1); axis 0" in shown) == said


def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.onnx"
    for content in (b"", b"\x00" * 64, b"PK\x03\x04 not a model", write_tflite(small_graph())):
        path.write_bytes(content)
        assert main(["inspect", str(path)]) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        assert "odd.onnx" in errors
