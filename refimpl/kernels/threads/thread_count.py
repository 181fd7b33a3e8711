"""The number of threads a layer is worth, and the number in force."""

from __future__ import annotations

import threading

SMALL_WORK = 1 << 13
"""Elementary steps (an element looked up, a pixel weighed, 32 products) below which one thread is faster:
moving data between caches costs as much as a second thread gains."""

CHUNK_WORK = 8 * SMALL_WORK
"""Elementary steps a chunk of tasks should have, some 12 µs: drawing waits for other cores."""

CHUNKS_PER_THREAD = 16
"""Few enough to keep neighbouring tasks on one thread, whose cache holds their rows."""

_local = threading.local()


class _InForce:
    """A hand-written context manager: ``contextmanager`` takes three times as long, visible in 40 µs
    networks.
    """

    __slots__ = ("_before", "_threads")

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        self._before, _local.count = count_in_force(), self._threads

    def __exit__(self, *_: object) -> None:
        _local.count = self._before


def threads_in_force(threads: int) -> _InForce:
    """A context in which layers that this Python thread runs take ``threads`` threads."""
    return _InForce(threads)


def count_in_force() -> int:
    """The number of threads that a layer run by itself takes: 1 outside of any context."""
    return getattr(_local, "count", 1)


def threads_for(work: int, threads: int) -> int:
    """The number of ``threads`` that a layer of ``work`` elementary steps should use."""
    return 1 if work < SMALL_WORK else threads


def chunk_for(tasks: int, work: int, threads: int) -> int:
    """The number of a layer's tasks that a thread draws at a time; all of them on one thread."""
    if threads == 1:
        return max(tasks, 1)
    return max(tasks // (threads * CHUNKS_PER_THREAD), -(-tasks * CHUNK_WORK // max(work, 1)), 1)
