"""The environment of new processes must not outlive them: Numba refuses to go on under another number."""

from __future__ import annotations

import os

import pytest

from benchmarks.processes import LIMITS, threads_of_new_processes


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable was set before, the others were not."""
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = dict(os.environ)
    with threads_of_new_processes(3):
        assert {os.environ[name] for name in LIMITS} == {"3"}
    assert dict(os.environ) == before
