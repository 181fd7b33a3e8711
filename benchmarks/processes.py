"""The number of threads of processes that share a machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

LIMITS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that libraries read once, when a process begins."""


@contextmanager
def threads_of_new_processes(threads: int) -> Iterator[None]:
    """Processes that are started inside the context take ``threads`` threads each; it restores the
    environment."""
    before = {name: os.environ.get(name) for name in LIMITS}
    os.environ.update(dict.fromkeys(LIMITS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
