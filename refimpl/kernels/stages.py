"""Layers as tasks, and neighbouring layers as one compiled call.

A kernel's loop runs tasks ``begin … end - 1`` of a layer. One stage after the other, threads draw its tasks
a handful at a time, each from its own share first and then from the others'; then they wait for the last
to be done. A layer too small for several threads is the leader's, whose cache holds what it wrote before;
the others go past it. Nobody waits for a thread to come (``refimpl.kernels.team``): who is late finds less to
do, and who is alone does it all. A thread that sleeps, or that other programs hold up, costs what it would
have done.

Shares are the same parts of the image in every layer, so most of what a thread reads it has written itself,
and need not be fetched from another core's cache. Which thread runs a task changes no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refimpl.kernels.handout import word
from refimpl.kernels.inner_loop import inner_loop
from refimpl.kernels.packed_call import PackedCall, enter
from refimpl.kernels.team import (
    ADDRESS,
    ENTRY,
    JOB_STAGES,
    JOB_TABLE,
    MOST_THREADS,
    SHARES,
    TABLE_COLUMNS,
    TASKS,
    TEAM,
    Job,
)
from refimpl.kernels.threads import count_in_force, handful_for, threads_for


class Stage:
    """``tasks`` tasks of a loop, ``work`` elementary steps in all, on these arguments.

    ``loop(*arguments, begin, end)`` is compiled code, or a ``TaskLoop`` that knows such arguments. Called, it
    runs by itself on as many threads as are in force, or one where the work is small.
    """

    def __init__(self, loop: Any, arguments: tuple[Any, ...], tasks: int, work: int) -> None:
        self.call = PackedCall(loop, arguments)
        self.tasks, self.work = tasks, work

    def __call__(self) -> None:
        """Runs the layer."""
        Stages([self], count_in_force())()


class Stages:
    """Stages that run one after the other, on at most ``threads`` threads. Only one run at a time."""

    def __init__(self, stages: Sequence[Stage], threads: int) -> None:
        rows = [_row(stage, threads) for stage in stages]
        self._stages = stages
        table = np.array(rows, np.int64).reshape(len(rows), TABLE_COLUMNS)
        threads = max((row[SHARES] for row in rows), default=1)
        self._job = Job(table, threads, sum(stage.work for stage in stages))

    def __call__(self) -> None:
        """Runs them all. Raises what a task raises: MemoryError, as a rule, since a tile needs some."""
        job = self._job
        failures = _run_alone(job.address) if job.threads == 1 else TEAM.run(job)
        if failures:
            for stage in self._stages:
                stage.call(0, stage.tasks)  # says what was wrong
            raise MemoryError("a layer's buffers could not be allocated")


def _row(stage: Stage, threads: int) -> tuple[int, ...]:
    shares = min(threads_for(stage.work, threads), MOST_THREADS)
    handful = handful_for(stage.tasks, stage.work, shares)
    return stage.call.entry, stage.call.address, stage.tasks, shares, handful


@inner_loop
def _run_alone(job: int) -> int:
    """How many stages failed: 0, or 1 and those behind did not run."""
    table, stages = word(job, JOB_TABLE), word(job, JOB_STAGES)
    for stage in range(stages):
        row = table + stage * TABLE_COLUMNS * 8
        if enter(word(row, ENTRY), word(row, ADDRESS), 0, word(row, TASKS)):
            return 1
    return 0
