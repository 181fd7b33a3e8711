"""Runtimes that many tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache

import pytest

from karat24.delegates import Delegate, delegate_named

Runtimes = Callable[[str], Delegate]
"""Gives the delegate of a name."""


def started(name: str) -> AbstractContextManager[Delegate]:
    """The delegate of a name, with a time limit for tests."""
    return delegate_named(name, time_limit=120.0)  # type: ignore[return-value]


@contextmanager
def kept_runtimes(make: Callable[[str], AbstractContextManager[Delegate]] = started) -> Iterator[Runtimes]:
    """Delegates that start at their first use and end together; one that dies starts again when asked."""
    with ExitStack() as running:
        yield cache(lambda name: running.enter_context(make(name)))


def available(runtime: Delegate) -> Delegate:
    """The runtime, or a skip that says what is missing."""
    probe = runtime.probe()
    if not probe.available:
        pytest.skip(f"{runtime.name}: {probe.reason}; {probe.remedy}")
    return runtime
