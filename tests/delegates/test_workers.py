"""Workers run where nothing of this project can be imported, and beside files named like runtimes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from karat24.delegates.child import Child
from karat24.delegates.workers import ONNX_WORKER, STOPWATCH, TENSORRT_WORKER, TFLITE_WORKER

LANES: dict[Path, dict[str, Any]] = {
    TFLITE_WORKER: {"packages": ["ai_edge_litert"], "resolver": "BUILTIN_REF"},
    ONNX_WORKER: {"provider": "CPUExecutionProvider", "level": "ORT_ENABLE_ALL", "entries": {}},
}
SCRIPTS = (TFLITE_WORKER, ONNX_WORKER, TENSORRT_WORKER, STOPWATCH)
HOSTILE = "raise SystemExit('a file beside the user was imported')"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scripts far from the project, started from a folder of files with tempting names."""
    for name in ("protocol", "tflite_worker", "onnx", "onnxruntime", "numpy", "ai_edge_litert"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    return Path(shutil.copytree(TFLITE_WORKER.parent, tmp_path / "copy" / "workers"))


@pytest.mark.parametrize("worker", LANES, ids=lambda path: path.stem)
def test_a_worker_answers_from_a_folder_of_its_own(worker: Path, elsewhere: Path) -> None:
    child = Child("copied", worker=elsewhere / worker.name)
    try:
        versions = child.ask("probe", "nothing", lane=LANES[worker])["versions"]
    finally:
        child.stop()
    assert next(iter(versions)) in ("ai-edge-litert", "onnxruntime", "onnxruntime-gpu")


@pytest.mark.parametrize("worker", SCRIPTS, ids=lambda path: path.stem)
def test_loading_a_worker_imports_nothing_of_ours(worker: Path, elsewhere: Path) -> None:
    """Without site-packages' .pth files, which make an editable installation importable everywhere."""
    code = (
        "import sys\n"
        f"import {worker.stem}\n"
        "rooms = {'refimpl', 'export', 'delegates', 'golden', 'karat24'}\n"
        "print(sorted(rooms & {name.split('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(elsewhere), "PYTHONSAFEPATH": "1"},
        capture_output=True, text=True, check=False, cwd=elsewhere,
    )  # fmt: skip
    assert (found.stdout, found.returncode) == ("[]\n", 0), found.stderr
