"""Whether several threads run layers faster than one, found by running them.

What a second thread costs differs between machines, and between one moment and another: waking it, handing
it tasks, and fetching what it wrote from its cache. So a network's first runs, whose results are as good as
any, take one thread first and then several, and the faster way stays.
"""

from __future__ import annotations

from time import perf_counter

from karat24.refimpl.contract import Call

ORDER = (*(0,) * 4, *(1,) * 12)
"""The ways of the first runs; the least time of each counts. Those on several threads follow one another, as
they will later: a thread that rested during a run on one thread must be woken, which can cost more than it
saves."""

MARGIN = 1.03
"""Several threads may take this many times as long in the trial: where another program has the second
processor just now, they take as long as one thread does, and will be faster when it is gone."""

LARGEST_WORK = 1 << 26
"""Elementary steps, some 13 ms, from which on several threads are not questioned: runs on one thread would
cost more than they tell."""


class ThreadTrial:
    """Two ways to run the same layers: ``alone`` on one thread, ``shared`` on several; the faster one stays.

    ``decision`` is None until it is made, then 0 for ``alone`` and 1 for ``shared``. Without ``questions``
    it is ``shared`` at once. Only one run at a time.
    """

    def __init__(self, alone: Call, shared: Call, questions: bool = True) -> None:
        self._ways = alone, shared
        self._best = [float("inf"), float("inf")]
        self._runs = 0
        self.decision: int | None = None if questions else 1

    def __call__(self) -> None:
        """Runs the layers."""
        if self.decision is not None:
            self._ways[self.decision]()
            return
        way = ORDER[self._runs]
        start = perf_counter()
        self._ways[way]()
        self._best[way] = min(self._best[way], perf_counter() - start)
        self._runs += 1
        if self._runs == len(ORDER):
            self.decision = int(self._best[1] < MARGIN * self._best[0])
