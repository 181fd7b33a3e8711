"""Runtimes on an emulated 64-bit Arm processor, where ``tests/emulation/arm.sh setup`` put them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROCESSOR = "neoverse-n1"
"""Dot products, as servers and phones have them; QEMU's ``max`` ends LiteRT's optimised kernels."""


def arm_python(monkeypatch: pytest.MonkeyPatch) -> str:
    """The interpreter of the emulated machine, whose processor is set; skips where it was never set up."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = Path(os.environ.get("ARM_HOME") or cache / "karat24-arm") / "python"
    if not python.is_file():
        pytest.skip(f"no emulated Arm machine at {python}: tests/emulation/arm.sh setup")
    monkeypatch.setenv("ARM_CPU", PROCESSOR)
    return str(python)
