"""The process's threads that help whoever runs layers, asleep while nobody does.

Numba's own (OpenMP's, as a rule) must all begin and end a parallel loop together: a run waits for a thread
to wake although everything is done, and a process that forks loses them. Here the caller leads. It publishes
a job and works at once; helpers that are awake, or wake in time, join it; when its work is done the leader
closes the job and waits only for those who are still in it.

A helper looks for a job for a moment, then says that it sleeps and looks whether somebody is about to lead;
who leads says so, then calls those who sleep, if the job is worth it. A helper joins a job, then looks
whether it is still open; the leader closes it, then looks who is in it. Joining and closing happen in one
order for everybody, so nobody works on a job whose leader has left. Saying and calling are plain writes of
Python's; should a helper sleep through a job after all, that job has fewer hands and nothing else is lost.
"""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from time import perf_counter

import numpy as np

from refimpl.graph import Array
from refimpl.kernels.handout import (
    COUNTER_STEP,
    announce,
    draw,
    pause,
    processor,
    put,
    report,
    reported,
    wait_for,
    word,
)
from refimpl.kernels.inner_loop import inner_loop
from refimpl.kernels.packed_call import enter

TABLE_COLUMNS = 5
ENTRY, ADDRESS, TASKS, SHARES, HANDFUL = range(TABLE_COLUMNS)
"""Columns of a table of stages: the two addresses of a ``PackedCall``; its tasks; how many shares they
are divided into; how many a thread draws at a time."""

JOB_TABLE, JOB_STAGES, _JOB_COUNTERS, _JOB_SIZE, _JOB_THREADS = range(5)
"""Places at a job's address: its table, how many stages, its counters, how many words these are, threads."""

WAKING_WORK = 1 << 20
"""Elementary steps, some 200 µs, from which on helpers are woken for a job. For less, they are woken where
one job follows the other: a network run now and then is done before they are there."""

_SOON = 100e-6
"""Seconds between jobs that follow one another."""

MOST_THREADS = 256
"""There is room for so many; who asks for more gets these."""

_LINE = 8 * COUNTER_STEP
_COMING, _JOB, _MEMBERS, _JOBS, _TABLE, _STAGES, _COUNTERS, _THREADS, _PLACE = (n * _LINE for n in range(9))
"""Where in the team's memory, in bytes: whether somebody leads; the job's number, 0 while there is none; how
many helpers are in it, counted downwards; how many jobs there were; the job's table of stages, how many these
are, its counters, how many threads it is for; the leader's processor."""
_ASLEEP = 9 * _LINE
"""And from here on, line by line, whether each helper sleeps."""

_LOOKS = 3000
"""How often a helper looks for the next job, some 60 µs: the next run, or more layers of this one."""

_LOOKS_PER_PLACE = 64
"""How many of them between two looks where this thread runs."""


def counters_for(stages: int, threads: int) -> Array:
    """The memory a job of so many stages and threads counts in."""
    return np.zeros((stages * (threads + 1) + 1) * COUNTER_STEP, np.int64)


class Job:
    """A table of stages, int64 [stage, TABLE_COLUMNS], for at most MOST_THREADS ``threads``.

    ``work`` is in elementary steps. ``address`` is where the compiled code finds all this. Only one run at a
    time.
    """

    def __init__(self, table: Array, threads: int, work: int) -> None:
        self.table, self.threads, self.work = table, threads, work
        self._counters = counters_for(len(table), threads)
        counters = self._counters
        self._told = np.array(
            [table.ctypes.data, len(table), counters.ctypes.data, counters.size, threads], np.int64
        )
        self.address: int = self._told.ctypes.data


class Team:
    """Threads that work together for one caller at a time."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """As if no thread had been started: in a forked process, none is there."""
        self._lock = threading.Lock()
        self._memory = np.zeros((_ASLEEP + MOST_THREADS * _LINE) // 8, np.int64)
        self._memory[_PLACE // 8] = -1
        self._address: int = self._memory.ctypes.data
        self._words = self._memory.data  # read and written in half the time an array takes
        self._left = 0.0
        self._calls: list[SimpleQueue[None]] = []

    def run(self, job: Job) -> int:
        """Runs a job. The number of handfuls that ended in an exception."""
        with self._lock:
            while len(self._calls) < job.threads - 1:
                self._hire()
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

    def _hire(self) -> None:
        memory, call, index = self._memory, SimpleQueue[None](), len(self._calls)
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

        def serve() -> None:
            while True:
                in_the_way = _help(memory, index)
                # Asleep from the last look on: who leads meanwhile may hold Python's lock for long.
                if not (in_the_way and _stepped_aside(memory, allowed)):
                    call.get()

        self._calls.append(call)
        threading.Thread(target=serve, name=f"karat-{index + 1}", daemon=True).start()


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


TEAM = Team()


@inner_loop
def _lead(team: int, job: int) -> int:
    """Opens the job at an address, works, closes it and sees the helpers out; how many handfuls failed."""
    table, stages, threads = word(job, JOB_TABLE), word(job, JOB_STAGES), word(job, _JOB_THREADS)
    counters, size = word(job, _JOB_COUNTERS), word(job, _JOB_SIZE)
    for i in range(size):
        put(counters, i, 0)
    put(team, _TABLE // 8, table)
    put(team, _STAGES // 8, stages)
    put(team, _COUNTERS // 8, counters)
    put(team, _THREADS // 8, threads)
    put(team, _PLACE // 8, processor())
    # Numbers only grow: nobody takes a job for the one before.
    put(team, _JOBS // 8, word(team, _JOBS // 8) + 1)
    announce(team + _JOB, word(team, _JOBS // 8))
    work(table, stages, counters, 0, threads)
    announce(team + _JOB, 0)
    wait_for(team + _MEMBERS, 0)
    failures: int = word(counters, size - COUNTER_STEP)
    return failures


@inner_loop
def _help(memory: Array, index: int) -> bool:
    """Joins every job there is, until there has been none for a while; then this helper is asleep.

    Or until this thread is in the way, which is the result: on the processor the leader was on last, it would
    only take the leader's time.
    """
    team = memory.ctypes.data
    asleep = team + _ASLEEP + index * _LINE
    announce(asleep, 0)
    last, looks = 0, 0
    while True:
        if looks % _LOOKS_PER_PLACE == 0 and _is_in_the_way(memory):
            announce(asleep, 1)
            return True
        job = reported(team + _JOB)
        if job not in (0, last):
            report(team + _MEMBERS, -1)
            job = reported(team + _JOB)
            # The job stays open at least until this helper has left.
            threads, in_the_way = memory[_THREADS // 8], _is_in_the_way(memory)
            if job != 0 and not in_the_way:
                if index + 1 < threads:
                    work(
                        memory[_TABLE // 8], memory[_STAGES // 8], memory[_COUNTERS // 8], index + 1, threads
                    )  # fmt: skip
                    looks = 0
                last = job
            report(team + _MEMBERS, 1)
            if in_the_way:
                announce(asleep, 1)
                return True
        looks += 1
        pause()
        if looks >= _LOOKS:
            announce(asleep, 1)
            if not reported(team + _COMING):
                return False
            announce(asleep, 0)
            looks = 0


@inner_loop
def _is_in_the_way(memory: Array) -> bool:
    place = processor()
    return bool(place >= 0 and place == memory[_PLACE // 8])


@inner_loop
def _draw_tasks(row: int, drawn: int, done: int, failures: int, worker: int) -> None:
    """Draws and runs tasks of a stage until there are none, those of this thread's share first."""
    tasks, shares, handful = word(row, TASKS), word(row, SHARES), word(row, HANDFUL)
    for turn in range(shares):
        owner = (worker + turn) % shares
        first, end = tasks * owner // shares, tasks * (owner + 1) // shares
        begin = first + draw(drawn + owner * _LINE, handful)
        while begin < end:
            stop = min(begin + handful, end)
            if enter(word(row, ENTRY), word(row, ADDRESS), begin, stop):
                report(failures, 1)
            report(done, stop - begin)
            begin = first + draw(drawn + owner * _LINE, handful)


@inner_loop
def work(table: int, stages: int, counters: int, worker: int, threads: int) -> None:
    """All stages, as one thread does them: per stage a counter of each share, and one of tasks done.

    A stage of one share is the leader's, worker 0: helpers go on to the next of several shares, and wait
    there for the one before. Of the last stage, other threads may still have tasks. ``table`` and
    ``counters`` are addresses; the number of handfuls that failed is counted last.
    """
    per_stage = (threads + 1) * _LINE
    failures = counters + stages * per_stage
    done_before, tasks_before = failures, 0
    for stage in range(stages):
        row = table + stage * TABLE_COLUMNS * 8
        tasks, shares = word(row, TASKS), word(row, SHARES)
        drawn = counters + stage * per_stage
        done = drawn + threads * _LINE
        if tasks == 0:  # nobody reports it, so the next waits for the one before
            continue
        mine = shares > 1 or worker == 0
        if mine and reported(done) < tasks:
            wait_for(done_before, tasks_before)
            if shares == 1:
                if enter(word(row, ENTRY), word(row, ADDRESS), 0, tasks):
                    report(failures, 1)
                report(done, tasks)
            else:
                _draw_tasks(row, drawn, done, failures, worker)
        done_before, tasks_before = done, tasks
