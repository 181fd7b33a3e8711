"""Numbers at addresses, as compiled loops read and write them."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from karat24.refimpl.kernels.jit.llvm_ir import INT32, INT64, constant, element, intrinsic, load, store


@intrinsic
def word(_: Any, address: Any, index: Any) -> Any:
    """The int64 ``index`` places behind an address, which no thread may change meanwhile."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return load(builder, element(builder, arguments[0], arguments[1], 8), INT64, 8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def put(_: Any, address: Any, index: Any, value: Any) -> Any:
    """Sets the int64 ``index`` places behind an address to ``value``, not atomically."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        address, index, value = arguments
        store(builder, value, element(builder, address, index, 8), 8)

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def copy_int32(_: Any, source: Any, target: Any, count: Any) -> Any:
    """Copies ``count`` int32 from one address to another; they do not overlap."""

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        source, target, count = arguments
        with cgutils.for_range(builder, count) as turn:
            offset = builder.mul(turn.index, constant(4))
            store(
                builder, load(builder, builder.add(source, offset), INT32, 4), builder.add(target, offset), 4
            )

    return types.void(types.int64, types.int64, types.int64), codegen
