"""``karat24 doctor`` says what is here, what is missing and what helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from karat24.cli import doctor
from karat24.cli.main import main
from karat24.delegates import DELEGATES
from karat24.refimpl.kernels.jit.isa import chosen_isa


def test_it_names_processor_cache_and_every_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"instruction set of the kernels: {chosen_isa()}\n" in said
    assert "compiled kernels: " in said
    lines = [line.split() for line in said.split("runtimes:\n")[1].splitlines()]
    assert {line[0] for line in lines if line[1:2] in (["here"], ["missing"])} == set(DELEGATES)


def test_a_missing_package_comes_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "h5py" else name)
    (line,) = doctor._extras()
    assert line == "not installed: h5py, for tomography scans in HDF5; pip install 'karat24[image]'"


def test_nothing_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    assert list(doctor._extras()) == ["optional packages: all here"]


def test_the_cache_is_counted_by_functions_and_bytes(tmp_path: Path) -> None:
    for name, size in (("a.nbi", 3), ("a.1.nbc", 40), ("a.2.nbc", 500), ("other.py", 6000)):
        (tmp_path / name).write_bytes(bytes(size))
    assert doctor.cached(tmp_path) == (1, 543)
    assert doctor.cached(tmp_path / "nowhere") == (0, 0)
