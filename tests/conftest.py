"""What tests of every room share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from karat24.refimpl.graph import Array
    from tests.support.runtimes import Runtimes


@pytest.fixture(scope="session")
def runtimes() -> Iterator[Runtimes]:
    """Runtimes by name, each started once: starting one, and asking it what processor it sees, takes longer
    than most tests do. Tests of how a delegate starts, ends or fails make one of their own.
    """
    from tests.support.runtimes import kept_runtimes  # the process that only hands out tests imports nothing

    with kept_runtimes() as found:
        yield found


@pytest.fixture(scope="session")
def emulated_runtimes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtimes]:
    """Lanes of ONNX Runtime on an emulated processor without VNNI, each started once: that takes seconds."""
    from tests.support.avx2_runtime import emulated_runtime
    from tests.support.runtimes import kept_runtimes

    folder = tmp_path_factory.mktemp("avx2")
    with kept_runtimes(lambda name: emulated_runtime(name, folder)) as found:
        yield found


@pytest.fixture
def simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices that networks are calibrated on are simulated once for all tests that need equal ones."""
    from karat24.tomography import calibration_inputs

    monkeypatch.setattr(calibration_inputs, "simulated", _kept(calibration_inputs.simulated))


@functools.cache
def _kept(simulated: Callable[..., Array]) -> Callable[..., Array]:
    return functools.cache(simulated)
