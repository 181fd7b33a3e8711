"""What pip brings beside this project is what the profiles were established on."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from karat24.refimpl.profiles import PROFILES, Established

ROOT = Path(__file__).resolve().parent.parent
ESTABLISHED = {p.established.package: p.established for p in PROFILES.values() if p.established is not None}


def requirements() -> dict[str, Requirement]:
    """What an install with the extra ``onnx`` asks for, by distribution."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [Requirement(text) for text in project["dependencies"]]
    found += [Requirement(text) for text in project["optional-dependencies"]["onnx"]]
    return {requirement.name: requirement for requirement in found}


def following(version: str) -> str:
    """The next minor version: 1.33.0 after 1.32."""
    major, minor = version.split(".")[:2]
    return f"{major}.{int(minor) + 1}.0"


@pytest.mark.parametrize("package", ["ai-edge-litert", "onnxruntime", "onnx"])
def test_a_default_install_brings_an_established_version_and_no_later_one(package: str) -> None:
    established, allowed = ESTABLISHED[package], requirements()[package].specifier
    newest = established.versions[-1]
    assert allowed.contains(f"{newest}.0")
    assert not allowed.contains(following(newest))
    assert not established.covers(following(newest))


@pytest.mark.parametrize("package", ["ai-edge-litert", "onnxruntime", "onnx"])
def test_the_installed_version_is_established(package: str) -> None:
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert ESTABLISHED[package].covers(version), f"{version}: {ESTABLISHED[package].remedy}"


def test_every_profile_says_what_it_was_held_against() -> None:
    documented_only = {name for name, profile in PROFILES.items() if profile.established is None}
    assert documented_only == {"tensorrt", "edgetpu"}
    for established in ESTABLISHED.values():
        assert established.versions
        assert established.processors


def test_versions_are_compared_number_by_number() -> None:
    known = Established("runtime", ("1.3", "1.31.1"), ("any",))
    covered = {v: known.covers(v) for v in ("1.3", "1.3.9", "1.31.1", "1.31.1.post1")}
    assert all(covered.values()), covered
    others = {v: known.covers(v) for v in ("1", "1.30", "1.31", "1.31.2", "1.31.10", "11.3")}
    assert not any(others.values()), others
    assert known.remedy == "pip install 'runtime==1.31.1'"
