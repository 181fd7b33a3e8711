"""The measured peak of an instruction set: its micro-kernel on data that stays in the first-level cache.

The speed of a convolution is compared with this figure, not with a data sheet: it needs no clock frequency
and no number of units, and a machine that slows down under wide vectors slows down here as well.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numba import njit

from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.microkernel.blocking import Blocking
from karat24.refimpl.kernels.microkernel.microkernel import (
    Microkernel,
    close_block,
    microkernel_for,
    multiply_block,
    open_block,
)
from karat24.refimpl.kernels.microkernel.operands import PixelRuns, Sums
from karat24.refimpl.kernels.threads.layer_sequence import BoundLayer
from karat24.refimpl.kernels.threads.thread_count import threads_in_force
from karat24.refimpl.kernels.threads.thread_pool import WAKING_WORK

RUN = 256
"""Elements of a run: with the widest block, weights and values take 16 KB of a cache of at least 32."""

WIDE = 64
"""Enough filters that an instruction set's widest micro-kernel is chosen."""


def measure_peak(isa: str, threads: int, seconds: float = 0.5) -> float:
    """Multiplication-additions per second, all threads together: the best of several bursts, each
    twice as long as the one before, so that waking threads counts for nothing in the end.

    ``seconds`` is about what it takes once compiled. Raises UsageError for an unknown instruction set.
    """
    kernel = microkernel_for(isa, WIDE)
    pixels, channels, depth, _ = kernel.blocking
    steps = RUN // depth
    data = _data(kernel, steps, threads)
    work = threads * pixels * channels * steps * depth
    calls, best, spent = 64, 0.0, 0.0
    arguments = (kernel.blocking, data, steps)
    with threads_in_force(threads):
        BoundLayer(_repeat, (*arguments, 1), threads, threads * WAKING_WORK)()  # compiles, wakes
        while spent < seconds:
            burst = BoundLayer(_repeat, (*arguments, calls), threads, threads * WAKING_WORK)
            start = time.perf_counter()
            burst()
            took = time.perf_counter() - start
            best = max(best, calls * work / took)
            spent += took
            calls *= 2
    return best


class _Data(NamedTuple):
    """What the threads multiply; each has a row."""

    patches: Array
    """[thread, element]: one block's pixels, of the kernel's elements."""
    weights: Array
    """[thread, weight]: one block's filters, packed."""
    initial: Array
    """int32 [thread, channel]: where sums begin."""
    sums: Array
    """int32 [thread, sum]: where they are written."""
    offset: Array
    """int64 [1]: where the one run of a pixel begins."""


def _data(kernel: Microkernel, steps: int, threads: int) -> _Data:
    """Data for ``threads`` threads and runs of ``steps`` steps."""
    pixels, channels, depth, _ = kernel.blocking
    run = steps * depth
    generator = np.random.default_rng(0)
    patches = generator.integers(0, 100, (threads, pixels * run)).astype(kernel.element)
    weights = generator.integers(-100, 100, (threads, run * channels)).astype(kernel.weight)
    initial = np.zeros((threads, channels), np.int32)
    sums = np.zeros((threads, pixels * channels), np.int32)
    return _Data(patches, weights, initial, sums, np.zeros(1, np.int64))


@njit(cache=True, nogil=True)
def _repeat(blocking: Blocking, data: _Data, steps: int, calls: int, begin: int, end: int) -> None:
    """Multiplies one block ``calls`` times for each task."""
    for worker in range(begin, end):
        patch, weight = data.patches[worker].ctypes.data, data.weights[worker].ctypes.data
        values = PixelRuns(patch, steps * blocking.depth, data.offset.ctypes.data, 1, steps)
        initial, total = data.initial[worker].ctypes.data, data.sums[worker].ctypes.data
        sums = Sums(initial, total, blocking.channels)
        open_block(blocking)
        for _ in range(calls):
            multiply_block(blocking, blocking.pixels, values, weight, sums)
        close_block(blocking)
