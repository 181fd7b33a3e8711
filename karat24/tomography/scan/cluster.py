"""Many slices on the workers of a Dask cluster, which share a file system.

A task is a path and a number: it reads its own slices, writes its own file, and returns a small record. Few
are in flight, so that a worker that dies makes few others suspect; a task may run twice, and writes equal
bytes then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from karat24.refimpl.errors import UsageError
from karat24.tomography.scan.manifest import Manifest, read_manifest
from karat24.tomography.scan.records import Record
from karat24.tomography.scan.work import Worker

WINDOW = 2
"""Slices in flight per thread of a worker."""
RETRIES = 2
PATIENCE = 60.0
"""Seconds to wait for the scheduler and for its first worker."""

Terms = tuple[str, int, int]
"""Fingerprint, first slice and number of slices. A trial and the whole differ only in the last two."""

_workers: dict[tuple[Path, Terms], Worker] = {}


def on_cluster(manifest: Manifest, todo: Sequence[int], address: str) -> Iterator[Record]:
    """Finishes slices on the cluster of a scheduler, and gives their records as they come.

    Raises UsageError when there is no such scheduler or it goes away, when it has no worker, and when a slice
    ends several workers; the error of a slice that fails is raised as it is.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise UsageError("--scheduler needs dask.distributed: pip install 'karat24[cluster]'") from error
    from concurrent.futures import CancelledError

    client = _connected(Client, address)
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        threads = sum(client.nthreads().values())
        path = str(manifest.state / "manifest.json")
        waiting = iter(todo)

        def submit(index: int) -> Any:
            key = f"karat24-{manifest.fingerprint[:16]}-{index}"
            return client.submit(
                finish_slice, path, terms_of(manifest), index, key=key, retries=RETRIES, pure=False
            )

        first = [submit(index) for _, index in zip(range(WINDOW * threads), waiting, strict=False)]
        completed = as_completed(first, loop=client.loop)
        for future in completed:
            yield Record(**future.result())
            future.release()
            for index in waiting:
                completed.add(submit(index))
                break
    except KilledWorker as error:
        raise UsageError(
            f"{address}: a slice ended several workers (out of memory?): {' '.join(str(error).split())}; "
            "give the same command again, with larger workers (finished slices are kept)"
        ) from error
    except (OSError, TimeoutError, CancelledError) as error:
        raise UsageError(
            f"{address}: the scheduler or its workers went away ({type(error).__name__}); start it and give "
            "the same command again (finished slices are kept)"
        ) from error
    finally:
        client.close(timeout=2)


def _connected(make_client: Any, address: str) -> Any:
    try:
        return make_client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"{address}: no Dask scheduler answers ({type(error).__name__}); start one with `dask scheduler`"
        ) from error


def terms_of(manifest: Manifest) -> Terms:
    """What a worker must find in the manifest's file."""
    return manifest.fingerprint, manifest.first, manifest.count


def finish_slice(path: str, terms: Terms, index: int) -> dict[str, Any]:
    """Runs in a worker of the cluster: one slice, on one thread.

    Dask bounds the threads of BLAS, not those of Numba, so the number is given.
    """
    place = Path(path)
    key = (place, terms)
    worker = _workers.get(key)
    if worker is None:
        manifest = read_manifest(place)
        if terms_of(manifest) != terms:
            raise UsageError(
                f"{path}: is another run's by now, or karat24 is of another version on this worker"
            )
        _workers.clear()
        worker = _workers[key] = Worker(manifest, threads=1)
    return vars(worker.finish(index))
