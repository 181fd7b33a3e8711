"""Layers as tasks, and neighbouring layers as one compiled call.

A kernel's loop runs tasks ``begin … end - 1`` of a layer. Its tasks are divided into one partition per
thread, each a part of the image; a thread draws chunks of tasks from its own partition first and then from
the others'. Threads take the layers of a sequence one after the other, and wait for the last task of one
before they start the next. A layer too small for several threads is run by the leader alone, whose cache
holds what it wrote before; the other threads skip it. No thread waits for another to wake up
(``threads.thread_pool``): a late thread finds less to do, and the leader may do everything itself.

A partition is the same part of the image in every layer, so a thread mostly reads what it has written itself
and need not fetch it from another core's cache. The thread that runs a task has no influence on its bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from karat24.refimpl.kernels.jit.memory import word
from karat24.refimpl.kernels.jit.no_refcount import no_refcount
from karat24.refimpl.kernels.jit.packed_call import PackedCall, enter
from karat24.refimpl.kernels.threads.thread_count import chunk_for, count_in_force, threads_for
from karat24.refimpl.kernels.threads.thread_pool import (
    ADDRESS,
    ENTRY,
    JOB_LAYERS,
    JOB_TABLE,
    MOST_THREADS,
    PARTITIONS,
    POOL,
    TABLE_COLUMNS,
    TASKS,
    Job,
)


class BoundLayer:
    """``tasks`` tasks of a loop, ``work`` elementary steps in all, on these arguments.

    ``loop(*arguments, begin, end)`` is compiled code, or a ``TaskLoop`` that knows such arguments. A call
    runs the layer by itself, on the number of threads in force, or on one where the work is small.
    """

    def __init__(self, loop: Any, arguments: tuple[Any, ...], tasks: int, work: int) -> None:
        self.call = PackedCall(loop, arguments)
        self.tasks, self.work = tasks, work

    def __call__(self) -> None:
        """Runs the layer."""
        LayerSequence([self], count_in_force())()


class LayerSequence:
    """Layers that run one after the other, on at most ``threads`` threads. Only one run at a time."""

    def __init__(self, layers: Sequence[BoundLayer], threads: int) -> None:
        rows = [_row(layer, threads) for layer in layers]
        self._layers = layers
        table = np.array(rows, np.int64).reshape(len(rows), TABLE_COLUMNS)
        threads = max((row[PARTITIONS] for row in rows), default=1)
        self._job = Job(table, threads, sum(layer.work for layer in layers))

    def __call__(self) -> None:
        """Runs them all. Raises what a task raises: MemoryError, as a rule, since a tile needs some."""
        job = self._job
        failures = _run_alone(job.address) if job.threads == 1 else POOL.run(job)
        if failures:
            for layer in self._layers:
                layer.call(0, layer.tasks)  # raises what the task raised
            raise MemoryError("a layer's buffers could not be allocated")


def _row(layer: BoundLayer, threads: int) -> tuple[int, ...]:
    partitions = min(threads_for(layer.work, threads), MOST_THREADS)
    chunk = chunk_for(layer.tasks, layer.work, partitions)
    return layer.call.entry, layer.call.address, layer.tasks, partitions, chunk


@no_refcount
def _run_alone(job: int) -> int:
    """The number of layers that failed: 0, or 1, after which the rest did not run."""
    table, layers = word(job, JOB_TABLE), word(job, JOB_LAYERS)
    for layer in range(layers):
        row = table + layer * TABLE_COLUMNS * 8
        if enter(word(row, ENTRY), word(row, ADDRESS), 0, word(row, TASKS)):
            return 1
    return 0
