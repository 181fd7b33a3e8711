"""What is installed: one package, whatever lies beside it, under a name that is ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from karat24.export.tflite import write_tflite
from tests.support.small_network import small_graph

ROOT = Path(__file__).resolve().parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def packages_in_the_tree() -> set[str]:
    """Every folder of Python files that ``package-dir`` maps, by the name it is imported by."""
    return {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts))
        for package, folder in SETUPTOOLS["package-dir"].items()
        for path in (ROOT / folder).rglob("*.py")
    }


def tracked_files() -> list[str]:
    """What git holds, or would: neither environments nor what a build left behind."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this folder is not a git checkout: its own files cannot be told from others")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_every_package_is_listed() -> None:
    """A package that is not listed is missing from the wheel, and from nowhere else."""
    assert set(SETUPTOOLS["packages"]) == packages_in_the_tree()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, which no earlier build has left files in."""
    pytest.importorskip("setuptools", reason="setuptools is not installed: the wheel cannot be built")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked_files():
        if not name.startswith(("tests/", "benchmarks/", "training/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", str(target), str(source)], check=True)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    """Two distributions that own ``export/`` overwrite each other's files, and pip does not notice."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"karat24"}
    assert "karat24/refimpl/networks/trained/tomogan-bilinear.npz" in names, "trained weights must ship"


HOSTILE = ("export", "golden", "delegates", "refimpl")
"""Names of the rooms, which files of a user's own may have, too: a well-known detector has an export.py."""

SCRIPT = """
import sys
import karat24
import karat24.delegates
import karat24.golden.verify
print(karat24.__file__)
print(len(karat24.read_model(sys.argv[1]).layers))
"""


def test_files_of_a_users_own_are_not_imported(wheel: Path, tmp_path: Path) -> None:
    """Beside the user's script lie files named as the rooms are; each ends the process that imports it."""
    site, folder = tmp_path / "site", tmp_path / "work"
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in HOSTILE:
        (folder / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')\n")
    graph = small_graph()
    (folder / "model.tflite").write_bytes(write_tflite(graph))
    (folder / "main.py").write_text(SCRIPT)

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    assert "a file of the user" in python("-c", "import export").stderr, "the trap must be able to close"
    run = python("main.py", "model.tflite")
    assert run.returncode == 0, run.stdout + run.stderr
    where, layers = run.stdout.split()
    assert Path(where).is_relative_to(site), "the package imported must be the wheel's"
    assert int(layers) == len(graph.layers)


COPIED = {".md", ".py", ".toml", ".yaml", ".yml", ".sh", ".json", ".html", ""}
"""Suffixes of the files that users copy from, or that programs show them."""


def test_the_old_name_is_nowhere() -> None:
    """``karat`` is another project on PyPI: nobody must be told to install or import it.

    24 karat is a measure of gold and no name; the classes of errors keep theirs.
    """
    pattern = re.compile(r"(?<!24 )\bkarat\b|\bKARAT_|\bkarat_")
    wrong = [
        f"{name}:{number}: {line.strip()}"
        for name in tracked_files()
        if Path(name).suffix in COPIED and ROOT / name != Path(__file__)
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not wrong, "\n".join(wrong)
