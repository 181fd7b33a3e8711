"""Layers as tasks, and the threads that share them out: one compiled call for many layers.

A kernel's loop runs tasks ``begin … end - 1`` of a layer. One stage after the other, threads draw its tasks
a handful at a time, each from its own share first and then from the others'; then they wait for the last
to be done. Nobody waits for a thread to come: who is late finds less to do, and who is alone does it all.
So a thread that sleeps, or that other programs hold up, costs what it would have done and no more.

Shares are the same parts of the image in every layer, so most of what a thread reads it has written itself,
and need not be fetched from another core's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from refimpl.graph import Array
from refimpl.kernels.handout import COUNTER_STEP, draw, report, reported, wait_for
from refimpl.kernels.inner_loop import inner_loop
from refimpl.kernels.packed_call import PackedCall, enter
from refimpl.kernels.threads import handful_for, threads_for

_ENTRY, _ADDRESS, _TASKS, _SHARES, _HANDFUL = range(5)


class Stage:
    """``tasks`` tasks of a loop, ``work`` elementary steps in all, on these arguments.

    ``loop(*arguments, begin, end)`` is compiled code. Called, it runs by itself on as many threads as are in
    force, or one where the work is small.
    """

    def __init__(self, loop: Any, arguments: tuple[Any, ...], tasks: int, work: int) -> None:
        self.call = PackedCall(loop, arguments)
        self.tasks, self.work = tasks, work

    def __call__(self) -> None:
        """Runs the layer."""
        Stages([self], numba.get_num_threads())()


class Stages:
    """Stages that run one after the other, on ``threads`` threads; Numba must be set to as many."""

    def __init__(self, stages: Sequence[Stage], threads: int) -> None:
        self._stages, self._threads = stages, threads
        rows = [_row(stage, threads) for stage in stages]
        self._table = np.array(rows, np.int64).reshape(len(rows), 5)
        self._alone = threads == 1 or all(row[_SHARES] == 1 for row in rows)
        self._counters = np.zeros(len(rows) * (threads + 1) * COUNTER_STEP + 1, np.int64)

    def __call__(self) -> None:
        """Runs them all. Raises what a task raises: MemoryError, as a rule, since a tile needs some."""
        if self._alone:
            failures = _run_alone(self._table)
        else:
            failures = _run_together(self._table, self._counters, self._threads)
        if failures:
            for stage in self._stages:
                stage.call(0, stage.tasks)  # says what was wrong
            raise MemoryError("a layer's buffers could not be allocated")


def _row(stage: Stage, threads: int) -> tuple[int, ...]:
    shares = threads_for(stage.work, threads)
    handful = handful_for(stage.tasks, stage.work, shares)
    return stage.call.entry, stage.call.address, stage.tasks, shares, handful


@inner_loop
def _run_alone(table: Array) -> int:
    """How many stages failed: 0, or 1 and those behind did not run."""
    for stage in range(table.shape[0]):
        row = table[stage]
        if enter(row[_ENTRY], row[_ADDRESS], 0, row[_TASKS]):
            return 1
    return 0


@njit(cache=True, nogil=True, parallel=True)
def _run_together(table: Array, counters: Array, threads: int) -> int:
    """How many handfuls failed. ``counters`` has one more than the stages need, for that."""
    _reset(counters)
    for worker in prange(threads):
        _work(table, counters.ctypes.data, worker, threads)
    failures: int = counters[counters.size - 1]
    return failures


@inner_loop
def _reset(counters: Array) -> None:
    for i in range(counters.size):
        counters[i] = 0


@inner_loop
def _work(table: Array, counters: int, worker: int, threads: int) -> None:
    """All stages, as one thread does them: per stage a counter of each share, and one of tasks done."""
    step = 8 * COUNTER_STEP
    per_stage = (threads + 1) * step
    failures = counters + table.shape[0] * per_stage
    for stage in range(table.shape[0]):
        row = table[stage]
        tasks, shares, handful = row[_TASKS], row[_SHARES], row[_HANDFUL]
        drawn = counters + stage * per_stage
        done = drawn + threads * step
        if reported(done) >= tasks:
            continue
        for turn in range(shares):
            owner = (worker + turn) % shares
            first, end = tasks * owner // shares, tasks * (owner + 1) // shares
            begin = first + draw(drawn + owner * step, handful)
            while begin < end:
                stop = min(begin + handful, end)
                if enter(row[_ENTRY], row[_ADDRESS], begin, stop):
                    draw(failures, 1)
                report(done, stop - begin)
                begin = first + draw(drawn + owner * step, handful)
        wait_for(done, tasks)
