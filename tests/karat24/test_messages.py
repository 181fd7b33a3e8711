"""What the command line says: whose fault something is, what to do, examples that work when pasted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.cli.main import COMMANDS, EXAMPLES
from karat24.export.onnx import lower_qdq, read_onnx, write_onnx, write_quantized_onnx
from karat24.export.tflite import read_tflite, write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Quantization
from tests.support.qdq_convolution import qdq_convolution
from tests.support.small_network import small_graph
from tests.support.tflite_subgraphs import two_graphs


@pytest.fixture
def tflite(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    return path


@pytest.fixture
def qdq(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(write_quantized_onnx(small_graph(), "qdq"))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The one line an erring command writes to stderr."""
    assert main([str(word) for word in arguments]) == code
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1, errors
    return errors


def test_karat_alone_shows_three_examples_that_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == EXAMPLES + "\n"
    commands = [shlex.split(line) for line in EXAMPLES.splitlines() if line.startswith("  karat24 ")]
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    without_onnx(monkeypatch)
    for _, *arguments in commands:
        assert main(arguments) == 0, arguments
    assert "CMSIS-NN" in capsys.readouterr().out


def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a plain `pip install .`."""
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)


def test_calibrating_without_onnx_runtime_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_onnx(monkeypatch)
    message = said(capsys, "quantize", "fine-tune", "--output", tmp_path / "x.tflite")
    assert "--aware" in message
    assert "karat24[onnx]" in message


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_help_has_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from karat24.cli.main import build_parser

    with pytest.raises(SystemExit):
        main([command, "--help"])
    examples = [
        line.split("  ")[1] if "  " in line.strip() else line.strip()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(f"  karat24 {command}")
    ]
    assert examples
    for example in examples:
        words = shlex.split(example)
        assert build_parser().parse_args(words[1:]).command == command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspct", "m.tflite"], "invalid choice: 'inspct'"),
        (["run", "m.tflite", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["verify", "m.tflite"], "one of the arguments --delegate/-d"),
        (["run", "m.tflite", "--threads", "0"], "0 is not at least 1"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_the_help(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert words in errors
    assert "--help`" in errors


def test_a_wrong_file_says_what_to_give(tflite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"there is {tflite}" in said(capsys, "run", tflite.with_name("smal.tflite"))
    assert "name the .tflite or .onnx file" in said(capsys, "inspect", tflite.parent)
    for suffix, words in (
        (".h5", "TFLiteConverter"),
        (".pt", "torch.onnx.export"),
        (".xyz", "name a .tflite or .onnx file"),
    ):
        other = tflite.with_suffix(suffix)
        other.write_bytes(b"anything")
        for command in ("run", "inspect"):
            assert words in said(capsys, command, other)


def test_a_runtime_of_the_other_format_names_those_that_read_the_file(
    tflite: Path, qdq: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tflite.parent)
    line = said(capsys, "verify", tflite.name, "-d", "ort")
    assert "ort reads .onnx files and small.tflite is .tflite" in line
    assert "litert-ref, litert-builtin, litert-xnnpack" in line
    assert "ort-disable-all" not in line
    line = said(capsys, "verify", qdq, "-d", "litert-ref")
    assert "choose one that reads .onnx" in line
    assert "karat24 export" not in line  # nothing here writes .tflite files of .onnx models


def test_the_way_out_that_is_proposed_works(
    tflite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tflite.parent)
    line = said(capsys, "verify", tflite.name, "-d", "ort-disable-all")
    export, verify = line[line.index("karat24 export") :].strip().split(", then ")
    assert main(shlex.split(export)[1:]) == 0
    assert main(shlex.split(verify)[1:]) != 2  # some layers run in float there; the pairing works
    assert "ort-disable-all against ort-1.31" in capsys.readouterr().out


def test_a_refusal_names_the_runtime_and_who_runs_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = GraphBuilder()
    given = builder.input("x", (1, 8), "int8", Quantization.per_tensor(0.05, 3))
    output = builder.tensor("y", (1, 8), "int8", Quantization.per_tensor(0.00382813, -128))
    builder.layer("LOGISTIC", [given], [output])
    path = tmp_path / "logistic.tflite"
    path.write_bytes(write_tflite(builder.build([output])))
    line = said(capsys, "run", path)
    assert "LiteRT 2.3.0, BUILTIN_REF kernels) refuses layer 0 (LOGISTIC, 'y')" in line
    assert "profiles that run it: litert-2.3-xnnpack" in line
    assert "refimpl" not in line
    assert main(["verify", str(path), "-d", "litert-ref"]) == 3
    assert "refuses layer 0" in capsys.readouterr().out
    assert main(["verify", str(path), "-d", "litert-xnnpack"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 0
    assert "the runtimes of litert-2.3-ref, litert-2.3-builtin" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flavour", "words"), [("qoperator", ""), ("qdq", ""), ("tensorrt", "give the .tflite model")]
)
def test_an_onnx_model_is_written_in_the_form_asked_for_or_not_at_all(
    flavour: str, words: str, qdq: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = qdq.with_name("out.onnx")
    arguments = ["export", qdq, "--flavour", flavour, "--output", output]
    if words:
        assert words in said(capsys, *arguments)
        assert not output.exists()
        return
    assert main([str(word) for word in arguments]) == 0
    ops = [layer.op for layer in read_onnx(output).layers]
    assert ("QLinearConv" in ops) == (flavour == "qoperator")
    assert ops.count("Conv") == {"qdq": 2, "qoperator": 1}[flavour]
    # A Relu that the zero point does not imply keeps the second Conv in float, which is said.
    assert ("stay Conv (second/float), Relu" in capsys.readouterr().out) == (flavour == "qoperator")


def test_integer_ops_are_not_called_qdq(qdq: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = qdq.with_name("out.onnx")
    assert main(["export", str(qdq), "--flavour", "qoperator", "--output", str(output)]) == 0
    capsys.readouterr()
    line = said(capsys, "export", output, "--flavour", "qdq", "--output", qdq.with_name("back.onnx"))
    assert "QLinearConv" in line


def test_the_integer_form_gives_what_the_runtime_makes_of_the_file(qdq: Path) -> None:
    from karat24.feeds import random_feeds
    from karat24.refimpl.engine import compile_graph

    output = qdq.with_name("out.onnx")
    assert main(["export", str(qdq), "--flavour", "qoperator", "--output", str(output)]) == 0
    written, lowered = read_onnx(output), lower_qdq(read_onnx(qdq), int8_allowed=True)
    feeds = list(random_feeds(lowered, 3).values())
    first, second = (compile_graph(graph, "ort-1.31").run(feeds).outputs for graph in (written, lowered))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "small.onnx", "--output", "x.tflite"], "can only be written as .onnx"),
        (["export", "small.tflite", "--flavour", "qdq", "--output", "x.tflite"], "a form of .onnx files"),
        (["export", "fine-tune", "--flavour", "qdq", "--output", "x.onnx"], "this one is float"),
        (["inspect", "small.tflite", "--channel", "1"], "--layer N"),
        (["inspect", "small.tflite", "--layer", "9"], "layers 0 to 3"),
        (["inspect", "small.onnx", "--layer", "0", "--subgraph", "0"], "an .onnx file has one graph"),
        (["run", "small.tflite", "--profile", "ort-1.31"], "describes runtimes of .onnx files"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str],
    words: str,
    tflite: Path,
    qdq: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tflite.parent)
    assert qdq.parent == tflite.parent
    assert words in said(capsys, *arguments)


def test_one_of_several_subgraphs_is_run_exported_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, alone = tmp_path / "two.tflite", tmp_path / "alone.tflite"
    path.write_bytes(two_graphs({"first": 0, "second": 1}, small_graph()))
    for command in (["run", path], ["verify", path, "-d", "litert-ref"], ["export", path, "--output", alone]):
        assert "choose one of the file's subgraphs" in said(capsys, *command)
        codes = [main([str(word) for word in (*command, "--subgraph", name)]) for name in ("second", "1")]
        assert codes[0] == codes[1] != 2
        capsys.readouterr()
    assert [layer.op for layer in read_tflite(alone).layers] == [
        layer.op for layer in read_tflite(path, 1).layers
    ]


@pytest.mark.parametrize("command", [["run"], ["verify", "-d", "oracle", "--profile", "ort-1.31"]])
def test_an_axis_left_to_the_default_is_warned_of(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for axis in (None, 1):
        path = tmp_path / f"axis{axis}.onnx"
        path.write_bytes(write_onnx(qdq_convolution(axis=axis)))
        assert main([command[0], str(path), *command[1:]]) != 2
        assert ("belong to axis 1" in capsys.readouterr().err) == (axis is None)


def test_profiles_shows_what_the_runtime_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "litert-2.3-ref"]) == 0
    assert "refused by the runtime: LOGISTIC:" in capsys.readouterr().out
