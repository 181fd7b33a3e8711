"""Arithmetic in 32 bits, for loops that LLVM turns into vector code.

Numba computes with int32 in 64 bits and cuts the result off. LLVM does not always undo this, and vectors
then hold half as many values (measured: half as fast). Results wrap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from karat24.refimpl.kernels.jit.llvm_ir import intrinsic


def _binary(emit: Callable[[Any, Any, Any], Any]) -> Any:
    def operation(_: Any, left: Any, right: Any) -> Any:
        def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            return emit(builder, *arguments)

        return types.int32(types.int32, types.int32), codegen

    return intrinsic(operation)


add32: Any = _binary(lambda builder, left, right: builder.add(left, right))
"""``left + right``."""

sub32: Any = _binary(lambda builder, left, right: builder.sub(left, right))
"""``left - right``."""

mul32: Any = _binary(lambda builder, left, right: builder.mul(left, right))
"""``left * right``."""

shift_right32: Any = _binary(lambda builder, left, right: builder.ashr(left, right))
"""``left`` divided by ``2**right``, rounded down; 0 <= right < 32."""
