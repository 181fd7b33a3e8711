"""Broken .onnx files through the front door: one clear line and exit 2, or a model that runs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karat24 import delegates
from karat24.cli import main
from karat24.export.onnx import write_quantized_onnx
from tests.support.damaged_files import mutations
from tests.support.small_network import small_graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


from tests.support.lying_onnx import wrong_fields  # noqa: E402

FILES = 2000


@pytest.fixture(scope="module")
def one_runtime() -> Iterator[Any]:
    """A child process for all files; it is started again when one of them ends it."""
    with delegates.delegate_named("ort", time_limit=30.0) as delegate:
        yield delegate


def damaged(flavour: Any) -> list[bytes]:
    """Bytes at random, then well-formed messages that lie."""
    content = write_quantized_onnx(small_graph(), flavour)
    return mutations(content, FILES // 4, 17) + [wrong_fields(content, seed) for seed in range(FILES // 4)]


def outcomes(
    command: list[str], files: list[bytes], path: Path, capsys: pytest.CaptureFixture[str]
) -> Counter[int]:
    """Exit codes; asserts that 2 comes with one line that names the file, and nothing else with any."""
    codes: Counter[int] = Counter()
    for number, data in enumerate(files):
        path.write_bytes(data)
        code = main([command[0], str(path), "--threads", "1", *command[1:]])
        errors = capsys.readouterr().err
        codes[code] += 1
        if code == 2:
            assert errors.count("\n") == 1, f"file {number}: {errors}"
            assert errors.startswith(f"karat24 {command[0]}: "), f"file {number}: {errors}"
            assert 30 < len(errors) < 1200, f"file {number}: {errors}"
        else:
            assert "Traceback" not in errors, f"file {number}: {errors}"
    return codes


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["qdq", "qoperator"])
def test_mutated_files_run_or_are_refused(
    flavour: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = outcomes(["run"], damaged(flavour), tmp_path / "mutated.onnx", capsys)
    assert set(codes) == {0, 2}
    assert min(codes.values()) > codes.total() // 20, f"too one-sided to mean anything: {codes}"


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["qdq", "qoperator"])
def test_mutated_files_are_judged_or_refused(
    flavour: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    one_runtime: Any,
) -> None:
    """What ONNX Runtime refuses, and a Conv left in float, is not compared; the rest is equal to the bit.

    Every second file of those that are run: damage of each kind (five, in turns), and every second lie.
    """
    monkeypatch.setattr(delegates, "delegate_named", lambda *_, **__: contextlib.nullcontext(one_runtime))
    command = ["verify", "--delegate", "ort"]
    codes = outcomes(command, damaged(flavour)[::2], tmp_path / "mutated.onnx", capsys)
    assert set(codes) <= {0, 2, 3}
    judged = codes[0] + codes[3]
    assert min(judged, codes[2]) > codes.total() // 20, f"too one-sided to mean anything: {codes}"
    assert flavour == "qdq" or codes[0] > codes[3], f"mostly refused by ONNX Runtime: {codes}"


def with_values_beside(folder: Path) -> tuple[Path, Any]:
    """A small QOperator model whose larger constants lie in ``values.bin``; its path and message."""
    model = onnx.load_from_string(write_quantized_onnx(small_graph(), "qoperator"))
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="values.bin", size_threshold=16)
    model = onnx.load(path, load_external_data=False)
    assert sum(proto.data_location == 1 for proto in model.graph.initializer) >= 2
    return path, model


def external(model: Any) -> Any:
    """The first constant kept in another file."""
    return next(proto for proto in model.graph.initializer if proto.data_location == 1)


def change(proto: Any, key: str, value: str) -> None:
    for entry in proto.external_data:
        if entry.key == key:
            entry.value = value


def test_values_in_a_file_beside_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same outputs as with everything in one file; and a runtime judges both alike."""
    path, _ = with_values_beside(tmp_path)
    whole = tmp_path / "whole.onnx"
    whole.write_bytes(write_quantized_onnx(small_graph(), "qoperator"))
    outputs = []
    for model in (path, whole):
        saved = model.with_suffix(".npz")
        assert main(["run", str(model), "--seed", "3", "--save", str(saved)]) == 0
        with np.load(saved) as values:
            outputs.append(dict(values))
        for mode in ([], ["--cumulative"]):
            assert main(["verify", str(model), "--delegate", "ort", *mode]) == 0
    capsys.readouterr()
    assert outputs[0].keys() == outputs[1].keys()
    for name, values in outputs[0].items():
        np.testing.assert_array_equal(values, outputs[1][name])


@pytest.mark.parametrize("command", [["run"], ["verify", "--delegate", "ort"]])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "is not a file inside the folder of the model"),
        ("short", "which has 4"),
        ("outside", "is not a file inside the folder of the model"),
        ("absolute", "is not a file inside the folder of the model"),
        ("link", "is not a file inside the folder of the model"),
        ("offset", "bytes -8 to"),
        ("number", "are not numbers"),
        ("length", "its shape needs"),
        ("sizes", "is not possible"),
    ],
)
def test_damaged_values_beside_the_model(
    command: list[str], damage: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that are not there, too short or elsewhere; places and sizes that lie."""
    (tmp_path / "model").mkdir()
    path, model = with_values_beside(tmp_path / "model")
    values, proto = path.with_name("values.bin"), external(model)
    (tmp_path / "elsewhere.bin").write_bytes(values.read_bytes())
    match damage:
        case "missing":
            values.unlink()
        case "short":
            values.write_bytes(b"1234")
        case "outside":
            change(proto, "location", "../elsewhere.bin")
        case "absolute":
            change(proto, "location", str(tmp_path / "elsewhere.bin"))
        case "link":
            values.unlink()
            values.symlink_to(tmp_path / "elsewhere.bin")
        case "offset":
            change(proto, "offset", "-8")
        case "number":
            change(proto, "offset", "three")
        case "length":
            change(proto, "length", "5")
        case "sizes":
            proto.dims[0] = 2**40
    path.write_bytes(model.SerializeToString())
    assert main([command[0], str(path), *command[1:]]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "model.onnx" in errors
    assert message in errors


@pytest.mark.parametrize("command", [["inspect"], ["run"], ["verify", "--delegate", "ort"]])
def test_models_of_more_than_two_gigabytes(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No protobuf message is that large: refused by its size, without reading (here: holes)."""
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    assert main([command[0], str(path), *command[1:]]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "large.onnx" in errors
    assert "keep the constants in files beside it" in errors


def test_declared_sizes_of_more_than_two_gigabytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A constant of 3 GB in a file of holes, well formed: refused by what it declares, before it is read."""
    path, model = with_values_beside(tmp_path)
    proto = external(model)
    del proto.dims[:]
    proto.dims.extend([3 * 2**30])
    with (tmp_path / "values.bin").open("ab") as file:
        file.truncate(4 * 2**30)
    change(proto, "length", str(3 * 2**30))
    path.write_bytes(model.SerializeToString())
    assert main(["run", str(path)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "is not possible" in errors
