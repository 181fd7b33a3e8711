"""Running the Edge TPU compiler: a stand-in program replays what the real one printed, failures included."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from karat24.cli import main
from karat24.delegates.edgetpu_compiler import EDGETPU_COMPILER, CompilerOptions, compile_model, find_compiler
from karat24.delegates.edgetpu_log import parse_log
from karat24.export.tflite import write_tflite
from karat24.refimpl.errors import DelegateError, DelegateTimeout, DelegateUnavailable, UsageError
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_compiler import STARTED, SUCCEEDED, VERSION, StandIn
from tests.support.edgetpu_standin import compiled
from tests.support.processes import runs

LARGE = """ERROR: Restored original execution plan after delegate application failure.
Compilation failed: Compilation failed due to large activation tensors in model.
Compilation child process completed within timeout period.
Compilation failed!
"""
FAILURES = {
    "aborting": (
        VERSION + "\nInternal compiler error. Aborting!\n",
        1,
        "Aborting: the compiler gives no reason",
    ),
    "large": (STARTED + LARGE, 1, "large activation tensors in model: an intermediate image is too large"),
    "float": (
        VERSION + "Invalid model: model.tflite\nModel not quantized\n",
        1,
        "Model not quantized: quantize the model",
    ),
    "unreadable": (VERSION + "Invalid model: model.tflite\nCould not parse model\n", 0, "is it a .tflite"),
    "late": (
        STARTED + "Compilation child process did not complete within timeout period.\nCompilation failed!\n",
        0,
        "give the compiler more time",
    ),
    "unknown": (
        STARTED + "Something else.\n",
        0,
        "wrote no model_edgetpu.tflite; it last said: Something else.",
    ),
    "crashed": ("", -11, "died of SIGSEGV and wrote no model_edgetpu.tflite"),
}


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    if os.name != "posix":
        pytest.skip("the stand-in compiler is a script with a first line that names its interpreter")
    folder = tmp_path / "bin"
    folder.mkdir()
    made = StandIn(folder)
    monkeypatch.setenv(EDGETPU_COMPILER, str(made.path))
    return made


def test_the_log_is_read_row_by_row() -> None:
    log = parse_log(SUCCEEDED)
    assert log.version == "16.0.384591198"
    assert log.failure == ""
    assert [(row.op, row.count, row.mapped) for row in log.operations] == [
        ("TRANSPOSE", 70, False), ("PAD", 17, True), ("QUANTIZE", 1, False), ("CONV_2D", 68, True),
        ("RESIZE_NEAREST_NEIGHBOR", 1, False), ("DEQUANTIZE", 2, False),
    ]  # fmt: skip
    assert (log.mapped, log.left) == (85, 74)
    assert log.operations[2].status.endswith("due to some unspecified limitation")
    assert log.facts["On-chip memory remaining for caching model parameters"] == round(7.67 * (1 << 20))
    assert log.facts["Off-chip memory used for streaming uncached model parameters"] == 0
    assert log.facts["Total number of operations"] == 159


def test_an_attempt_that_failed_before_success_is_no_failure() -> None:
    """--search_delegate tries shorter and shorter runs of layers."""
    assert parse_log(STARTED + LARGE + SUCCEEDED).failure == ""
    assert parse_log(SUCCEEDED + LARGE).failure.startswith(
        "Compilation failed: Compilation failed due to large"
    )


def test_a_model_is_compiled(standin: StandIn) -> None:
    standin.does(SUCCEEDED, {"model_edgetpu.tflite": b"the result"})
    options = CompilerOptions(min_runtime_version=13, search_delegate=True, intermediate_tensors=("a", "b"))
    made = compile_model(b"the model", options)
    assert made.files == (b"the result",)
    assert made.log.mapped == 85
    *switches, model = standin.arguments
    assert switches[0] == "--show_operations"
    assert switches[3:] == [
        "--timeout_sec", "600", "--min_runtime_version", "13", "--search_delegate",
        "--intermediate_tensors", "a,b",
    ]  # fmt: skip
    assert Path(model).name == "model.tflite"
    assert not Path(model).exists()


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_with_its_reason(standin: StandIn, name: str) -> None:
    text, code, words = FAILURES[name]
    standin.does(text, code=code)
    with pytest.raises(DelegateError) as caught:
        compile_model(b"the model")
    assert words in str(caught.value)


def test_a_missing_segment_is_a_failure(standin: StandIn) -> None:
    standin.does(SUCCEEDED, {"model_segment_0_of_2_edgetpu.tflite": b"one"})
    with pytest.raises(DelegateError, match=r"wrote no model_segment_1_of_2_edgetpu\.tflite"):
        compile_model(b"the model", CompilerOptions(num_segments=2))


def test_a_compiler_that_hangs_is_ended_with_its_children(standin: StandIn) -> None:
    standin.does(STARTED, sleeps=True)
    with pytest.raises(DelegateTimeout, match="no result within 5 s"):
        compile_model(b"the model", time_limit=5)
    child = standin.folder / "child"
    assert child.is_file(), "the stand-in did not get as far as its child"
    while runs(int(child.read_text())):
        time.sleep(0.05)


def test_an_absent_compiler_says_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(EDGETPU_COMPILER, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DelegateUnavailable, match=r"not installed.*x86-64 Linux only.*packages\.cloud"):
        find_compiler()
    monkeypatch.setenv(EDGETPU_COMPILER, str(tmp_path / "nothing"))
    with pytest.raises(DelegateUnavailable, match="which is not a program"):
        find_compiler()


def test_the_command_compiles_and_proves(
    standin: StandIn, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = chain()
    path = tmp_path / "chain.tflite"
    path.write_bytes(write_tflite(source))
    standin.does(SUCCEEDED, {"model_edgetpu.tflite": compiled(source)})
    assert main(["compile", str(path)]) == 0
    out = capsys.readouterr().out
    assert "CONV_2D                    68  Mapped to Edge TPU" in out
    assert "The compiled file carries this source" in out
    assert (tmp_path / "chain_edgetpu.tflite").read_bytes() == compiled(source)
    assert main(["prove", str(tmp_path / "chain_edgetpu.tflite"), "--source", str(path)]) == 0


def test_the_command_says_when_the_result_is_of_another_model(
    standin: StandIn, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chain.tflite"
    path.write_bytes(write_tflite(chain()))
    standin.does(SUCCEEDED, {"model_edgetpu.tflite": compiled(chain(channels=(6, 9, 70)))})
    assert main(["compile", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["proof"]["verdict"] == "differs"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda source: source, "the compiler leaves all of the model on the CPU, so nothing was written"),
        (
            lambda source: compiled(chain())[:400],
            "what the compiler wrote cannot be read, so it was not kept",
        ),
    ],
)
def test_the_command_keeps_no_result_that_is_none(
    standin: StandIn, tmp_path, result, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chain.tflite"
    path.write_bytes(write_tflite(chain()))
    standin.does(SUCCEEDED, {"model_edgetpu.tflite": result(path.read_bytes())})
    assert main(["compile", str(path)]) == 3
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("*_edgetpu*"))


def test_the_command_takes_no_compiled_model(
    standin: StandIn, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chain_edgetpu.tflite"
    path.write_bytes(compiled(chain()))
    assert main(["compile", str(path)]) == 2
    assert "is compiled for the Edge TPU already" in capsys.readouterr().err


def test_a_compiler_named_by_a_relative_path_is_found(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started in another folder, where the path would lead nowhere."""
    standin.does(SUCCEEDED, {"model_edgetpu.tflite": b"the result"})
    monkeypatch.chdir(standin.folder.parent)
    monkeypatch.setenv(EDGETPU_COMPILER, f"./{standin.folder.name}/{standin.path.name}")
    assert compile_model(b"the model").files == (b"the result",)


def test_a_compiler_that_prints_without_end_is_ended(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("karat24.delegates.programs.MOST_PRINTED", 1 << 20)
    standin.does("words " * (1 << 18), sleeps=True)
    with pytest.raises(DelegateError, match="edgetpu_compiler: printed more than 1 MiB, so it was stopped"):
        compile_model(b"the model")


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_a_time_limit_ends(standin: StandIn, seconds: str) -> None:
    with pytest.raises(UsageError, match="give more than 0, and an end"):
        compile_model(b"the model", time_limit=float(seconds))


def test_segments_appear_all_or_none(standin: StandIn, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the second: the first is not left behind."""
    from karat24.cli import compile_edgetpu

    paths = [tmp_path / "one.tflite", tmp_path / "two.tflite"]
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith("two"):
            raise OSError(28, "No space left on device")
        return write(path, content)

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        compile_edgetpu._write(paths, [b"1", b"2"])
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_leaves_nothing_when_it_fails(
    standin: StandIn, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chain.tflite"
    path.write_bytes(write_tflite(chain()))
    standin.does(STARTED + LARGE, {"model_edgetpu.tflite": b"half"}, code=1)
    before = sorted(tmp_path.iterdir())
    assert main(["compile", str(path)]) == 3
    assert "large activation tensors" in capsys.readouterr().err
    monkeypatch.setenv(EDGETPU_COMPILER, "absent-edgetpu-compiler")
    assert main(["compile", str(path)]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
