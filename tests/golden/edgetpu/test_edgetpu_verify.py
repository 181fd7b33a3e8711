"""Judging an Edge TPU layer by layer: each layer is compiled by itself and run, by stand-ins."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from karat24.cli import main
from karat24.delegates.edgetpu import EDGETPU_LIBRARY
from karat24.delegates.edgetpu_compiler import EDGETPU_COMPILER
from karat24.export.tflite import write_tflite
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_fake import build

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from karat24.export.tflite import read_tflite
from tests.support.edgetpu_standin import compiled
folder = Path(sys.argv[sys.argv.index("--out_dir") + 1])
(folder / "model_edgetpu.tflite").write_bytes(compiled(read_tflite(sys.argv[-1])))
print("Model compiled successfully in 1 ms.")
"""


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, with a compiler and a library in place that take it."""
    if os.name != "posix":
        pytest.skip("the stand-in compiler is a script with a first line that names its interpreter")
    monkeypatch.setenv(EDGETPU_LIBRARY, str(build(tmp_path)))
    compiler = tmp_path / "edgetpu_compiler"
    compiler.write_text(PROGRAM)
    compiler.chmod(0o755)
    monkeypatch.setenv(EDGETPU_COMPILER, str(compiler))
    model = tmp_path / "chain.tflite"
    model.write_bytes(write_tflite(chain(channels=(6, 5, 10))))
    return model


def test_every_layer_is_compiled_run_and_compared(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The stand-in device adds one to a byte: no layer is right, and each is told by itself."""
    assert main(["verify", str(device), "--delegate", "edgetpu", "--profile", "litert-2.3-ref"]) == 1
    out = capsys.readouterr().out
    assert "bit_exact" not in out
    for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        assert op in out


def test_bisecting_finds_the_first_layer(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", str(device), "--delegate", "edgetpu", "--profile", "litert-2.3-ref"]) == 1
    assert (
        "the first wrong layer is layer 0 (CONV_2D, 'a'); it is wrong by itself, too"
        in capsys.readouterr().out
    )
    answers = json.loads((device.parent / "chain.tflite.bisect" / "answers.json").read_text())["answers"]
    assert answers["first 4 layers"] == answers["layer 0"] == "wrong"


def test_without_a_profile_nothing_is_held_to_tflite_s_arithmetic(
    device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody has described what the device computes: without --profile there is nothing to hold it to."""
    for command in ("verify", "bisect"):
        assert main([command, str(device), "--delegate", "edgetpu"]) == 3
        assert "no profile describes edgetpu; choose one with --profile" in capsys.readouterr().err
