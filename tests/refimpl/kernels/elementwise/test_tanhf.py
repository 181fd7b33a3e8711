"""The two reimplementations of glibc's float32 tanh."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest

from refimpl.graph import Array
from refimpl.kernels.elementwise.tanhf import tanh_float32
from refimpl.spec.tflite.tanhf import tanhf

LAST_FDLIBM = (2, 40)
"""glibc 2.41 replaced tanhf."""


def arguments() -> Array:
    """Both sides of every branch, all magnitudes, and the range that 8-bit tables use."""
    generator = np.random.default_rng(0)
    edges = [
        0.0,
        2.0**-56,
        2.0**-55,
        2.0**-27,
        2.0**-26,
        0.17328679,
        0.51986039,
        0.87,
        1.0,
        7.7,
        19.7,
        21.999998,
        22.0,
    ]
    near = np.array(edges, np.float32)
    beside = [near, np.nextafter(near, np.float32(100.0)), np.nextafter(near, np.float32(0.0))]
    spread = generator.uniform(-8, 8, 4000), np.exp(generator.uniform(-45, 4, 4000))
    positive = np.concatenate([*beside, *spread, [1e30]]).astype(np.float32)
    return np.concatenate([positive, -positive])


def test_both_give_the_same_bits() -> None:
    values = arguments()
    slow = np.array([tanhf(x) for x in values], np.float32)
    assert slow.tobytes() == tanh_float32(values).tobytes()


def test_they_are_glibcs() -> None:
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(int(part) for part in version.split(".")) > LAST_FDLIBM:
        pytest.skip(f"C library {name} {version}; the runtimes were judged with glibc up to 2.40")
    library = ctypes.CDLL("libm.so.6").tanhf
    library.argtypes, library.restype = [ctypes.c_float], ctypes.c_float
    values = arguments()
    expected = np.array([library(float(x)) for x in values], np.float32)
    assert tanh_float32(values).tobytes() == expected.tobytes()


def test_it_is_not_correctly_rounded() -> None:
    """The reason it exists: a correctly rounded tanh gives 0.4414063 here, other bits."""
    assert tanhf(np.float32(0.0023817892652004957) * np.float32(199)) == np.float32(0.44140625)
