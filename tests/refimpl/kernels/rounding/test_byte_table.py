"""Bytes looked up many at a time and one at a time: every value, every width about a register's 64."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from numba import njit

from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit import isa
from karat24.refimpl.kernels.rounding import byte_table
from tests.support.guard_pages import GuardPages, exit_code, read_behind_the_end

LookUp = Callable[[Array, Array, Array, int, int, int], None]

WIDTHS = (0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200)
WAYS = ("whatever this machine has", "one by one")


def look_up(way: str) -> LookUp:
    """The loop compiled for this machine, or for one without the instruction."""

    @njit
    def compiled(table: Array, source: Array, target: Array, rows: int, step: int, width: int) -> None:
        byte_table.look_up_bytes(
            table.ctypes.data, source.ctypes.data, target.ctypes.data, rows, step, width
        )  # fmt: skip

    asked: list[str] = []

    def absent(feature: str) -> bool:
        asked.append(feature)
        return False

    with pytest.MonkeyPatch.context() as patch:
        if way == "one by one":
            patch.setattr(byte_table, "compiles_for", absent)
        compiled(*(np.zeros(256, np.uint8) for _ in range(3)), 1, 0, 1)
    assert asked == ([byte_table.FEATURE] if way == "one by one" else [])
    return compiled  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", WAYS)
def test_every_width_in_place_and_elsewhere(way: str) -> None:
    """Rows side by side and apart; what lies between them keeps its bytes."""
    compiled, random = look_up(way), np.random.default_rng(0)
    table = random.permutation(256).astype(np.uint8)
    for width in WIDTHS:
        for step in (width, width + 5):
            values = random.integers(0, 256, 3 * step + 1).astype(np.uint8)
            expected = values.copy()
            for row in range(3):
                mine = slice(row * step, row * step + width)
                expected[mine] = table[values[mine]]
            elsewhere = values.copy()
            compiled(table, values, elsewhere, 3, step, width)
            np.testing.assert_array_equal(elsewhere, expected)
            compiled(table, values, values, 3, step, width)
            np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("way", WAYS)
def test_every_byte_finds_its_entry(way: str) -> None:
    compiled, values = look_up(way), np.arange(256).astype(np.uint8)
    for table in (values, values[::-1].copy(), values ^ 0x80, values // 2):
        found = np.zeros(256, np.uint8)
        compiled(table, values, found, 1, 0, 256)
        np.testing.assert_array_equal(found, table)


def _between_guard_pages() -> None:
    for way in WAYS:
        compiled, pages = look_up(way), GuardPages()
        table = pages.array(np.arange(256).astype(np.uint8)[::-1], at_end=True)
        for width in WIDTHS:
            for at_end in (False, True):
                values = pages.array(np.full(width, 7, np.uint8), at_end)
                compiled(table, values, values, 1, 0, width)
                assert (values == 248).all()


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages need mprotect, which is POSIX")
def test_nothing_is_touched_outside_the_rows() -> None:
    assert exit_code(read_behind_the_end) not in (0, None)  # the guard bites
    assert exit_code(_between_guard_pages) == 0


def test_features_are_those_of_numbas_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "_compiled_for", lambda: ("x86_64", frozenset({"avx512vbmi"})))
    assert isa.compiles_for("avx512vbmi")
    assert not isa.compiles_for("avx2")
