"""Small networks and layers use several threads here as large ones do: there threads can go wrong."""

from __future__ import annotations

import pytest

from karat24.refimpl import engine
from karat24.refimpl.kernels.threads import thread_count as threads


@pytest.fixture(autouse=True)
def _threads_even_for_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SERIAL_WORK", 0)


@pytest.fixture
def tiny_layers_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer is shared out among the threads, a task at a time."""
    monkeypatch.setattr(threads, "SMALL_WORK", 0)
    monkeypatch.setattr(threads, "CHUNK_WORK", 0)
