"""Small networks and layers use several threads here as large ones do: there threads can go wrong."""

from __future__ import annotations

import pytest

from refimpl import engine


@pytest.fixture(autouse=True)
def _threads_even_for_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SERIAL_WORK", 0)
