"""Scratch memory of compiled loops: aligned pieces that do not overlap, all of it given back."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit

from karat24.refimpl.contract import Target
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.jit.scratch import ALIGNMENT, allocate, piece, piece_size, release
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.support.kernel_against_spec import RULES


@njit
def _two_pieces(kind: Any, count: int, contents: Any, addresses: Any) -> None:
    of_first = piece_size(count, kind.itemsize)
    memory = allocate(of_first + piece_size(count, 4))
    first, second = piece(memory, 0, count, kind.dtype), piece(memory, of_first, count, np.int32)
    for i in range(count):
        first[i], second[i] = i, -i
    for i in range(count):
        contents[0, i], contents[1, i] = first[i], second[i]
    addresses[0], addresses[1] = first.ctypes.data, second.ctypes.data
    release(memory)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 120])
def test_pieces_are_aligned_and_apart(kind: type[Any], count: int) -> None:
    contents, addresses = np.zeros((2, count), np.int64), np.zeros(2, np.int64)
    _two_pieces(np.empty(0, kind), count, contents, addresses)
    np.testing.assert_array_equal(contents, [np.arange(count), -np.arange(count)])
    assert (addresses % ALIGNMENT == 0).all()


def test_more_than_there_is_raises() -> None:
    with pytest.raises(MemoryError, match="tile"):
        _two_pieces(np.empty(0, np.int16), 1 << 58, np.zeros((2, 0), np.int64), np.zeros(2, np.int64))


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc tells how much memory is taken")
@pytest.mark.parametrize(
    ("op", "taps"), [("CONV_2D", (1, 3)), ("CONV_2D", (3, 3)), ("DEPTHWISE_CONV_2D", (3, 3))]
)
def test_what_a_layer_takes_it_gives_back(op: str, taps: tuple[int, int]) -> None:
    """10,000 runs of some 10 KB at least, products taken as they are, by Winograd and by channels."""
    view, values = weighted_layer(WeightedShape(op, size=(2, 40), channels=32, filters=32, taps=taps), 0)
    kernel = KERNELS[op](view, RULES[0], Target())
    run = kernel.bind(values, [np.empty(view.output().shape, np.int8)])  # type: ignore[union-attr]
    run()
    before = _resident_pages()
    for _ in range(10_000):
        run.call(0, run.tasks)
    assert (_resident_pages() - before) * mmap.PAGESIZE < 50 << 20
