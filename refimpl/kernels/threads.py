"""Small work stays on the calling thread: waking the others would cost more, on a busy machine far more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

SMALL_WORK = 1 << 16
"""Elementary steps (an element looked up, a pixel weighed) below which one thread is the faster."""


def share(work: int, compiled: Callable[..., None], *arguments: Any) -> None:
    """Calls a function compiled with ``parallel=True``, on one thread if ``work`` is small.

    The result is the same either way; only Numba's thread count of the moment is lowered.
    """
    threads = numba.get_num_threads()
    if work >= SMALL_WORK or threads == 1:
        compiled(*arguments)
        return
    numba.set_num_threads(1)
    try:
        compiled(*arguments)
    finally:
        numba.set_num_threads(threads)
