"""The process's threads, which help the thread that runs layers and sleep while no thread does.

The threads of Numba's own pool (OpenMP's, as a rule) must all begin and end a parallel loop together: a run
waits for a thread to wake although everything is done, and a process that forks loses the pool. Here the
calling thread leads. It publishes a job and works at once; helpers that are awake, or wake in time, join it.
When its work is done, the leader closes the job and waits only for the helpers that are still in it.

A helper looks for a job for a moment, then announces that it sleeps and checks whether a leader is coming. A
leader announces itself, then wakes the sleeping helpers if the job is worth it. A helper joins a job, then
checks that it is still open; the leader closes it, then checks who is in it. Joining and closing are
sequentially consistent, so no helper works on a job whose leader has left. The announcements are plain writes
from Python: a helper that misses a job leaves it with fewer threads, and nothing else is lost.
"""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from time import perf_counter

import numpy as np

from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit.memory import put, word
from karat24.refimpl.kernels.jit.no_refcount import no_refcount, no_refcount_inside
from karat24.refimpl.kernels.jit.packed_call import enter
from karat24.refimpl.kernels.threads.atomics import (
    COUNTER_STEP,
    announce,
    draw,
    pause,
    processor,
    report,
    reported,
    wait_for,
)

TABLE_COLUMNS = 5
ENTRY, ADDRESS, TASKS, PARTITIONS, CHUNK = range(TABLE_COLUMNS)
"""Columns of a table of layers: both addresses of a ``PackedCall``, the number of tasks, the number of
partitions they are divided into, and the number of tasks a thread draws at a time."""

JOB_TABLE, JOB_LAYERS, _JOB_COUNTERS, _JOB_SIZE, _JOB_THREADS = range(5)
"""Words at a job's address: its table's address, the number of layers in it, its counters' address,
the number of int64s in them, and the number of threads."""

WAKING_WORK = 1 << 20
"""Elementary steps, some 200 µs, from which on helpers are woken for any job. They are woken for a smaller
one only if it follows another at once: a network run now and then is done before they are awake."""

_SOON = 100e-6
"""Seconds between jobs that follow one another."""

MOST_THREADS = 256
"""The pool has room for this many; a request for more gets this many."""

_LINE = 8 * COUNTER_STEP
_COMING, _JOB, _MEMBERS, _JOBS, _TABLE, _LAYERS, _COUNTERS, _THREADS, _PLACE = (n * _LINE for n in range(9))
"""Offsets in the pool's memory, in bytes: whether a leader is coming; the open job's number, or 0; minus the
number of helpers in it; the number of jobs so far; the job's table, its number of layers, its counters and
its number of threads; the processor the leader runs on."""
_ASLEEP = 9 * _LINE
"""Offset of the flags that say whether a helper sleeps, one cache line each."""

_LOOKS = 3000
"""Times a helper looks for the next job before it sleeps, some 60 µs."""

_LOOKS_PER_PLACE = 64
"""Looks for a job between two checks of the processor this thread runs on."""


def counters_for(layers: int, threads: int) -> Array:
    """Zeroed counters for a job of ``layers`` layers on ``threads`` threads, int64."""
    return np.zeros((layers * (threads + 1) + 1) * COUNTER_STEP, np.int64)


class Job:
    """A table of layers, int64 [layer, TABLE_COLUMNS], for at most MOST_THREADS ``threads``.

    ``work`` is in elementary steps. Compiled code finds all this at ``address``. Only one run at a time.
    """

    def __init__(self, table: Array, threads: int, work: int) -> None:
        self.table, self.threads, self.work = table, threads, work
        self._counters = counters_for(len(table), threads)
        counters = self._counters
        self._told = np.array(
            [table.ctypes.data, len(table), counters.ctypes.data, counters.size, threads], np.int64
        )
        self.address: int = self._told.ctypes.data


class ThreadPool:
    """Threads that work together for one caller at a time."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Starts without helpers: a forked process has none."""
        self._lock = threading.Lock()
        self._memory = np.zeros((_ASLEEP + MOST_THREADS * _LINE) // 8, np.int64)
        self._memory[_PLACE // 8] = -1
        self._address: int = self._memory.ctypes.data
        self._words = self._memory.data  # read and written in half the time an array takes
        self._left = 0.0
        self._calls: list[SimpleQueue[None]] = []

    def run(self, job: Job) -> int:
        """Runs a job; returns the number of chunks that ended in an exception."""
        with self._lock:
            while len(self._calls) < job.threads - 1:
                self._start_helper()
            try:
                self._words[_COMING // 8] = 1
                if job.work >= WAKING_WORK or perf_counter() - self._left < _SOON:
                    self._wake(job.threads - 1)
                # One compiled call: an interrupt could leave a job open whose arrays are gone.
                failures: int = _lead(self._address, job.address)
            finally:
                self._words[_COMING // 8] = 0
            self._left = perf_counter()
            return failures

    def _wake(self, helpers: int) -> None:
        for index in range(helpers):
            asleep = _ASLEEP // 8 + index * COUNTER_STEP
            if self._words[asleep]:
                self._words[asleep] = 0
                self._calls[index].put(None)

    def _start_helper(self) -> None:
        memory, call, index = self._memory, SimpleQueue[None](), len(self._calls)
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

        def serve() -> None:
            while True:
                in_the_way = _help(memory, index)
                # The last look marked this helper asleep: a leader may hold Python's lock for long.
                if not (in_the_way and _stepped_aside(memory, allowed)):
                    call.get()

        self._calls.append(call)
        threading.Thread(target=serve, name=f"karat24-{index + 1}", daemon=True).start()


def _stepped_aside(memory: Array, allowed: set[int]) -> bool:
    """Whether this thread now runs on another of the ``allowed`` processors than the leader.

    Linux may wake it there time after time although others are idle: runs then took three times as long.
    """
    others = allowed - {int(memory[_PLACE // 8])}
    try:
        if others:
            os.sched_setaffinity(0, others)
    except OSError:  # the process may use fewer than it could
        return False
    return bool(others)


POOL = ThreadPool()


@no_refcount
def _lead(pool: int, job: int) -> int:
    """Opens the job at an address, works, closes it, waits for its helpers; returns the number of failed
    chunks.
    """
    table, layers, threads = word(job, JOB_TABLE), word(job, JOB_LAYERS), word(job, _JOB_THREADS)
    counters, size = word(job, _JOB_COUNTERS), word(job, _JOB_SIZE)
    for i in range(size):
        put(counters, i, 0)
    put(pool, _TABLE // 8, table)
    put(pool, _LAYERS // 8, layers)
    put(pool, _COUNTERS // 8, counters)
    put(pool, _THREADS // 8, threads)
    put(pool, _PLACE // 8, processor())
    # Jobs have rising numbers, so no helper takes this job for the one before.
    put(pool, _JOBS // 8, word(pool, _JOBS // 8) + 1)
    announce(pool + _JOB, word(pool, _JOBS // 8))
    work(table, layers, counters, 0, threads)
    announce(pool + _JOB, 0)
    wait_for(pool + _MEMBERS, 0)
    failures: int = word(counters, size - COUNTER_STEP)
    return failures


@no_refcount
def _help(memory: Array, index: int) -> bool:
    """Joins every job until there has been none for a while, then marks this helper asleep.

    True if it stopped earlier because it runs on the processor the leader ran on last, whose time it would
    only take.
    """
    pool = memory.ctypes.data
    asleep = pool + _ASLEEP + index * _LINE
    announce(asleep, 0)
    last, looks = 0, 0
    while True:
        if looks % _LOOKS_PER_PLACE == 0 and _is_in_the_way(memory):
            announce(asleep, 1)
            return True
        job = reported(pool + _JOB)
        if job not in (0, last):
            report(pool + _MEMBERS, -1)
            job = reported(pool + _JOB)
            # The job stays open at least until this helper has left.
            threads, in_the_way = memory[_THREADS // 8], _is_in_the_way(memory)
            if job != 0 and not in_the_way:
                if index + 1 < threads:
                    work(
                        memory[_TABLE // 8], memory[_LAYERS // 8], memory[_COUNTERS // 8], index + 1, threads
                    )  # fmt: skip
                    looks = 0
                last = job
            report(pool + _MEMBERS, 1)
            if in_the_way:
                announce(asleep, 1)
                return True
        looks += 1
        pause()
        if looks >= _LOOKS:
            announce(asleep, 1)
            if not reported(pool + _COMING):
                return False
            announce(asleep, 0)
            looks = 0


@no_refcount_inside
def _is_in_the_way(memory: Array) -> bool:
    place = processor()
    return bool(place >= 0 and place == memory[_PLACE // 8])


@no_refcount_inside
def _draw_tasks(row: int, drawn: int, done: int, failures: int, worker: int) -> None:
    """Draws and runs tasks of a layer until there are none, first those of this thread's own partition."""
    tasks, partitions, chunk = word(row, TASKS), word(row, PARTITIONS), word(row, CHUNK)
    for turn in range(partitions):
        owner = (worker + turn) % partitions
        first, end = tasks * owner // partitions, tasks * (owner + 1) // partitions
        begin = first + draw(drawn + owner * _LINE, chunk)
        while begin < end:
            stop = min(begin + chunk, end)
            if enter(word(row, ENTRY), word(row, ADDRESS), begin, stop):
                report(failures, 1)
            report(done, stop - begin)
            begin = first + draw(drawn + owner * _LINE, chunk)


@no_refcount_inside
def work(table: int, layers: int, counters: int, worker: int, threads: int) -> None:
    """One thread's part of all layers. Each layer counts drawn tasks per partition, and tasks done.

    A layer of one partition belongs to the leader, worker 0: helpers skip to the next layer of several
    partitions and wait there for the layer before it. When this returns, other threads may still run tasks of
    the last layer. ``table`` and ``counters`` are addresses; the last counter is the number of failed chunks.
    """
    per_stage = (threads + 1) * _LINE
    failures = counters + layers * per_stage
    done_before, tasks_before = failures, 0
    for layer in range(layers):
        row = table + layer * TABLE_COLUMNS * 8
        tasks, partitions = word(row, TASKS), word(row, PARTITIONS)
        drawn = counters + layer * per_stage
        done = drawn + threads * _LINE
        if tasks == 0:  # never reported as done: the next layer waits for the one before
            continue
        mine = partitions > 1 or worker == 0
        if mine and reported(done) < tasks:
            wait_for(done_before, tasks_before)
            if partitions == 1:
                if enter(word(row, ENTRY), word(row, ADDRESS), 0, tasks):
                    report(failures, 1)
                report(done, tasks)
            else:
                _draw_tasks(row, drawn, done, failures, worker)
        done_before, tasks_before = done, tasks
