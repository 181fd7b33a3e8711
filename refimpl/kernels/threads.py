"""How many threads a layer is worth, and how many are in force."""

from __future__ import annotations

import threading

SMALL_WORK = 1 << 13
"""Elementary steps (an element looked up, a pixel weighed, 32 products) below which one thread is the
faster: to share the caches costs as much as another thread gains."""

HANDFUL_WORK = 8 * SMALL_WORK
"""Elementary steps, some 12 µs, a handful of tasks should have: who draws waits for other cores."""

SHARES = 16
"""Handfuls per thread: few enough to keep neighbouring tasks on one thread, whose cache holds their rows."""

_local = threading.local()


class _InForce:
    """A third of the time a generator takes as a context, which shows in networks of 40 µs."""

    __slots__ = ("_before", "_threads")

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        self._before, _local.count = count_in_force(), self._threads

    def __exit__(self, *_: object) -> None:
        _local.count = self._before


def threads_in_force(threads: int) -> _InForce:
    """A context: layers that this Python thread runs take so many threads meanwhile."""
    return _InForce(threads)


def count_in_force() -> int:
    """The number of threads a layer that runs by itself takes: 1, unless somebody said otherwise."""
    return getattr(_local, "count", 1)


def threads_for(work: int, threads: int) -> int:
    """How many of ``threads`` a layer of so many elementary steps should use."""
    return 1 if work < SMALL_WORK else threads


def handful_for(tasks: int, work: int, threads: int) -> int:
    """How many of a layer's tasks a thread takes at a time; all of them where it is alone."""
    if threads == 1:
        return max(tasks, 1)
    return max(tasks // (threads * SHARES), -(-tasks * HANDFUL_WORK // max(work, 1)), 1)
