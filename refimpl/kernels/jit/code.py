"""Code that a program will need, compiled ahead: each function once, in several processes where they help.

Numba compiles one function at a time in a process. A forked process has everything the first one has
imported, and what it compiles goes to the cache of kernels, where the first one finds it.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from karat24.refimpl.contract import LOCKS_NOTHING
from karat24.refimpl.kernels.jit import compile_cache


class Code(NamedTuple):
    """A function for certain Numba types of arguments."""

    function: Any
    kinds: tuple[Any, ...]

    @property
    def is_compiled(self) -> bool:
        """Whether this process or the cache has it."""
        return compile_cache.is_compiled(self.function, self.kinds)

    @property
    def address(self) -> int:
        """Where it lies. Compiles it when it is first asked for."""
        self.function.compile(self.kinds)
        compiled = self.function.overloads[self.kinds]
        address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        return address


def processes_for(codes: Sequence[Code]) -> int:
    """The number of processes to compile in: 1 where a process cannot be forked, or would not help.

    A process with other threads is not forked: a lock that one of them holds would never be released.
    """
    others = [t for t in threading.enumerate() if t is not threading.current_thread()]
    if not sys.platform.startswith("linux") or any(thread.name != LOCKS_NOTHING for thread in others):
        return 1
    return max(min(len(codes), _processors()), 1)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_ahead(codes: Sequence[Code]) -> None:
    """Compiles the codes into the cache, in several processes where they help.

    What a child process fails to compile, this process compiles when it needs it.
    """
    processes = processes_for(codes)
    if processes == 1:
        return
    children = []
    for number in range(processes):
        with warnings.catch_warnings():  # Python 3.12 warns of forking beside threads
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _compile_and_leave(codes[number::processes])
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    compile_cache.forget_what_was_kept()


def _compile_and_leave(codes: Sequence[Code]) -> None:
    """The child's whole life: nothing of the parent's is closed, flushed or cleaned up in it."""
    try:
        for code in codes:
            code.function.compile(code.kinds)
    finally:
        os._exit(0)
