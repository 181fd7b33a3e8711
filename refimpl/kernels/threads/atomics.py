"""Numbers that threads share without locks: tasks to draw, tasks done, and a way to wait for one.

Every change is atomic. A thread that has read that a task is done also sees everything that the task wrote.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from karat24.refimpl.kernels.jit.llvm_ir import (
    INT32,
    INT64,
    call,
    constant,
    intrinsic,
    pointer,
)
from karat24.refimpl.kernels.jit.no_refcount import no_refcount

COUNTER_STEP = 8
"""int64s from a counter to the next: each counter has a cache line of its own."""

_SPINS = 1000
"""Turns of waiting, some 20 µs, before a thread lets the system give its processor to another."""

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_ARM = platform.machine().lower() in ("aarch64", "arm64")
_YIELDS = hasattr(os, "sched_yield")
_TELLS_PROCESSOR = platform.system() == "Linux"


@intrinsic
def draw(_: Any, counter: Any, count: Any) -> Any:
    """Adds ``count`` to the int64 at the address ``counter``; returns the value before."""
    return _atomic_change("add", "monotonic")


@intrinsic
def report(_: Any, counter: Any, count: Any) -> Any:
    """Adds ``count`` to the int64 at the address ``counter``, sequentially consistent."""
    return _atomic_change("add", "seq_cst")


@intrinsic
def announce(_: Any, counter: Any, value: Any) -> Any:
    """Sets the int64 at the address ``counter`` to ``value``, sequentially consistent."""
    return _atomic_change("xchg", "seq_cst")


def _atomic_change(operation: str, ordering: str) -> Any:
    """Signature and code of an atomic change of an int64 at an address; it returns the value before."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        counter, operand = arguments
        return builder.atomic_rmw(operation, pointer(builder, counter, INT64), operand, ordering)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def reported(_: Any, counter: Any) -> Any:
    """The int64 at the address ``counter``, sequentially consistent: with all its writer wrote before."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.load_atomic(pointer(builder, arguments[0], INT64), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def pause(_: Any) -> Any:
    """Pauses for a moment, which leaves the core to its other hardware thread."""

    def codegen(context: Any, builder: Any, __: Any, ___: Any) -> Any:
        if _X86:
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif _ARM:
            call(builder, "llvm.aarch64.hint", ir.VoidType(), [ir.Constant(INT32, 1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def processor(_: Any) -> Any:
    """The number of the processor this thread runs on now; -1 where the system does not say."""

    def codegen(_: Any, builder: Any, __: Any, ___: Any) -> Any:
        if not _TELLS_PROCESSOR:
            return constant(-1)
        kind = ir.FunctionType(INT32, [])
        told = builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_getcpu"), [])
        return builder.sext(told, INT64)

    return types.int64(), codegen


@intrinsic
def _yield(_: Any) -> Any:
    """Lets the system run another thread on this processor."""

    def codegen(context: Any, builder: Any, __: Any, ___: Any) -> Any:
        if _YIELDS:
            kind = ir.FunctionType(INT32, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@no_refcount
def wait_for(counter: int, count: int) -> None:
    """Returns when the int64 at the address ``counter`` is ``count`` or more."""
    turns = 0
    while reported(counter) < count:
        turns += 1
        if turns < _SPINS:
            pause()
        else:
            _yield()
