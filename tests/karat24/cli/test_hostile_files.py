"""Broken model files through the front door: one clear line and exit 2, or a model that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from karat24.cli import main
from karat24.export.tflite import write_tflite
from tests.support.damaged_files import mutations
from tests.support.small_network import small_graph

FILES = 600


@pytest.mark.slow
def test_mutated_files_never_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = write_tflite(small_graph())
    path = tmp_path / "mutated.tflite"
    codes = {0: 0, 2: 0}
    for number, data in enumerate(mutations(content, FILES, 11)):
        path.write_bytes(data)
        code = main(["run", str(path), "--threads", "1"])
        captured = capsys.readouterr()
        assert code in codes, f"mutation {number}: exit code {code}"
        codes[code] += 1
        if code == 2:
            assert captured.err.count("\n") == 1, f"mutation {number}: {captured.err}"
            assert captured.err.startswith("karat24 run: ")
            assert len(captured.err) > 20
    assert min(codes.values()) > FILES // 20, f"too one-sided to mean anything: {codes}"


@pytest.mark.parametrize(
    "data", [b"", b"TFL3", b"\x00" * 64, b"\x1c\x00\x00\x00TFL3" + b"\xff" * 64, b"PK\x03\x04 not a model"]
)
@pytest.mark.parametrize("command", ["inspect", "run"])
def test_files_that_are_no_model(
    data: bytes, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.tflite"
    path.write_bytes(data)
    assert main([command, str(path)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "odd.tflite" in errors


def test_a_folder_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert "is a directory" in capsys.readouterr().err
