"""Numbers that threads partition: counted indivisibly, waited for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from numba import njit

from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.threads.atomics import announce, draw, report, reported, wait_for


@njit
def drawn(counters: Array, number: int) -> int:
    return draw(counters.ctypes.data, number)


@njit
def added(counters: Array, number: int) -> int:
    report(counters.ctypes.data, number)
    return reported(counters.ctypes.data)


@njit
def announced(counters: Array, value: int) -> int:
    return announce(counters.ctypes.data, value)


@njit(nogil=True)
def wait(counters: Array, number: int) -> None:
    wait_for(counters.ctypes.data, number)


def test_counters_count() -> None:
    counters = np.array([5, 7])
    assert [drawn(counters, 3), drawn(counters, 4)] == [5, 8]
    assert added(counters, 2) == 14
    assert announced(counters, 3) == 14
    wait(counters, 3)
    assert counters.tolist() == [3, 7]


WAITING = """
import sys, threading, time
import numpy as np
from tests.refimpl.kernels.threads.test_atomics import wait
counters = np.zeros(1, np.int64)
wait(counters, 0)
waiting = threading.Thread(target=wait, args=(counters, 3), daemon=True)
waiting.start()
time.sleep(0.2)
early = not waiting.is_alive()
counters[0] = 3
waiting.join(30)
sys.exit(1 if early else 2 if waiting.is_alive() else 0)
"""


def test_waiting_ends_when_the_number_is_reached_and_not_before() -> None:
    """Beyond the turns it spins for; in a process of its own, which a failure cannot hold up."""
    assert subprocess.run([sys.executable, "-c", WAITING], timeout=120).returncode == 0
