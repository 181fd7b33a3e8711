"""The tutorials do what they say: their commands run as a reader types them, and print what is shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shared_models import MODELS

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "tutorials"
ROOT = FOLDER.parents[1]
TUTORIALS = sorted(path.name for path in FOLDER.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOWNLOADED = "mlperf_tiny/kws_ref_model.tflite"

STARTERS = {
    "karat24": f"exec '{sys.executable}' -c 'from karat24.cli import main; raise SystemExit(main())' \"$@\"",
    "python": f"exec '{sys.executable}' \"$@\"",
    "curl": 'name=$(basename "$2")\ncp "$KARAT24_TEST_MODELS/mlperf_tiny/$name" "$name"',
}
"""What stands in for a reader's commands: this karat24, this Python, and models from a folder."""


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, and the lines shown below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, shown


def require_shown(shown: list[str], printed: str, command: str) -> None:
    """Every line shown was printed, in that order; ``…`` stands for any text, on its own for any lines.

    Blanks count as one: how columns are aligned depends on the values.
    """

    def plain(line: str) -> str:
        return re.sub(r" +", " ", line).rstrip()

    pattern = "".join(
        r"(?:[^\n]*\n)*?" if line == "…" else r"[^\n]*".join(map(re.escape, plain(line).split("…"))) + r"\n"
        for line in shown
    )
    lines = "".join(f"{plain(line)}\n" for line in printed.splitlines())
    if not re.fullmatch(pattern, lines):
        pytest.fail(f"{command}\nshown:\n" + "\n".join(shown) + f"\nprinted:\n{printed}", pytrace=False)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where a reader's commands are found: ``karat24``, ``python`` and ``curl`` in front of the others."""
    if shutil.which("bash") is None or shutil.which("git") is None or os.name != "posix":
        pytest.skip("the tutorials' commands are run by bash, with git")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in STARTERS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return {
        **os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "KARAT24_TEST_MODELS": str(MODELS),
        "NO_COLOR": "1", "GITHUB_ACTIONS": "", "PYTEST_ADDOPTS": "-p no:cacheprovider", "COLUMNS": "200",
    }  # fmt: skip


@pytest.mark.parametrize("name", TUTORIALS)
def test_it_does_what_it_says(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    if "curl" in text and not (MODELS / DOWNLOADED).is_file():
        pytest.skip(f"{MODELS} is absent; set KARAT24_MODELS to the folder of public models")
    work = tmp_path / "work"
    work.mkdir()
    ran = 0
    for language, block in BLOCK.findall(text):
        if language == "python":
            named = re.match(r"# (\w+\.py)\n", block)
            assert named is not None, "a block of Python is a file, named in its first line"
            (work / named[1]).write_text(block, encoding="utf-8")
            continue
        assert language == "console"
        for command, shown in commands(block):
            done = subprocess.run(
                ["bash", "-c", f"exec 2>&1; {command}"], cwd=work, env=environment, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            if "echo" not in command:
                assert done.returncode == 0, f"{command}\n{done.stdout}"
            require_shown(shown, done.stdout, command)
            ran += 1
    assert ran >= 4


def test_what_is_shown_is_compared() -> None:
    """A wrong line, a missing one and a wrong order are seen; blanks that only align columns are not."""
    printed = "layer  op\n0      CONV\n1      ADD\nexit code 0\n"
    require_shown(["layer  op", "…", "exit code 0"], printed, "")
    require_shown(["layer op", "0 C…", "1      ADD", "exit code 0"], printed, "")
    for wrong in (
        ["layer  op", "exit code 0"],
        ["layer  op", "…", "exit code 1"],
        ["…", "1      ADD", "0      CONV", "…"],
        ["layer  op", "0      MUL", "…"],
    ):
        with pytest.raises(pytest.fail.Exception):
            require_shown(wrong, printed, "")


@pytest.mark.parametrize("name", TUTORIALS)
def test_what_it_links_is_there(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert all((FOLDER / target).is_file() for target in targets), targets
    assert "![" in text, "a picture"


@pytest.fixture(scope="module")
def workflow() -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load((FOLDER / "karat24.yml").read_text(encoding="utf-8"))


def test_the_workflow_is_whole(workflow: Any) -> None:
    """Every step uses an action of a fixed version or runs a command; the cache is where kernels are kept."""
    job = workflow["jobs"]["check"]
    assert workflow[True] == {"push": None, "pull_request": None}, "YAML 1.1 reads the key 'on' as true"
    assert workflow["permissions"] == {"contents": "read"}
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/checkout@v4"))
    (cache,) = (step for step in job["steps"] if step.get("uses", "").startswith("actions/cache@"))
    assert job["env"]["KARAT24_CACHE_DIR"].endswith("/" + cache["with"]["path"])


def test_the_workflow_s_check_runs(workflow: Any, tmp_path: Path, environment: dict[str, str]) -> None:
    """Its command, with what Actions sets: a sound golden passes, one of another model fails, both report."""
    (command,) = (
        step["run"] for step in workflow["jobs"]["check"]["steps"] if "golden check" in step.get("run", "")
    )
    environment = {**environment, "GITHUB_ACTIONS": "true"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip

    for number in (0, 1):
        slices = np.random.default_rng(number).random((2, 32, 32, 1), np.float32)
        np.save(tmp_path / f"slices{number}.npy", slices)
    quantize = "karat24 quantize fine-tune --height 32 --width 32 --output repair.tflite"
    assert run(f"{quantize} --calibration slices0.npy").returncode == 0
    assert run(command).returncode == 3, "a model without a golden"
    assert run("karat24 golden record repair.tflite").returncode == 0
    assert run(command).returncode == 0
    assert (tmp_path / "goldens.xml").is_file()
    assert (tmp_path / "goldens.html").is_file()
    assert run(f"{quantize} --calibration slices1.npy").returncode == 0
    assert run(command).returncode == 3, "a stale golden"
