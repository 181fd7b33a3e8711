"""A runtime that a command line starts, and delegates of other packages."""

from __future__ import annotations

import sys
import time
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.delegates import DELEGATES, conformance_models, delegate_named, delegate_names, table
from karat24.delegates.command import CommandDelegate
from karat24.delegates.oracle import OracleDelegate
from karat24.export.tflite import write_tflite
from karat24.refimpl.errors import (
    DelegateCrashed,
    DelegateError,
    DelegateTimeout,
    DelegateUnavailable,
    UsageError,
)
from tests.support.command_runner import RUNNER, command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runner.py").write_text(RUNNER)
    (tmp_path / "chain.tflite").write_bytes(write_tflite(conformance_models.chain()))
    return tmp_path


def inline(code: str) -> str:
    return f"'{sys.executable}' -c '{code}' {{model}} {{inputs}} {{outputs}}"


def test_arrays_travel_by_place_and_by_name(folder: Path) -> None:
    x = conformance_models.image(1)
    expected = conformance_models.chain_values(x)
    with CommandDelegate(command(folder / "runner.py"), "tflite", "litert-2.3-ref") as delegate:
        probe = delegate.probe()
        assert probe.available
        assert delegate.versions()[probe.library] == probe.version
        run = delegate.run(folder / "chain.tflite", [x])
        graph = conformance_models.chain()
        found = {graph.tensors[index].name: value for index, value in run.trace.tensors.items()}
        assert set(found) == {"image", "pooled", "output"}
        assert all(np.array_equal(found[name], expected[name]) for name in found)
        assert run.trace.profile == delegate.profile == "litert-2.3-ref"
        (only,) = delegate.run_many([((folder / "chain.tflite").read_bytes(), [x])])
        assert not isinstance(only, DelegateError)
        assert np.array_equal(only.outputs[0], expected["output"])


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("import sys; sys.exit(\"no such op\")", DelegateError, "exit code 1; it last said: no such op"),
        ("import os; os.abort()", DelegateCrashed, "died of signal 6"),
        ("import time; time.sleep(600)", DelegateTimeout, "did not end within 0.5 s"),
        ("pass", DelegateError, r"wrote no values of output tensor 6 \(.output.\)"),
        (
            "import sys, numpy; numpy.save(sys.argv[3] + \"/output_0.npy\", numpy.zeros(60))",
            DelegateError,
            r"output_0.npy is float64 \(60,\); tensor 6 .* is int8 \(1, 4, 5, 3\)",
        ),
        (
            "import sys; open(sys.argv[3] + \"/output_0.npy\", \"w\").write(\"junk\")",
            DelegateError,
            "not an .npy array",
        ),
        (
            "import sys, numpy; numpy.save(sys.argv[3] + \"/other.npy\", numpy.zeros(1))",
            DelegateError,
            "'other' is not a tensor of the model",
        ),
    ],
    ids=["exit code", "crash", "hang", "nothing", "other type", "junk", "unknown name"],
)  # fmt: skip
def test_what_a_command_does_wrong(folder: Path, code: str, error: type, message: str) -> None:
    delegate = CommandDelegate(inline(code), "tflite", time_limit=0.5 if "sleep" in code else 60)
    with pytest.raises(error, match=message):
        delegate.run(folder / "chain.tflite", [conformance_models.image()])


def test_a_command_ends_where_its_group_cannot_be_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on systems that let nobody signal a group in which one process may not be signalled."""

    def refuse(group: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.killpg", refuse)
    delegate = CommandDelegate(inline("import time; time.sleep(1000)"), "tflite", time_limit=0.5)
    with pytest.raises(DelegateTimeout):
        delegate.run(folder / "chain.tflite", [conformance_models.image(1)])


def test_what_a_timed_out_command_started_ends_with_it(folder: Path) -> None:
    """The whole process group is killed: a grandchild would go on writing."""
    marker = folder / "alive"
    (folder / "grandchild.py").write_text(f"import time; time.sleep(1.5); open({str(marker)!r}, 'w')")
    start = f'subprocess.Popen([sys.executable, "{folder / "grandchild.py"}"])'
    code = f"import subprocess, sys, time; {start}; time.sleep(9)"
    delegate = CommandDelegate(inline(code), "tflite", time_limit=0.5)
    with pytest.raises(DelegateTimeout):
        delegate.run(folder / "chain.tflite", [conformance_models.image()])
    time.sleep(1.8)
    assert not marker.exists()


def test_commands_that_cannot_work() -> None:
    with pytest.raises(UsageError, match=r"does not name \{inputs\}, \{outputs\}"):
        CommandDelegate("runner {model}", "tflite")
    with pytest.raises(UsageError, match="No closing quotation"):
        CommandDelegate("runner '{model} {inputs} {outputs}", "tflite")
    absent = CommandDelegate("no-such-runner {model} {inputs} {outputs}", "tflite")
    assert not absent.probe().available
    with pytest.raises(DelegateUnavailable, match="there is no program 'no-such-runner'"):
        absent.run(write_tflite(conformance_models.chain()), [conformance_models.image()])


def test_verify_with_a_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cumulative: the runner knows one model. It hides a tensor, which is not compared."""
    arguments = ["verify", str(folder / "chain.tflite"), "--delegate-command", command(folder / "runner.py")]
    assert main([*arguments, "--profile", "litert-2.3-ref", "--cumulative", "--all"]) == 3
    printed = capsys.readouterr().out
    assert "command python" in printed
    assert "the runtime does not show this tensor" in printed
    assert "2 bit_exact, 1 not_compared" in printed
    spoilt = RUNNER.replace("[5, -7, 0]", "[5, -7, 1]")
    (folder / "runner.py").write_text(spoilt)
    assert main([*arguments, "--profile", "litert-2.3-ref", "--cumulative"]) == 1
    assert main(arguments) == 3
    assert "choose one with --profile" in capsys.readouterr().err


def test_verify_a_recording(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, x = folder / "chain.tflite", conformance_models.image(1)
    values = conformance_models.chain_values(x)
    np.save(folder / "x.npy", x)
    np.savez(folder / "dump.npz", **values)
    arguments = ["verify", str(model), "--recorded", str(folder / "dump.npz")]
    assert main([*arguments, "--input", str(folder / "x.npy")]) == 0
    assert "BIT_EXACT: recording" in capsys.readouterr().out
    wrong = values["output"].copy()
    wrong[0, 1, 2, 0] += 1
    np.savez(folder / "dump.npz", **{**values, "output": wrong})
    assert main(arguments) == 1
    assert "at 0,1,2,0: " in capsys.readouterr().out
    (folder / "output.c").write_text(f"int8_t out[] = {{{', '.join(map(str, values['output'].flat))}}};")
    single = ["verify", str(model), "--recorded", str(folder / "output.c"), "--input", str(folder / "x.npy")]
    assert main(single) == 3
    assert main([*single, "--only-recorded"]) == 0
    for wrong_flags in (["--samples", "2"], ["--cumulative"], ["--against", "litert-ref"]):
        assert main([*arguments, *wrong_flags]) == 2
    assert main(["verify", str(model), "--delegate", "oracle", "--only-recorded"]) == 2


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        [
            EntryPoint("theirs", "karat24.delegates.oracle:OracleDelegate", table.ENTRY_POINTS),
            EntryPoint("broken", "no_such_package_of_theirs:Delegate", table.ENTRY_POINTS),
            EntryPoint("litert-ref", "no_such_package_of_theirs:Delegate", table.ENTRY_POINTS),
        ]
    )
    monkeypatch.setattr(table, "entry_points", lambda group: points.select(group=group))


@pytest.mark.usefixtures("others")
def test_delegates_of_other_packages() -> None:
    """They are found by name, never take a name of the table, and cost nothing when they are broken."""
    assert delegate_names() == (*DELEGATES, "broken", "theirs")
    assert isinstance(delegate_named("theirs"), OracleDelegate)
    assert not isinstance(delegate_named("litert-ref"), OracleDelegate)
    with pytest.raises(DelegateUnavailable, match="broken: no_such_package_of_theirs:Delegate cannot be imp"):
        delegate_named("broken")
    with pytest.raises(UsageError, match=r"no delegate 'absent'; known: oracle, .*, broken, theirs"):
        delegate_named("absent")
