"""Arguments left in memory arrive as they were, whatever their types, and stay as long as the call."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest
from numba import njit

from karat24.refimpl.kernels.jit.packed_call import PackedCall, TaskLoop, enter
from karat24.refimpl.kernels.rounding.requantize import prepare_epilogue
from karat24.refimpl.profiles.rules import Rule
from tests.cases.weighted_layer import WeightedShape, weighted_layer


@njit
def weigh(
    number: int, yes: bool, half: Any, nested: Any, epilogue: Any, table: Any, out: Any, begin: int, end: int
) -> None:
    """Every argument changes another digit of the result."""
    small, (flag, values, ratio), wide = nested
    for i in range(begin, end):
        total = number + 10.0 * yes + 100 * half + 1000 * small + 10_000 * flag
        total += values[i] + ratio + wide + epilogue.low + epilogue.shift[i] + epilogue.table.size
        for k in range(table.shape[1]):
            total += table[i, k]
        out[i] = total


@njit
def copy(source: Any, target: Any, begin: int, end: int) -> None:
    target[begin:end] = source[begin:end]


def arguments(size: int = 5) -> tuple[Any, ...]:
    """Plain tuples and one of the kernels' own: types of this file's would stay in the kernels' cache."""
    rng = np.random.default_rng(size)
    nested = np.int8(-7), (True, rng.random(size, np.float32), 0.125), 1 << 40
    table = np.asfortranarray(rng.integers(-9, 9, (size, 3)).astype(np.int16))
    table.flags.writeable = False
    view, _ = weighted_layer(WeightedShape("CONV_2D", filters=size + 1), size)
    epilogue = prepare_epilogue(view, Rule("ruy", "float64"), view.input(0), view.input(1), view.output())
    return 3, True, np.float32(0.5), nested, epilogue, table, np.zeros(size)


@njit
def enter_by_address(entry: int, address: int, begin: int, end: int) -> int:
    return enter(entry, address, begin, end)


@pytest.mark.parametrize("by_address", [False, True])
@pytest.mark.parametrize(("size", "begin", "end"), [(0, 0, 0), (1, 0, 1), (5, 0, 5), (5, 2, 4), (5, 3, 3)])
def test_values_arrive_as_in_a_plain_call(size: int, begin: int, end: int, by_address: bool) -> None:
    given, expected = arguments(size), arguments(size)
    weigh(*expected, begin, end)
    call = PackedCall(weigh, given)
    if by_address:
        assert enter_by_address(call.entry, call.address, begin, end) == 0
    else:
        call(begin, end)
    np.testing.assert_array_equal(given[-1], expected[-1])


def test_arrays_are_read_when_the_call_is_made() -> None:
    given = arguments()
    call = PackedCall(weigh, given)
    call(0, 5)
    before = given[-1].copy()
    given[3][1][1][...] += 1
    call(0, 5)
    expected = arguments()
    expected[3][1][1][...] += 1
    weigh(*expected, 0, 5)
    np.testing.assert_array_equal(given[-1], expected[-1])
    assert (given[-1] != before).all()


def test_calls_made_one_after_the_other_keep_their_own_arguments() -> None:
    first, second = arguments(4), arguments(6)
    calls = [PackedCall(weigh, first), PackedCall(weigh, second)]
    for call, size in zip(calls, (4, 6), strict=True):
        call(0, size)
    for given, size in ((first, 4), (second, 6)):
        expected = arguments(size)
        weigh(*expected, 0, size)
        np.testing.assert_array_equal(given[-1], expected[-1])


def test_arrays_live_as_long_as_the_call_and_no_longer() -> None:
    values, out = np.arange(1000.0), np.zeros(1000)
    before = sys.getrefcount(values)
    call = PackedCall(copy, (values, out))
    assert sys.getrefcount(values) > before
    for _ in range(100):
        call(0, 1000)
    held = sys.getrefcount(values)
    call(0, 1000)
    assert sys.getrefcount(values) == held, "a call counts no references"
    np.testing.assert_array_equal(out, values)
    del call
    gc.collect()
    assert sys.getrefcount(values) == before


def test_no_owner_of_an_array_is_kept_in_memory() -> None:
    """Numba's owner of an argument is gone once the call that wrote it returns: its address must not stay."""
    values = np.arange(7.0)
    words = TaskLoop(refuse).layout((values,)).pack((values,)).memory.tolist()
    assert words[1:3] == [0, 0], "behind the function: the array's owner, its parent"
    assert values.ctypes.data in words


def test_a_loop_knows_arrays_of_every_kind_apart() -> None:
    """Of another element type, rank, layout, or read-only: as in a plain call."""
    loop, base = TaskLoop(copy), np.arange(24.0)
    readable = base.copy()
    readable.flags.writeable = False
    kinds = [
        base[:],
        base.reshape(1, 24),
        base[::2],
        base.astype(np.float32),
        readable,
        np.asfortranarray(base.reshape(4, 6))[:, 0],
    ]
    for source in [*kinds, *kinds]:
        target = np.zeros(source.shape, source.dtype)
        PackedCall(loop, (source, target))(0, len(source))
        np.testing.assert_array_equal(target, source)


def test_layers_with_arguments_of_equal_types_share_what_was_made_of_them() -> None:
    """Not with arrays of another type, nor with another function of the same ones."""
    values, others = ((np.arange(size), np.zeros(size, int)) for size in (3, 5))
    shared = TaskLoop(copy).layout(values)
    assert TaskLoop(copy).layout(others) is shared
    assert TaskLoop(copy).layout((np.arange(3.0), np.zeros(3))) is not shared
    assert TaskLoop(add).layout(values) is not shared
    for loop, expected in ((copy, [0, 1, 2]), (add, [0, 2, 4])):
        PackedCall(loop, values)(0, 3)
        assert values[1].tolist() == expected


@njit
def add(source: Any, target: Any, begin: int, end: int) -> None:
    target[begin:end] += source[begin:end]


@njit
def refuse(values: Any, begin: int, end: int) -> None:
    for i in range(begin, end):
        if values[i] > 2:
            raise ValueError("more than two")
        values[i] += 1


def test_an_exception_comes_through() -> None:
    values = np.array([1.0, 1.0])
    call = PackedCall(refuse, (values,))
    call(0, 2)
    call(0, 1)
    with pytest.raises(ValueError, match="more than two"):
        call(0, 2)
    assert values.tolist() == [3, 2]


def test_by_its_address_a_call_says_that_it_failed_and_goes_on() -> None:
    values = np.array([1.0, 3.0])
    call = PackedCall(refuse, (values,))
    assert [enter_by_address(call.entry, call.address, i, i + 1) for i in (0, 1, 0)] == [0, 1, 0]
    assert values.tolist() == [3, 3]
