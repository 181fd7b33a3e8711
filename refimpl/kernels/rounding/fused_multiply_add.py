"""The machine's fused multiply-add of float32."""

from __future__ import annotations

from typing import Any

from numba import types

from karat24.refimpl.kernels.jit.llvm_ir import intrinsic


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of float32, rounded once: the machine's instruction, or the C library's fmaf."""
    signature = types.float32(types.float32, types.float32, types.float32)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fma(*args)

    return signature, generate
