"""The command line: exit codes, one-line errors, files written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.cli.main import COMMANDS, build_parser
from karat24.delegates import delegate_named
from karat24.export.tflite import read_tflite, write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Graph, Quantization
from tests.support.small_network import small_graph


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    return path


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr: exactly one line, no traceback."""
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1, errors
    assert "Traceback" not in errors
    return errors


def test_help_needs_no_heavy_import() -> None:
    """--help must answer at once: nothing slow to import may be imported for it."""
    code = (
        "import sys\nfrom karat24.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy','numba','ai_edge_litert','onnx','onnxruntime','skimage'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "exit codes" in done.stdout


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By itself and among all commands, which are offered to a shell that completes words, alike."""
    (commands,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed == commands[command].format_help()
    assert "usage: karat24" in printed


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("karat24 verify m.tflite --delegate litert-x", {"litert-xnnpack"}),
        (
            "karat24 run m.tflite --profile ort",
            {"ort-1.31", "ort-1.31-arm64", "ort-1.31-avx2", "ort-1.31-avx2-precise"},
        ),
        ("karat24 quantize fine", {"fine-tune"}),
        ("karat24 insp", {"inspect"}),
    ],
)
def test_names_complete_in_the_shell(typed: str, offered: set[str], tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "COMP_LINE": typed,
        "COMP_POINT": str(len(typed)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }
    code = "from karat24.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert {word.strip() for word in answer.read_text().split("\x0b")} == offered


def test_inspect_lists_layers(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "--profile", "litert-2.3-ref"]) == 0
    text = capsys.readouterr().out
    assert "CONV_2D" in text
    assert "gemmlowp, float64 multiplier" in text


def test_inspect_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = GraphBuilder()
    a = builder.input("a", (1, 4), "int8", Quantization.per_tensor(0.5))
    b = builder.tensor("b", (1, 4), "int8", Quantization.per_tensor(0.5))
    builder.layer("SIN", [a], [b])
    path = tmp_path / "odd.tflite"
    path.write_bytes(write_tflite(builder.build([b])))
    assert main(["inspect", str(path), "--json"]) == 0
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert len(problems) == 1
    assert "karat24 lacks it" in problems[0]
    assert main(["run", str(path)]) == 2
    message = one_line(capsys)
    assert "SIN" in message
    assert "layer 0" in message


def test_run_saves_outputs_and_trace(model: Path, tmp_path: Path) -> None:
    saved, traced = tmp_path / "out.npz", tmp_path / "trace.npz"
    assert (
        main(
            ["run", str(model), "--seed", "5", "--save", str(saved), "--trace", str(traced), "--accumulators"]
        )
        == 0
    )
    graph = read_tflite(model.read_bytes())
    from karat24.feeds import random_feeds

    expected = compile_graph(graph).run(random_feeds(graph, 5), accumulators=True).trace
    assert expected is not None
    with np.load(traced) as arrays:
        keys = {str(i) for i in expected.tensors} | {f"acc_{i}" for i in expected.accumulators}
        assert set(arrays.files) == keys
        for index, value in expected.tensors.items():
            np.testing.assert_array_equal(arrays[str(index)], value)
    with np.load(saved) as arrays:
        assert arrays.files == [graph.tensors[graph.outputs[0]].name]


def test_spec_and_kernels_agree_through_the_door(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(model), "--seed", "1"])
    fast = capsys.readouterr().out
    main(["run", str(model), "--seed", "1", "--implementation", "spec"])
    assert capsys.readouterr().out == fast


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.tflite"], "no such file"),
        (["run", "MODEL", "--input", "missing.npy"], "no such file"),
        (["run", "MODEL", "--profile", "litert"], "no profile 'litert'"),
        (["run", "MODEL", "--accumulators"], "--trace"),
        (["run", "MODEL", "--save", "no/such/folder/x.npz"], "does not exist"),
        (["run", "MODEL", "--threads", "4096"], "threads"),
        (["verify", "MODEL", "--delegate", "nothing"], "no delegate 'nothing'"),
        (["verify", "MODEL", "--delegate", "litert-ref", "--samples", "2", "--input", "x.npy"], "--samples"),
        (["export", "MODEL", "--layer", "99", "--output", "x.tflite"], "--layer 99"),
        (["export", "MODEL", "--output", "x.txt"], ".tflite or .onnx"),
        (["export", "tomogan", "--height", "63", "--output", "x.tflite"], "multiple"),
        (["quantize", "unknown", "--output", "x.tflite"], "no network 'unknown'"),
        (["quantize", "tomogan", "--scheme", "int3", "--output", "x.tflite"], "no scheme 'int3'"),
        (["quantize", "tomogan", "--weights", "missing.npz", "--output", "x.tflite"], "missing.npz"),
        (["profiles", "nothing"], "no profile 'nothing'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(
    arguments: list[str],
    said: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(model) if a == "MODEL" else a for a in arguments]) == 2
    assert said in one_line(capsys)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((1, 8, 8, 3), np.int16), "int16"),
        (np.zeros((1, 9, 8, 3), np.int8), "(1, 9, 8, 3)"),
        (np.zeros((2, 8, 8, 3), np.int8), "(2, 8, 8, 3)"),
        (np.zeros(3, np.int8), "(3,)"),
    ],
)
def test_wrong_feed_is_one_line_and_exit_2(
    values: np.ndarray, said: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "feed.npy"
    np.save(path, values)
    assert main(["run", str(model), "--input", str(path)]) == 2
    assert said in one_line(capsys)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".bmp"])
def test_unreadable_feed_is_one_line_and_exit_2(
    suffix: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"feed{suffix}"
    path.write_bytes(b"\x00not this format")
    assert main(["run", str(model), "--input", str(path)]) == 2
    assert path.name in one_line(capsys)


def test_verify_exit_codes(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    assert main(["verify", str(model), "--delegate", "litert-ref", "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    assert content["verdict"] == "bit_exact"
    with delegate_named("litert-ref") as delegate:
        assert (content["profile"], content["profile_reason"]) == (delegate.fit.profile, delegate.fit.reason)
    assert [layer["verdict"] for layer in content["layers"]] == ["bit_exact"] * len(content["layers"])
    assert main(["verify", str(model), "--delegate", "edgetpu", "--profile", "litert-2.3-ref"]) == 3


def test_small_graph_is_worth_testing() -> None:
    graph: Graph = small_graph()
    assert {layer.op for layer in graph.layers} >= {"CONV_2D", "ADD", "MAX_POOL_2D"}


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--frob"], "karat24"),
        (["inspect", "m.tflite", "--frob"], "karat24 inspect"),
        (["golden", "check", "m.golden.json", "--frob"], "karat24 golden check"),
    ],
)
def test_an_unknown_option_names_the_help_that_lists_the_known(
    words: list[str], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{where}: unrecognized arguments: --frob; see `{where} --help`\n"
