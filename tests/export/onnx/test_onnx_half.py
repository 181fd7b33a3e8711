"""Half precision: everything between the two casts is float16, and the values are those of the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.onnx import write_float_onnx
from karat24.export.onnx.writing.half import half_precision
from karat24.refimpl.errors import ModelError
from karat24.refimpl.networks import network
from tests.cases.onnx_models import qdq_pair

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx.parser")


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_tomogan_in_half_precision(upsampling: str) -> None:
    """ONNX Runtime agrees with the float32 network to a few parts in 2^11; scales of Resize stay float32."""
    runtime = pytest.importorskip("onnxruntime")
    single = write_float_onnx(network("tomogan", 16, 16, upsampling))
    half = half_precision(single)
    graph = onnx.load_from_string(half).graph
    weights = {w.name: w.data_type for w in graph.initializer}
    scales = {node.input[2] for node in graph.node if node.op_type == "Resize"} - {""}
    halves = [name for name, dtype in weights.items() if dtype == onnx.TensorProto.FLOAT16]
    assert len(halves) >= 32
    assert {weights[name] for name in scales} <= {onnx.TensorProto.FLOAT}
    assert set(weights) - set(halves) - scales <= {n for n in weights if weights[n] == onnx.TensorProto.INT64}
    x = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    sessions = [runtime.InferenceSession(c, providers=["CPUExecutionProvider"]) for c in (single, half)]
    expected, found = (s.run(None, {s.get_inputs()[0].name: x})[0] for s in sessions)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected), "float16 must show"
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_equal_models_give_equal_bytes() -> None:
    content = write_float_onnx(network("fine-tune", 8, 8))
    assert half_precision(content) == half_precision(content)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "half.onnx"
    assert (
        main(["export", "fine-tune", "--half", "--height", "8", "--width", "8", "--output", str(path)]) == 0
    )
    types = {w.data_type for w in onnx.load(path).graph.initializer}
    assert types == {onnx.TensorProto.FLOAT16}
    assert main(["export", "fine-tune", "--half", "--output", str(tmp_path / "half.tflite")]) == 2
    assert "--half is for a float network written as .onnx" in capsys.readouterr().err


def plus(weight: float) -> bytes:
    """y = x + weight."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        plus (float[1] x) => (float[1] y) <float[1] w = {{{weight}}}> {{ y = Add(x, w) }}"""
    return onnx.parser.parse_model(text).SerializeToString()


def test_what_has_no_half_precision_is_refused() -> None:
    with pytest.raises(ModelError, match="is a QuantizeLinear"):
        half_precision(qdq_pair())
    half_precision(plus(65504.0))
    with pytest.raises(ModelError, match=r"weight 'w' reaches 65536; float16 ends at 65504"):
        half_precision(plus(65536.0))
