"""How many threads a layer is worth, and how idle ones wait.

GNU's OpenMP lets idle threads spin before they sleep. Without any spinning every run waits for a thread
to wake; spinning as long as the library would, threads take time from others as soon as anything else runs on
the machine. Importing this module bounds it, unless the environment says how to wait.
"""

from __future__ import annotations

import os

SPINS = "GOMP_SPINCOUNT"
"""GNU OpenMP's variable, read when Numba starts its threads: rounds of waiting before a thread sleeps."""

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault(SPINS, "3000")

SMALL_WORK = 1 << 16
"""Elementary steps (an element looked up, a pixel weighed, 32 products) below which one thread is the
faster: to share the caches costs as much as another thread gains."""

HANDFUL_WORK = 1 << 11
"""Elementary steps a handful of tasks should have, to be worth drawing."""

SHARES = 16
"""Handfuls per thread: few enough to keep neighbouring tasks on one thread, whose cache holds their rows."""


def threads_for(work: int, threads: int) -> int:
    """How many of ``threads`` a layer of so many elementary steps should use."""
    return 1 if work < SMALL_WORK else threads


def handful_for(tasks: int, work: int, threads: int) -> int:
    """How many of a layer's tasks a thread takes at a time; all of them where it is alone."""
    if threads == 1:
        return max(tasks, 1)
    return max(tasks // (threads * SHARES), -(-tasks * HANDFUL_WORK // max(work, 1)), 1)
