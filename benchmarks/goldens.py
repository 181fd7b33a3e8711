"""``python -m benchmarks.goldens``: the cost of checking an unchanged golden, as a ratio to one traced run.

The check and the run take turns, so that other work on the machine slows both. A traced run is that of a
compiled program; a check reads the model, compiles it, runs it, and hashes every tensor. TomoGAN at 1024×1024
must stay under 1.5 traced runs, MobileNetV2 under 2 s, also as a command in a new process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.models import Model, all_models
from karat24.export import read_model, write_model
from karat24.feeds import random_feeds
from karat24.golden_places import golden_path
from karat24.goldens import check_golden, record_golden
from karat24.refimpl.engine import compile_graph

T = TypeVar("T")
ROUNDS = 15
COMMAND = [sys.executable, "-c", "from karat24.cli import main; raise SystemExit(main())", "golden", "check"]


def main() -> int:
    """Prints a row for each model."""
    print(f"{'model':24} {'traced run':>12} {'check':>12} {'ratio':>7} {'command':>10}")
    with tempfile.TemporaryDirectory() as folder:
        flagship = Path(folder) / "tomogan-bilinear-1024.tflite"
        flagship.write_bytes(write_model(Model("tomogan-bilinear-1024", 1024).quantized()))
        models = [flagship, *(m.path for m in all_models(()) if m.path and "mobilenet_v2" in m.path.name)]
        for model in models:
            print(_row(model, Path(folder)), flush=True)
    return 0


def _row(model: Path, folder: Path) -> str:
    path = golden_path(model, folder)
    record_golden(model, path)
    program = compile_graph(read_model(model))
    feeds = random_feeds(program.graph, 0)
    times: dict[str, list[float]] = {"run": [], "check": [], "command": []}
    for _ in range(ROUNDS):
        _time(lambda: program.run(feeds, trace=True), times["run"])
        assert _time(lambda: check_golden(path), times["check"]).passed
        done = _time(lambda: _command(path), times["command"])
        assert done.returncode == 0, done.stderr
    run, check, command = (median(times[name][2:]) for name in ("run", "check", "command"))
    ratio = median(b / a for a, b in list(zip(times["run"], times["check"], strict=True))[2:])
    return f"{model.stem[:24]:24} {run:10.3f} s {check:10.3f} s {ratio:7.2f} {command:8.2f} s"


def _command(path: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, str(path)], capture_output=True, check=False)


def _time(call: Callable[[], T], times: list[float]) -> T:
    start = time.perf_counter()
    result = call()
    times.append(time.perf_counter() - start)
    return result


if __name__ == "__main__":
    raise SystemExit(main())
