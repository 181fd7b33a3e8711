"""Float32 functions of the C library with which LiteRT makes tables, against the library of this machine."""

from __future__ import annotations

import ctypes
import math
import platform
from collections.abc import Callable

import numpy as np
import pytest

from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.rounding.exp_float32 import exp_float32
from karat24.refimpl.spec.tflite.erfcf import erfcf, rounded_erfcf
from karat24.refimpl.spec.tflite.expf import expf, logf
from karat24.refimpl.spec.tflite.tanhf import expm1f

Float = Callable[[np.float32], np.float32]

GENERATOR = np.random.default_rng(24)
SIZES = np.exp(GENERATOR.uniform(-40, 4.6, 1500))
EXPONENTS = np.concatenate(
    [
        SIZES[SIZES < 89],
        -SIZES,
        GENERATOR.uniform(-105, 89, 1500),
        [0.0, 88.72283, 88.722839, -103.97, -103.98],
    ]
).astype(np.float32)
"""All magnitudes, and both sides of where the result becomes infinite and 0."""

ARGUMENTS = {
    "expf": EXPONENTS,
    "logf": np.concatenate([np.exp(GENERATOR.uniform(-103, 88, 1500)), GENERATOR.uniform(0.5, 2, 1500)]),
    "expm1f": np.concatenate([-SIZES, GENERATOR.uniform(-20, 0, 1500), [-18.714973, -18.714975, -1e30]]),
    "erfcf": np.concatenate(
        [
            *(SIZES, -SIZES, GENERATOR.uniform(-7, 11, 3000)),
            [0.0, 0.25, 0.84375, 1.25, 2.857142, 2.857143, 28.0, -5.9999995, -6.0],
        ]
    ),
}
"""What LiteRT's tables ask for, on both sides of every branch."""


def in_glibc(name: str, before: Float, since: Float) -> Float:
    """The definition for the glibc of this machine: 2.41 took functions that round correctly."""
    library, version = platform.libc_ver()
    if library != "glibc":
        pytest.skip(f"the C library is {library or 'unknown'} {version}, not glibc")
    return before if tuple(int(part) for part in version.split(".")) < (2, 41) else since


@pytest.mark.parametrize(
    ("name", "before", "since"),
    [
        ("expf", expf, expf),
        ("logf", logf, logf),
        ("expm1f", expm1f, lambda x: np.float32(math.expm1(float(x)))),
        ("erfcf", erfcf, rounded_erfcf),
    ],
)
def test_they_are_glibcs(name: str, before: Float, since: Float) -> None:
    function = in_glibc(name, before, since)
    library = getattr(ctypes.CDLL("libm.so.6"), name)
    library.argtypes, library.restype = [ctypes.c_float], ctypes.c_float
    values = ARGUMENTS[name].astype(np.float32)
    expected = np.array([library(float(x)) for x in values], np.float32)
    found = np.array([function(x) for x in values], np.float32)
    assert found.tobytes() == expected.tobytes()


def test_the_kernels_exponential_is_the_specs() -> None:
    slow: Array = np.array([expf(x) for x in EXPONENTS], np.float32)
    assert exp_float32(EXPONENTS).tobytes() == slow.tobytes()


def test_expf_is_not_correctly_rounded() -> None:
    """The reason it is written out: of 4,000 arguments some are a float32 step from the nearest."""
    values = np.linspace(0.01, 4, 4000, dtype=np.float32)
    beside = [x for x in values if expf(x) != np.float32(math.exp(float(x)))]
    assert 0 < len(beside) < 20
