"""Building the stand-in for libedgetpu, and a model for it."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from karat24.refimpl.graph import Array
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_standin import compiled

SOURCE = Path(__file__).with_name("fake_edgetpu.c")
BEHAVIOUR = "FAKE_EDGETPU"
"""Environment variable that names what goes wrong."""


def build(folder: Path, source: Path = SOURCE) -> Path:
    """The compiled library; skips without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build a stand-in libedgetpu with")
    path = folder / "libstandin.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, source], check=True)
    return path


@cache
def model() -> bytes:
    return compiled(chain())


def image() -> Array:
    return np.arange(48, dtype=np.int8).reshape(1, 4, 4, 3)
