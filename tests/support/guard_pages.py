"""Arrays with a page on either side that kills the process when it is touched."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
from collections.abc import Callable

import numpy as np

from karat24.refimpl.graph import Array


class GuardPages:
    """Hands out arrays between guard pages; they live as long as this object."""

    def __init__(self) -> None:
        self._memory: list[mmap.mmap] = []

    def array(self, contents: Array, at_end: bool) -> Array:
        """A copy of ``contents`` whose last (``at_end``) or first byte touches a guard page."""
        page = mmap.PAGESIZE
        pages = -(-max(contents.nbytes, 1) // page)
        memory = mmap.mmap(-1, (pages + 2) * page)
        self._memory.append(memory)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for guard in (address, address + (pages + 1) * page):
            assert protect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
        offset = page + (pages * page - contents.nbytes if at_end else 0)
        array = np.frombuffer(memory, contents.dtype, contents.size, offset).reshape(contents.shape)
        array[...] = contents
        return array


def read_behind_the_end() -> None:
    """What a kernel must not do: the proof that the guard bites."""
    array = GuardPages().array(np.zeros(10, np.uint8), at_end=True)
    ctypes.string_at(array.ctypes.data, 11)


def exit_code(target: Callable[[], None]) -> int | None:
    """How a fresh process ends that runs ``target``; None when it does not within half an hour."""
    process = multiprocessing.get_context("spawn").Process(target=target)
    process.start()
    process.join(1800)  # an emulated processor compiles slowly
    if process.exitcode is None:
        process.kill()
    return process.exitcode
