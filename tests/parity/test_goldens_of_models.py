"""Goldens of every public model, recorded on one instruction set, hold on every one that runs here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from karat24.export import read_model
from karat24.export.cut import up_to
from karat24.export.tflite import write_tflite
from karat24.golden.goldens import find_goldens
from karat24.refimpl.kernels.jit.isa import FEATURES, VARIABLE, why_not
from tests.shared_models import CUT_BEFORE_CUSTOM, MODELS, runnable_models

ROOT = Path(__file__).resolve().parents[2]
RUNNABLE = [isa for isa in FEATURES if why_not(isa) is None]


def run(isa: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from karat24.cli import main; raise SystemExit(main())", *arguments]
    environment = {**os.environ, VARIABLE: isa}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


RECORD = """
import sys
from pathlib import Path
from karat24.goldens import record_golden
for model in sys.argv[1:]:
    record_golden(model)
"""


@pytest.fixture(scope="module")
def goldens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model and its golden, recorded with the best instruction set of this machine."""
    names = runnable_models()
    if not names:
        pytest.skip(f"{MODELS} is absent; set KARAT24_MODELS to the folder of public models")
    folder = tmp_path_factory.mktemp("models")
    for name in names:
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        custom = CUT_BEFORE_CUSTOM.get(name)
        if custom is None:
            target.symlink_to(MODELS / name)
            continue
        graph = read_model(MODELS / name)
        needed = next(layer.inputs for layer in graph.layers if layer.op == custom)
        target.write_bytes(write_tflite(up_to(graph, needed).graph))
    models = [str(folder / name) for name in names]
    environment = {**os.environ, VARIABLE: RUNNABLE[0]}
    command = [sys.executable, "-c", RECORD, *models]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(find_goldens(folder)) == len(names)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("isa", RUNNABLE)
def test_every_golden_holds(goldens: Path, isa: str) -> None:
    done = run(isa, "golden", "check", str(goldens), "--models", str(goldens))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("BIT_EXACT") == len(runnable_models())
