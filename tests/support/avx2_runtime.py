"""A processor with AVX2 and without VNNI, which user-mode QEMU emulates on any x86-64 Linux machine.

Worker scripts run on it under an interpreter that is this one behind QEMU. QEMU 7.2 (Debian 12) and 10
(Debian 13) run ONNX Runtime so.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from karat24.delegates.onnx_lanes import ONNX_LANES
from karat24.delegates.onnxruntime import OnnxDelegate

EMULATOR = "qemu-x86_64"
PROCESSOR = "Haswell"
"""AVX2 and FMA, nothing newer: no AVX512, no AVX-VNNI."""


def emulated_python(folder: Path) -> Path:
    """An interpreter in ``folder`` that starts this one on the emulated processor; skips where none can."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("user-mode QEMU emulates an x86-64 processor for Linux programs only")
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        pytest.skip(f"{EMULATOR} is not installed: apt-get install qemu-user")
    path = folder / "python"
    command = shlex.join([emulator, "-cpu", PROCESSOR, sys.executable])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


@contextmanager
def emulated_runtime(lane: str, folder: Path) -> Iterator[OnnxDelegate]:
    """A lane of ONNX Runtime on the emulated processor."""
    python = emulated_python(folder)
    named = next(known for known in ONNX_LANES if known.name == lane)
    with OnnxDelegate(named, time_limit=600.0, python=str(python)) as delegate:
        probe = delegate.probe()
        if not probe.available:
            pytest.skip(f"{probe.reason}; {probe.remedy}")
        yield delegate
