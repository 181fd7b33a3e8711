"""glibc's two float32 tanh functions, each implemented twice."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import numpy as np
import pytest

from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.elementwise.rounded_tanhf import tanh_correctly_rounded
from karat24.refimpl.kernels.elementwise.tanhf import tanh_float32
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.spec.tflite.rounded_tanhf import rounded_tanhf
from karat24.refimpl.spec.tflite.tanhf import tanhf
from tests.cases.tables import near_ties

LAST_FDLIBM = (2, 40)
"""glibc 2.41 replaced tanhf."""

HARDEST = {
    "0x1.713744p-12": "0x1.713744p-12", "0x1.713746p-12": "0x1.713744p-12",
    "0x1.bcee74p-11": "0x1.bcee6cp-11", "0x1.916c0ap-8": "0x1.916ac2p-8", "0x1.a83722p-6": "0x1.a81eep-6",
    "0x1.92bb6ep-4": "0x1.91707ap-4", "0x1.dc0accp-2": "0x1.bc797cp-2", "0x1.416cfep-1": "0x1.1cf0d6p-1",
    "0x1.679054p+0": "0x1.c5cd16p-1", "0x1.a7dd4ep+1": "0x1.fea3eap-1", "0x1.8f60bep+2": "0x1.ffffp-1",
    "0x1.205966p+3": "0x1.fffffep-1", "0x1.205968p+3": "0x1p+0",
}  # fmt: skip
"""Arguments whose tanh lies within 2^-47 of halfway between two float32 values, and what glibc 2.41 gives;
the last two stand where the result becomes 1."""


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


@pytest.mark.parametrize(("spec", "kernel"), [(tanhf, tanh_float32), (rounded_tanhf, tanh_correctly_rounded)])
def test_both_give_the_same_bits(spec: Any, kernel: Any) -> None:
    values = arguments()
    slow = np.array([spec(x) for x in values], np.float32)
    assert slow.tobytes() == kernel(values).tobytes()


def test_they_are_glibcs() -> None:
    name, version = platform.libc_ver()
    if name != "glibc":
        pytest.skip(f"the C library is {name or 'unknown'} {version}, not glibc")
    new = tuple(int(part) for part in version.split(".")) > LAST_FDLIBM
    library = ctypes.CDLL("libm.so.6").tanhf
    library.argtypes, library.restype = [ctypes.c_float], ctypes.c_float
    values = arguments()
    expected = np.array([library(float(x)) for x in values], np.float32)
    found = tanh_correctly_rounded(values) if new else tanh_float32(values)
    assert found.tobytes() == expected.tobytes()


def test_the_hardest_arguments_are_rounded_correctly() -> None:
    """A tanh in float64 that is off by a few of its last bits would round some of them the other way."""
    values = np.array([float.fromhex(text) for text in HARDEST], np.float32)
    expected = np.array([float.fromhex(text) for text in HARDEST.values()], np.float32)
    for sign in (np.float32(1), np.float32(-1)):
        assert (tanh_correctly_rounded(sign * values) == sign * expected).all()
        assert [rounded_tanhf(sign * x) for x in values] == (sign * expected).tolist()


@pytest.mark.parametrize("base", ["litert-2.3-ref", "litert-2.3-builtin", "litert-2.3-xnnpack"])
def test_tables_follow_the_c_library(base: str) -> None:
    """Some case near a tie differs between the libraries; kernel and definition agree under each."""
    differing = 0
    for case in near_ties():
        if case.graph.view(0).op != "TANH":
            continue
        tables = []
        for name in (base, f"{base}-glibc-2.41", f"{base}-other-libc"):
            slow, fast = (
                compile_graph(case.graph, name, 1, implementation).run(case.feeds).outputs[0]
                for implementation in ("spec", "kernels")
            )
            assert np.array_equal(slow, fast)
            tables.append(slow)
        differing += int((tables[0] != tables[1]).sum())
        assert PROFILES[f"{base}-other-libc"].rule(case.graph.view(0)).method == "unspecified"
        assert np.array_equal(tables[2], tables[1]) or base.endswith("xnnpack")
    assert differing > 0


def test_it_is_not_correctly_rounded() -> None:
    """The reason it exists: a correctly rounded tanh gives 0.4414063 here, other bits."""
    assert tanhf(np.float32(0.0023817892652004957) * np.float32(199)) == np.float32(0.44140625)
