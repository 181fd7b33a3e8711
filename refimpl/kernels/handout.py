"""Tasks handed out a handful at a time: a thread that other programs hold up does fewer of them.

Numba shares a ``prange`` out in advance, and then everybody waits for the slowest. Here each thread draws
numbers from the counter of its own share, and when that is done from the others'. Shares are the same
parts of the image in every layer, so most of what a thread reads it has written itself, and need not
be fetched from another core's cache. Which thread runs a task changes no bit.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from refimpl.kernels.addresses import INT64, pointer

SHARES = 16
"""Handfuls per thread: few enough to keep neighbouring tasks on one thread, whose cache holds their rows."""

COUNTER_STEP = 8
"""int64s from a share's counter to the next: they lie in cache lines of their own."""

_intrinsic: Any = intrinsic  # Numba's own type asks callers for the context, too


@_intrinsic
def draw(_: Any, counter: Any, count: Any) -> Any:
    """Adds ``count`` to the int64 at the address ``counter``, indivisibly, and gives what it was before."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        counter, count = arguments
        return builder.atomic_rmw("add", pointer(builder, counter, INT64), count, "monotonic")

    return types.int64(types.int64, types.int64), codegen
