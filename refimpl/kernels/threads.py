"""One thread or several, and calls that cost little.

Small work stays on the calling thread: waking the others costs microseconds on an idle
machine and, where other programs run, as long as those are given.

GNU's OpenMP lets idle threads spin before they sleep. Without any spinning every layer waits for a thread
to wake; spinning as long as the library would, threads take time from others as soon as anything else runs on
the machine. Importing this module bounds it, unless the environment says how to wait. MobileNetV2, two
threads of an idle Zen 4, milliseconds: 5.4 with 0 rounds, 2.7 to 4.1 with 300, 2.3 to 3.3 with 1,000, 2.2 to
2.3 with 3,000, no better with more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import numba
from numba import njit

SPINS = "GOMP_SPINCOUNT"
"""GNU OpenMP's variable, read when Numba starts its threads: rounds of waiting before a thread sleeps."""

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault(SPINS, "3000")

SMALL_WORK = 1 << 16
"""Elementary steps (an element looked up, a pixel weighed) below which one thread is the faster."""


@dataclass(frozen=True)
class Shared:
    """A function with a ``prange``, compiled twice: for one thread and for several.

    Each is compiled when it is first needed. The version for one thread does not enter
    Numba's thread pool at all.
    """

    alone: Callable[..., None]
    several: Callable[..., None]

    def direct(self) -> Shared:
        """The same for one prepared layer, whose arguments never change their types."""
        return Shared(Direct(self.alone), Direct(self.several))

    def bound(self, work: int, *arguments: Any) -> Callable[[], None]:
        """The call :func:`share` makes with these arguments, to be made again and again.

        One thread or several is settled now, by the number of threads in force.
        """
        chosen = self._chosen(work)
        return (chosen if isinstance(chosen, Direct) else Direct(chosen)).bound(*arguments)

    def _chosen(self, work: int) -> Callable[..., None]:
        alone = work < SMALL_WORK or numba.get_num_threads() == 1
        return self.alone if alone else self.several


def shared(**options: Any) -> Callable[[Any], Shared]:
    """Decorator: compiles a function for :func:`share`, with Numba's ``options``."""

    def compiled(function: FunctionType) -> Shared:
        # Numba keeps compiled code by name and types: the second version needs a name of its own.
        alone = FunctionType(
            function.__code__, function.__globals__, f"{function.__name__}_alone", function.__defaults__
        )
        alone.__qualname__ = f"{function.__qualname__}_alone"
        alone.__module__ = function.__module__
        return Shared(
            njit(cache=True, nogil=True, **options)(alone),
            njit(cache=True, nogil=True, parallel=True, **options)(function),
        )

    return compiled


def share(work: int, compiled: Shared, *arguments: Any) -> None:
    """Calls a :class:`Shared` function, on one thread if ``work`` is small.

    The result is the same either way.
    """
    compiled._chosen(work)(*arguments)


class Direct:
    """A compiled function whose arguments have the same types at every call.

    The code for those types is looked up at the first call. Looking it up at each, as Numba
    does, takes longer than a small layer: about ten microseconds for tuples of many fields.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._entry: Callable[..., None] | None = None

    def __call__(self, *arguments: Any) -> None:
        """Calls the function; arguments of other types than the first time's are not noticed."""
        self._compiled(arguments)(*arguments)

    def bound(self, *arguments: Any) -> Callable[[], None]:
        """The call with these arguments, to be made again and again."""
        return partial(self._compiled(arguments), *arguments)

    def _compiled(self, arguments: tuple[Any, ...]) -> Callable[..., None]:
        if self._entry is None:
            self._entry = self._function.compile(tuple(numba.typeof(value) for value in arguments))
        return self._entry
