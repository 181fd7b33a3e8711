"""Numbers that threads share without locks: tasks to draw, tasks done, and how to wait for one.

Which thread runs a task changes no bit. A number is changed indivisibly; whoever has read that a task is
done also sees everything its thread wrote.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from refimpl.kernels.jit.llvm_ir import INT32, INT64, call, constant, element, intrinsic, load, pointer, store
from refimpl.kernels.jit.no_refcount import no_refcount

COUNTER_STEP = 8
"""int64s from a counter to the next: they lie in cache lines of their own."""

_SPINS = 1000
"""Turns of waiting, some 20 µs, before a thread lets the system give its processor to another."""

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_ARM = platform.machine().lower() in ("aarch64", "arm64")
_YIELDS = hasattr(os, "sched_yield")
_TELLS_PROCESSOR = platform.system() == "Linux"


@intrinsic
def draw(_: Any, counter: Any, count: Any) -> Any:
    """Adds ``count`` to the int64 at the address ``counter`` and gives what it was before."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        counter, count = arguments
        return builder.atomic_rmw("add", pointer(builder, counter, INT64), count, "monotonic")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def report(_: Any, counter: Any, count: Any) -> Any:
    """Adds ``count`` to the int64 at the address ``counter``, in one order with all reports and readings."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        counter, count = arguments
        return builder.atomic_rmw("add", pointer(builder, counter, INT64), count, "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def announce(_: Any, counter: Any, value: Any) -> Any:
    """Makes the int64 at the address ``counter`` ``value``, in one order with all reports and readings."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        counter, value = arguments
        return builder.atomic_rmw("xchg", pointer(builder, counter, INT64), value, "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def reported(_: Any, counter: Any) -> Any:
    """The int64 at the address ``counter``; what its writer wrote before can be read from now on."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.load_atomic(pointer(builder, arguments[0], INT64), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def word(_: Any, address: Any, index: Any) -> Any:
    """The int64 ``index`` places behind an address, which nobody changes meanwhile."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return load(builder, element(builder, arguments[0], arguments[1], 8), INT64, 8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def put(_: Any, address: Any, index: Any, value: Any) -> Any:
    """Makes that int64 ``value``."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        address, index, value = arguments
        store(builder, value, element(builder, address, index, 8), 8)

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(_: Any) -> Any:
    """A moment in which the other thread of this core has it for itself."""

    def codegen(context: Any, builder: Any, __: Any, ___: Any) -> Any:
        if _X86:
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif _ARM:
            call(builder, "llvm.aarch64.hint", ir.VoidType(), [ir.Constant(INT32, 1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def processor(_: Any) -> Any:
    """The number of the processor this thread runs on just now; -1 where the system does not tell."""

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
