"""Many slices at once in processes of this machine.

Two processes of one thread restore more slices than one process of two: parts of a slice's work do not run in
parallel. A process that dies takes nothing with it but the slice that it was writing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from pathlib import Path

from karat24.refimpl.errors import UsageError
from karat24.tomography.scan.manifest import Manifest, read_manifest
from karat24.tomography.scan.records import Record
from karat24.tomography.scan.work import Worker

IN_FLIGHT = 2
"""Slices handed out per process: one at work, one waiting."""

_worker: Worker | None = None


def in_processes(manifest: Manifest, todo: Sequence[int], workers: int, threads: int) -> Iterator[Record]:
    """Finishes slices, in whatever order, and gives their records.

    The first slice is finished before others begin, so that its process compiles what all others then load.
    Raises the error of the first slice that fails; UsageError for a process that was killed.
    """
    if workers == 1:
        worker = Worker(manifest, threads)
        yield from (worker.finish(index) for index in todo)
        return
    path = manifest.state / "manifest.json"
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (path, threads))
    try:
        waiting = iter(todo)
        yield pool.submit(_finish, next(waiting)).result()
        running: set[Future[Record]] = set()
        for index in waiting:
            running.add(pool.submit(_finish, index))
            if len(running) >= IN_FLIGHT * workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise UsageError(
            "a process that restored slices was killed (out of memory?); give the same command again, with "
            "fewer --workers or less --max-memory (finished slices are kept)"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(path: Path, threads: int) -> None:
    """Prepares a process of the pool: it ends when its parent does, however that ends."""
    global _worker
    # Ctrl-C reaches every process of the group; the parent says so and lets what is at work be finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = Worker(read_manifest(path), threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _finish(index: int) -> Record:
    if _worker is None:
        raise UsageError("this process was not prepared")
    return _worker.finish(index)
