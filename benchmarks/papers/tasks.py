"""Independent tasks: results are kept in files, runs are resumed, and a budget ends them.

A task's result is a JSON object in a file of its own, so that a run can be ended at any moment and continued
later. The budget is of processor time, so that a busy machine does as much as an idle one. No task begins
after the budget is used up, and none is ended by it. No result depends on time.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import threads_of_new_processes
from karat24.refimpl.errors import UsageError

Record = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """A module's function and its arguments. ``name`` is unique, and its file's name."""

    name: str
    work: Callable[..., Record]
    arguments: tuple[Any, ...]


def run_tasks(tasks: Sequence[Task], folder: Path, minutes: float, processes: int, say: Say) -> int:
    """Runs the tasks whose results are not in ``folder`` yet, until finished tasks took ``minutes`` of
    processor time for each process; returns how many tasks are left.

    Each process has one thread. Raises the exception of a task after all running tasks are done, and
    UsageError when a process died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [task for task in tasks if not _path(folder, task.name).is_file()]
    say(f"{len(tasks)} tasks, {len(tasks) - len(waiting)} of them done; {minutes:g} minutes for the others")
    budget = 60 * minutes * processes
    if not waiting:
        return 0
    used, done = 0.0, 0
    spawn = multiprocessing.get_context("spawn")
    with threads_of_new_processes(1), ProcessPoolExecutor(processes, spawn) as pool:
        running: dict[Future[Record], Task] = {}
        while waiting or running:
            while waiting and len(running) < processes and used < budget:
                task = waiting.pop(0)
                running[pool.submit(timed, task)] = task
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    record = future.result()
                except BrokenProcessPool as died:
                    raise UsageError(
                        f"a process died near {task.name}, for want of memory perhaps; what is finished is "
                        "kept: start again with fewer --processes"
                    ) from died
                keep(folder, task.name, record)
                used += record["cpu_seconds"]
                done += 1
                say(f"[{done}/{done + len(running) + len(waiting)}] {task.name}, {used / 60:.1f} min")
    return len(waiting)


def timed(task: Task) -> Record:
    """The task's record with its cost: ``cpu_seconds`` of all its threads, and ``wall_seconds``."""
    cpu, wall = time.process_time(), time.perf_counter()
    record = task.work(*task.arguments)
    return record | {
        "cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall,
    }  # fmt: skip


def effort(records: Mapping[str, Record], left: int) -> str:
    """Sentences for a page of results: the time of finished tasks, and how many are left."""
    processor, clock = (
        sum(r.get(f"{kind}_seconds", 0.0) for r in records.values()) / 60 for kind in ("cpu", "wall")
    )
    text = (
        f"{len(records)} tasks of one thread took {processor:.0f} minutes of processor time, {clock:.0f} by "
        "the clock."
    )
    return f"{text} **Unfinished: {left} tasks are left; the page rests on the others.**" if left else text


def keep(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """Writes a record, whole or not at all."""
    path = _path(folder, name)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def kept(tasks: Sequence[Task], folder: Path) -> dict[str, Record]:
    """The records there are, by the tasks' names."""
    found = {}
    for task in tasks:
        path = _path(folder, task.name)
        if path.is_file():
            found[task.name] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '-')}.json"
