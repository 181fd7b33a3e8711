"""The child process, against a runtime that misbehaves on request: nothing it does escapes as anything
but a report, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from karat24.delegates.child import Child
from karat24.delegates.protocol import DelegateRun
from karat24.delegates.tflite import TFLITE_PYTHON, TfliteDelegate, TfliteLane
from karat24.delegates.workers import TFLITE_WORKER
from karat24.refimpl.errors import (
    DelegateCrashed,
    DelegateError,
    DelegateTimeout,
    DelegateUnavailable,
    FeedError,
)

HERE = Path(__file__).resolve().parent
FAKE = HERE / "fake_runtime"
LANE = TfliteLane("fake", "", ("tflite_runtime",), "BUILTIN_REF", exact_version=True)
X = np.array([1, 2, 3, 250], np.uint8)


def todo(*words: str) -> bytes:
    return json.dumps(words).encode()


@pytest.fixture(autouse=True)
def _fake_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv(TFLITE_PYTHON, sys.executable)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))


@pytest.fixture
def fake() -> Iterator[TfliteDelegate]:
    with TfliteDelegate(LANE) as delegate:
        yield delegate


def scratch(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "scratch").iterdir())


def test_a_plain_run(fake: TfliteDelegate) -> None:
    run = fake.run(todo(), [X])
    assert run.outputs[0].tolist() == [2, 3, 4, 251]
    assert sorted(run.trace.tensors) == [0, 1, 2]
    assert fake.probe().version == "2.14.0"


def test_output_of_a_runtime_is_kept_out_of_the_answers(fake: TfliteDelegate) -> None:
    """Both through Python's standard output and through descriptor 1."""
    for _ in range(3):
        assert fake.run(todo("noise"), [X]).outputs[0].tolist() == [2, 3, 4, 251]


def test_death_by_signal(fake: TfliteDelegate) -> None:
    with pytest.raises(DelegateCrashed, match=r"fake: the runtime died of SIGABRT on model .*Check failed"):
        fake.run(todo("die"), [X])
    assert fake.run(todo(), [X]).outputs[0].tolist() == [2, 3, 4, 251]


def test_a_crash_names_the_model_file(fake: TfliteDelegate, tmp_path: Path) -> None:
    path = tmp_path / "killer.tflite"
    path.write_bytes(todo("die"))
    with pytest.raises(DelegateCrashed, match=r"SIGABRT on .*killer\.tflite"):
        fake.run(path, [X])


def test_an_exit(fake: TfliteDelegate) -> None:
    with pytest.raises(DelegateError, match="ended with exit code 7 on model"):
        fake.run(todo("exit"), [X])


def test_a_refusal_carries_the_runtimes_words(fake: TfliteDelegate) -> None:
    with pytest.raises(DelegateError, match="RuntimeError: this op is not to my taste"):
        fake.run(todo("refuse"), [X])


def test_a_hang_is_ended_and_the_next_model_runs(tmp_path: Path) -> None:
    with TfliteDelegate(LANE) as fake:
        fake.run(todo(), [X])  # the start-up must not count against the short limit below
        fake._child.time_limit = 0.2
        hung = fake._child._process
        assert hung is not None
        with pytest.raises(DelegateTimeout, match=r"no answer about model \w+ within 0.2 s"):
            fake.run(todo("hang"), [X])
        assert hung._popen.returncode == -signal.SIGKILL
        fake._child.time_limit = 600
        answers = list(
            fake.run_many([(todo(), [X]), (todo("exit"), [X]), (todo("refuse"), [X]), (todo(), [X])])
        )
    assert [type(a) for a in answers] == [DelegateRun, DelegateError, DelegateError, DelegateRun]


def test_a_capture_that_disturbs_the_run_is_reported(fake: TfliteDelegate) -> None:
    assert fake.run(todo("disturbed"), [X]).capture_changed == (2,)
    assert fake.run(todo("disturbed"), [X], check_capture=False).capture_changed == ()
    assert fake.run(todo("disturbed"), [X], tensors="outputs").capture_changed == ()


def test_a_tensor_overwritten_in_place(fake: TfliteDelegate) -> None:
    run = fake.run(todo("in place"), [X])
    assert dict(run.unreadable) == {1: "layer 1 (MUL) ran in place over it"}
    assert 1 not in run.trace.tensors


def test_a_reshape_in_place_harms_nothing(fake: TfliteDelegate) -> None:
    run = fake.run(todo("in place", "renamed"), [X])
    assert not run.unreadable
    assert run.trace.tensors[1].tolist() == [2, 3, 4, 251]


def test_a_tensor_without_a_value(fake: TfliteDelegate) -> None:
    run = fake.run(todo("no value"), [X])
    assert dict(run.unreadable) == {
        1: "the runtime keeps no value for it: Tensor data is null. Run allocate_tensors() first"
    }


def test_a_wrong_feed_reaches_no_runtime(fake: TfliteDelegate) -> None:
    with pytest.raises(
        FeedError, match=r"input 'x' \(tensor 0\): got uint8 \(5,\), the model needs uint8 \(4,\)"
    ):
        fake.run(todo("die"), [np.zeros(5, np.uint8)])


def test_an_interpreter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TFLITE_PYTHON, "/nowhere/python")
    probe = TfliteDelegate(LANE).probe()
    assert not probe.available
    assert probe.reason == "cannot start /nowhere/python: No such file or directory"


def test_a_runtime_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    lane = TfliteLane("gone", "", ("tflite_runtime",), "AUTO", remedy="install it")
    with TfliteDelegate(lane) as delegate:
        probe = delegate.probe()
        assert not probe.available
        assert "tflite_runtime: ModuleNotFoundError" in probe.reason
        assert probe.remedy == "install it"
        with pytest.raises(DelegateUnavailable, match=r"ModuleNotFoundError.*; install it"):
            delegate.run(todo(), [X])
        with pytest.raises(DelegateUnavailable):
            list(delegate.run_many([(todo(), [X])]))


def test_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane named after a version is unavailable under another; one that is not says so and runs."""
    older = TfliteLane("old", "litert-2.3-ref", ("tflite_runtime",), "AUTO", exact_version=True)
    loose = TfliteLane("loose", "litert-2.3-ref", ("tflite_runtime",), "AUTO")
    for lane, available in ((older, False), (loose, True)):
        with TfliteDelegate(lane) as delegate:
            probe = delegate.probe()
        assert probe.available is available
        assert probe.reason == (
            "tflite-runtime 2.14.0 is installed; profile litert-2.3-ref was established on 2.3: "
            "pip install 'ai-edge-litert==2.3.*'"
        )


def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    with TfliteDelegate(LANE) as fake:
        for _ in range(5):
            fake.run(todo(), [X])
        (directory,) = scratch(tmp_path)
        assert len(list(directory.iterdir())) == 1, "only the model last run is kept"
        with pytest.raises(DelegateCrashed):
            fake.run(todo("die"), [X])
        fake.run(todo(), [X])
        assert len(scratch(tmp_path)) == 1
    assert scratch(tmp_path) == []


def test_a_forgotten_delegate_ends_its_child(tmp_path: Path) -> None:
    fake = TfliteDelegate(LANE)
    fake.run(todo(), [X])
    process = fake._child._process
    assert process is not None
    popen = process._popen
    del fake, process
    assert popen.returncode is not None
    assert scratch(tmp_path) == []


PARENT = """
import json, sys
from karat24.delegates.tflite import TfliteLane, TfliteDelegate
import numpy as np
fake = TfliteDelegate(TfliteLane("fake", "", ("tflite_runtime",), "BUILTIN_REF"))
fake.run(b"[]", [np.zeros(4, np.uint8)])
process = fake._child._process
print(process._popen.pid, process.scratch, flush=True)
fake.run(b'["hang"]', [np.zeros(4, np.uint8)])
"""


@pytest.mark.skipif(os.name != "posix", reason="looks for processes the POSIX way")
def test_a_killed_parent_leaves_neither_process_nor_files(tmp_path: Path) -> None:
    """The parent dies by SIGKILL, which lets it clean up nothing, while its child runs a model."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), str(FAKE)]),
        "TMPDIR": str(tmp_path / "scratch"),
    }
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert parent.stdout is not None
    pid, directory = parent.stdout.readline().split()
    assert Path(directory).is_dir()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    patience = time.monotonic() + 60
    while (_running(int(pid)) or Path(directory).exists()) and time.monotonic() < patience:
        time.sleep(0.02)
    assert not _running(int(pid))
    assert not Path(directory).exists()


@pytest.mark.skipif(os.name != "posix", reason="looks for processes the POSIX way")
def test_a_worker_nobody_listens_to_removes_its_files(tmp_path: Path) -> None:
    """The parent dies between its request and the answer; the worker may notice that by writing first."""
    folder = tmp_path / "scratch" / "karat24-test"
    folder.mkdir()
    (folder / "feed1.npy").write_bytes(b"x")
    worker = subprocess.Popen(
        [sys.executable, str(TFLITE_WORKER), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None
    worker.stdout.close()
    worker.stdin.write(json.dumps({"ask": "nonsense", "id": 1}) + "\n")
    worker.stdin.flush()
    assert worker.wait(60) == 0
    assert "Traceback" not in worker.stderr.read()
    assert not folder.exists()
    worker.stdin.close()
    worker.stderr.close()


def _running(pid: int) -> bool:
    """Whether the process exists and is no zombie waiting for an adoptive parent to look."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_child_whose_worker_is_no_worker() -> None:
    """Whatever the program prints and however it ends, it is an error that quotes it."""
    child = Child("odd", worker=HERE / "absent_worker.py")
    with pytest.raises(
        DelegateError, match=r"odd: the runtime ended with exit code 2 on it; .*absent_worker"
    ):
        child.ask("run", "it")
    child.stop()
