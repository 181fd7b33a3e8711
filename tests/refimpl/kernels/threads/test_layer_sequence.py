"""Tasks are all run, each once, after those of the layer before, whatever threads come or fail to come."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numba import njit

from karat24.refimpl.kernels.jit.packed_call import PackedCall
from karat24.refimpl.kernels.threads import layer_sequence as module
from karat24.refimpl.kernels.threads import thread_count as policy
from karat24.refimpl.kernels.threads.atomics import pause, report, reported
from karat24.refimpl.kernels.threads.layer_sequence import BoundLayer, LayerSequence
from karat24.refimpl.kernels.threads.thread_pool import (
    _ASLEEP,
    MOST_THREADS,
    PARTITIONS,
    POOL,
    WAKING_WORK,
    Job,
    ThreadPool,
    counters_for,
    work,
)

several_processors = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs a system that tells processors apart, and two of them",
)


@njit
def count(times: Any, begin: int, end: int) -> None:
    for i in range(begin, end):
        times[i] += 1


@njit
def double_neighbours(source: Any, target: Any, begin: int, end: int) -> None:
    """Reads what two tasks of the layer before wrote, one of them another thread's partition."""
    for i in range(begin, end):
        for _ in range(300 + 300 * (i % 3)):
            pause()
        target[i] = source[i] + source[source.size - 1 - i]


@njit
def refuse_two(values: Any, begin: int, end: int) -> None:
    for i in range(begin, end):
        if values[i] == 2:
            raise ValueError("a two")


@njit
def work_as(table: Any, counters: Any, worker: int, threads: int) -> None:
    work(table.ctypes.data, table.shape[0], counters.ctypes.data, worker, threads)


@pytest.mark.usefixtures("tiny_layers_shared")
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 31, 33, 1000])
def test_every_task_runs_once_a_run(tasks: int) -> None:
    """Fewer tasks than threads, as many, and odd numbers of chunks."""
    for threads in (1, 2, 5):
        times = np.zeros(tasks + 1, np.int64)
        together = LayerSequence([BoundLayer(count, (times,), tasks, 1)] * 3, threads)
        for runs in (1, 2):
            together()
            np.testing.assert_array_equal(times[:tasks], 3 * runs)
        assert times[tasks] == 0


@pytest.mark.usefixtures("tiny_layers_shared")
@pytest.mark.parametrize("size", [2, 7, 16])
def test_a_stage_sees_all_the_one_before_wrote(size: int) -> None:
    """Each layer reads both partitions, and a task takes long: one read too early changes the result."""
    first, second = np.zeros(size), np.zeros(size)
    ways = [BoundLayer(double_neighbours, pair, size, 1 << 40) for pair in ((first, second), (second, first))]
    run = LayerSequence(ways * 20, 2)
    for seed in range(20):
        expected = first[:] = np.random.default_rng(seed).integers(1, 9, size).astype(float)
        for _ in range(40):
            expected = expected + expected[::-1]
        run()
        np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("size", [2, 7, 16])
def test_small_stages_between_others_see_what_was_written_and_are_seen(size: int) -> None:
    """One large, two small, and so on: helpers go past the small ones, and wait for the last of them."""
    first, second = np.zeros(size), np.zeros(size)
    pairs = itertools.cycle([(first, second), (second, first)])
    works = [1 << 40, 1, 1] * 14
    ways = [BoundLayer(double_neighbours, pair, size, work) for pair, work in zip(pairs, works, strict=False)]
    run = LayerSequence(ways, 2)
    assert run._job.table[:3, PARTITIONS].tolist() == [2, 1, 1]
    for seed in range(20):
        expected = first[:] = np.random.default_rng(seed).integers(1, 9, size).astype(float)
        for _ in ways:
            expected = expected + expected[::-1]
        run()
        np.testing.assert_array_equal(first, expected)


@pytest.mark.usefixtures("tiny_layers_shared")
def test_a_stage_behind_one_without_tasks_sees_what_was_written() -> None:
    """Nobody reports that nothing is done: the layer before is the one to wait for."""
    first, second = np.zeros(16), np.zeros(16)
    ways = [BoundLayer(double_neighbours, pair, 16, 1 << 40) for pair in ((first, second), (second, first))]
    nothing = BoundLayer(double_neighbours, (first, second), 0, 1)
    run = LayerSequence([ways[0], nothing, ways[1], nothing, nothing] * 20, 2)
    for seed in range(20):
        expected = first[:] = np.random.default_rng(seed).integers(1, 9, 16).astype(float)
        for _ in range(40):
            expected = expected + expected[::-1]
        run()
        np.testing.assert_array_equal(first, expected)


def test_small_stages_are_the_leaders() -> None:
    """What they read and write stays in its cache; a helper finds nothing to do."""
    times = np.zeros(10, np.int64)
    table = LayerSequence([BoundLayer(count, (times,), 10, 1)] * 2, 2)._job.table
    counters = counters_for(2, 2)
    work_as(table, counters, 1, 2)
    assert not times.any()
    work_as(table, counters, 0, 2)
    np.testing.assert_array_equal(times, 2)
    work_as(table, counters, 1, 2)
    np.testing.assert_array_equal(times, 2)


@pytest.mark.parametrize("order", list(itertools.permutations([0, 1, 0, 1, 2])), ids=str)
def test_threads_that_come_one_after_the_other_leave_nothing_undone(
    order: tuple[int, ...], tiny_layers_shared: None
) -> None:
    """Nobody may wait for a thread that has not begun: where Numba runs all on one, it never would."""
    times = np.zeros(10, np.int64)
    table = LayerSequence([BoundLayer(count, (times,), 10, 1)] * 2, 3)._job.table
    counters = counters_for(2, 3)
    for worker in order:
        work_as(table, counters, worker, 3)
        np.testing.assert_array_equal(times, 2)


@pytest.mark.usefixtures("tiny_layers_shared")
@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_task_raises_comes_out_and_the_next_run_is_whole(threads: int) -> None:
    values, times = np.arange(40), np.zeros(40, np.int64)
    run = LayerSequence(
        [BoundLayer(refuse_two, (values,), 40, 1), BoundLayer(count, (times,), 40, 1)], threads
    )
    with pytest.raises(ValueError, match="a two"):
        run()
    values[2] = 3
    times[:] = 0
    run()
    np.testing.assert_array_equal(times, 1)


@pytest.mark.usefixtures("tiny_layers_shared")
def test_there_are_no_more_threads_than_there_is_room_for() -> None:
    layers = LayerSequence([BoundLayer(count, (np.zeros(9, np.int64),), 9, 1)], MOST_THREADS + 44)
    assert (layers._job.threads, layers._job.table[0, PARTITIONS]) == (MOST_THREADS, MOST_THREADS)


def test_memory_that_could_not_be_had_is_an_error_even_if_it_can_be_had_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = LayerSequence([BoundLayer(count, (np.zeros(1, np.int64),), 1, 1)], 1)
    monkeypatch.setattr(module, "_run_alone", lambda _: 1)
    with pytest.raises(MemoryError):
        run()


def test_small_work_and_one_thread_never_enter_the_thread_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(module, "_run_alone", lambda _: ran.append("alone"))
    monkeypatch.setattr(POOL, "run", lambda *_: ran.append("together"))
    for threads, steps in itertools.product((2, 1), (policy.SMALL_WORK - 1, policy.SMALL_WORK)):
        LayerSequence([BoundLayer(count, (np.zeros(9, np.int64),), 9, steps)], threads)()
    assert ran == ["alone", "together", "alone", "alone"]


def test_a_layer_called_by_itself_takes_the_threads_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "LayerSequence", lambda _, threads: lambda: asked.append(threads))
    layer = BoundLayer(count, (np.zeros(9, np.int64),), 9, 1)
    layer()
    with policy.threads_in_force(3), policy.threads_in_force(2):
        layer()
    with policy.threads_in_force(3):
        elsewhere = threading.Thread(target=layer)
        elsewhere.start()
        elsewhere.join()
        layer()
    assert asked == [1, 2, 1, 3]


@pytest.mark.parametrize(
    ("tasks", "work", "threads", "expected"),
    [
        (640, 10**9, 2, 20),  # a partition of the tasks
        (640, 640 * policy.CHUNK_WORK // 64, 2, 64),  # of little work: enough to be worth drawing
        (640, 10**9, 1, 640),  # alone
        (3, 10**9, 2, 1),
        (0, 0, 2, 1),
    ],
)
def test_handfuls(tasks: int, work: int, threads: int, expected: int) -> None:
    assert policy.chunk_for(tasks, work, threads) == expected


# ---- counters


def test_addresses_outlive_the_calls_that_made_them() -> None:
    """The table holds addresses only: arguments must be kept by the layers."""
    times = np.zeros(4, np.int64)
    run = LayerSequence([BoundLayer(count, (times,), 4, 1)], 1)
    for _ in range(50):
        PackedCall(count, (np.zeros(4, np.int64),))(0, 4)
    run()
    np.testing.assert_array_equal(times, 1)


# ---- the pool


@njit(nogil=True)
def meet(present: Any, met: Any, begin: int, end: int) -> None:
    for _ in range(begin, end):
        report(present.ctypes.data, 1)
        for _ in range(200_000):  # some milliseconds
            if reported(present.ctypes.data) == 2:
                met[0] = 1
                break
            pause()
        report(present.ctypes.data, -1)


@several_processors
def test_helpers_join() -> None:
    """Two tasks at the same time: sooner or later, on a machine that is busy; alone, never."""
    present, met = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for threads, times in ((1, 3), (2, 500)):
        run = LayerSequence([BoundLayer(meet, (present, met), 2, 1 << 40)], threads)
        for _ in range(times):
            run()
            if met[0]:
                break
        assert met[0] == threads - 1


def test_helpers_are_woken_for_large_jobs_and_for_jobs_that_follow_one_another() -> None:
    pool, woken, asleep = ThreadPool(), [], _ASLEEP // 8
    pool._calls = [SimpleNamespace(put=lambda _: woken.append(True))]  # type: ignore[list-item]
    table = LayerSequence([BoundLayer(count, (np.zeros(9, np.int64),), 9, 1 << 40)], 2)._job.table
    for steps, gap, expected in (
        (WAKING_WORK - 1, 0.01, 0),
        (WAKING_WORK, 0.01, 1),
        (WAKING_WORK - 1, 0.0, 1),
        (WAKING_WORK - 1, 0.01, 0),
    ):
        time.sleep(gap)
        if not gap:
            pool._left = math.inf  # however long this machine is busy with other things
        pool._words[asleep] = 1
        woken.clear()
        pool.run(Job(table, 2, steps))
        assert len(woken) == expected
        assert pool._words[asleep] == 1 - expected


@several_processors
def test_a_helper_leaves_the_leaders_processor() -> None:
    processors = os.sched_getaffinity(0)
    place = min(processors)
    present, met = np.zeros(1, np.int64), np.zeros(1, np.int64)
    layers = LayerSequence([BoundLayer(meet, (present, met), 2, 1 << 40)], 2)
    layers()
    helper = next(thread.native_id for thread in threading.enumerate() if thread.name == "karat24-1")
    assert helper is not None
    try:
        os.sched_setaffinity(0, {place})
        os.sched_setaffinity(helper, {place})
        met[0] = 0
        for _ in range(500):
            layers()
            if met[0]:
                break
        assert place not in os.sched_getaffinity(helper)
        assert met[0]
    finally:
        os.sched_setaffinity(0, processors)


def test_several_leaders_take_turns() -> None:
    """Python threads with a job each: no task of one is lost to, or done with, another's."""
    runs, wrong = 200, []

    def lead(size: int) -> None:
        times = np.zeros(size, np.int64)
        layers = LayerSequence([BoundLayer(count, (times,), size, 1 << 40)] * 3, 3)
        for done in range(1, runs + 1):
            layers()
            if not (times == 3 * done).all():
                wrong.append((size, done))

    leaders = [threading.Thread(target=lead, args=(size,)) for size in (5, 64, 333)]
    for leader in leaders:
        leader.start()
    for leader in leaders:
        leader.join()
    assert not wrong


FORKED = """
import os, sys
import numpy as np
from tests.refimpl.kernels.threads.test_layer_sequence import BoundLayer, LayerSequence, count
times = np.zeros(50, np.int64)
layers = LayerSequence([BoundLayer(count, (times,), 50, 1 << 40)], 2)
layers()
child = os.fork()
layers()
right = (times == 2).all()
if child == 0:
    os._exit(0 if right else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (0 if right else 4))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], timeout=120).returncode == 0


def test_helpers_sleep_when_there_is_nothing_to_do() -> None:
    """And cost no processor time: of a tenth of a second, a hundredth at most, sooner or later."""
    layers = LayerSequence([BoundLayer(count, (np.zeros(50, np.int64),), 50, 1 << 40)], 2)
    layers()

    def spent() -> float:
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.1)
        return time.process_time() - before

    assert any(spent() < 0.01 for _ in range(20))
