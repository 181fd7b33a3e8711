"""A machine whose C library is not glibc: no runtime is promised there."""

from __future__ import annotations

import json
import os
import platform
import sys

import pytest

from karat24.cli.main import main
from karat24.delegates import delegate_named
from karat24.delegates.c_library import NO_WHEELS, glibc_version, remedy_here
from karat24.refimpl.errors import DelegateUnavailable


@pytest.fixture
def musl(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl's ``confstr`` does not know the name; Python raises OSError then."""

    def confstr(name: str) -> str:
        raise OSError(22, f"Invalid argument: {name}")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "confstr", confstr)


def test_this_machines_c_library_is_named() -> None:
    library, version = platform.libc_ver()
    expected = version if library == "glibc" else "" if sys.platform == "linux" else None
    assert glibc_version() == expected


def test_other_systems_are_not_taken_for_one_without_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert glibc_version() is None
    assert remedy_here("pip install x") == "pip install x"


def test_a_name_that_python_does_not_know_is_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def confstr(name: str) -> str:
        raise ValueError(f"unrecognized configuration name: {name}")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "confstr", confstr)
    assert glibc_version() == ""


@pytest.mark.usefixtures("musl")
def test_doctor_says_that_nothing_can_be_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert f"C library: {NO_WHEELS}" in capsys.readouterr().out


@pytest.mark.usefixtures("musl")
def test_a_missing_runtime_is_not_promised_by_pip(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KARAT24_ONNX_PYTHON", "/no/such/python")
    assert main(["delegates", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["ort"]["available"]
    assert found["ort"]["remedy"] == NO_WHEELS
    with delegate_named("ort") as delegate, pytest.raises(DelegateUnavailable, match="no wheel of numba"):
        delegate.versions()


@pytest.mark.usefixtures("musl")
def test_what_pip_does_not_bring_keeps_its_remedy() -> None:
    assert remedy_here("install Google's Edge TPU runtime") == "install Google's Edge TPU runtime"
