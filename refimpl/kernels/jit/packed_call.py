"""Calls whose arguments were written to memory beforehand, in the form that compiled code takes.

A convolution takes records of many fields. Numba converts each field of each argument from a Python object to
a number at every call: 2 µs, longer than a small layer takes. A program's arguments never change, so they are
converted once and kept, and a call passes one address.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox

from karat24.refimpl.kernels.jit.code import Code
from karat24.refimpl.kernels.jit.llvm_ir import INT64, constant, element, intrinsic, load, pointer
from karat24.refimpl.kernels.jit.packing import Packing

_HEAD = 8
"""Bytes before the arguments: the address of the compiled function."""


class PackedType(types.Type):
    """Numba's type of a :class:`Packed`: the types of its arguments."""

    def __init__(self, arguments: Any) -> None:
        self.arguments = arguments
        super().__init__(name=f"Packed({arguments})")


@register_model(PackedType)
class _PackedModel(models.PrimitiveModel):
    def __init__(self, manager: Any, packed: Any) -> None:
        super().__init__(manager, packed, INT64)


class Packed:
    """A function's address and its arguments behind it, in memory that lasts as long as this object."""

    def __init__(self, kind: PackedType, memory: Any, arguments: tuple[Any, ...]) -> None:
        self.type, self.memory = kind, memory
        self._arguments = arguments  # arrays the memory points to
        self.address = memory.ctypes.data


@typeof_impl.register(Packed)
def _typeof_packed(packed: Packed, _: Any) -> PackedType:
    return packed.type


@unbox(PackedType)
def _unbox_packed(_: Any, packed: Any, c: Any) -> Any:
    number = c.pyapi.object_getattr_string(packed, "address")
    address = c.pyapi.long_as_longlong(number)
    c.pyapi.decref(number)
    return NativeValue(address)


@intrinsic
def _call(_: Any, packed: Any, begin: Any, end: Any) -> Any:
    """Calls the function with the arguments, ``begin`` and ``end``."""
    kinds = (*packed.arguments, begin, end)

    def codegen(context: Any, builder: Any, __: Any, values: Any) -> Any:
        address, *tasks = values
        convention = context.call_conv
        kind = convention.get_function_type(types.none, kinds)
        function = pointer(builder, load(builder, address, INT64, 8), kind)
        first = element(builder, address, constant(_HEAD), 1)
        given = load(builder, first, context.get_value_type(packed.arguments), 8)
        arguments = [builder.extract_value(given, index) for index in range(len(packed.arguments))]
        status, _ = convention.call_function(builder, function, types.none, kinds, [*arguments, *tasks])
        with builder.if_then(status.is_error, likely=False):
            convention.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(packed, types.int64, types.int64), codegen


@njit(cache=True, nogil=True)
def _run(packed: Any, begin: int, end: int) -> None:
    _call(packed, begin, end)


@intrinsic
def enter(_: Any, entry: Any, packed: Any, begin: Any, end: Any) -> Any:
    """Runs tasks ``begin`` … ``end - 1`` of a :class:`PackedCall` by its two addresses.

    Returns 1 where they ended in an exception, which is lost, and otherwise 0.
    """
    kinds = (types.int64,) * 3

    def codegen(context: Any, builder: Any, __: Any, values: Any) -> Any:
        address, *arguments = values
        convention = context.call_conv
        function = pointer(builder, address, convention.get_function_type(types.none, kinds))
        status, _ = convention.call_function(builder, function, types.none, kinds, arguments)
        return builder.zext(status.is_error, INT64)

    return types.int64(types.int64, *kinds), codegen


class _Layout:
    """What all calls of one function with arguments of certain types share."""

    def __init__(self, function: Any, kinds: tuple[Any, ...]) -> None:
        self._packed = PackedType(types.BaseTuple.from_types(kinds[:-2], tuple))
        self._function = Code(function, kinds).address
        signature = (self._packed, types.int64, types.int64)
        self.run, self.entry = _run.compile(signature), Code(_run, signature).address
        self._packing = Packing(self._packed.arguments)

    def pack(self, arguments: tuple[Any, ...]) -> Packed:
        """The arguments in memory; they must have this layout's types."""
        memory = np.zeros((_HEAD + self._packing.size) // 8 + 1, np.int64)
        memory[0] = self._function
        self._packing.pack_into(memory, _HEAD, arguments)
        return Packed(self._packed, memory, arguments)


@cache  # many layers have arguments of equal types
def _layout_of(function: Any, kinds: tuple[Any, ...]) -> _Layout:
    return _Layout(function, kinds)


class TaskLoop:
    """A compiled function that ends in ``begin`` and ``end``, for one prepared layer.

    The types of its arguments are determined once for each kind of arrays, since that takes Numba a
    millisecond for a convolution. All other arguments must have the types they had in the first call.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self._kinds: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._layouts: dict[tuple[Any, ...], _Layout] = {}

    def kinds(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The Numba types of the function's arguments, ``begin`` and ``end`` among them."""
        key = _kinds_of_arrays(arguments)
        if key not in self._kinds:
            self._kinds[key] = (*map(numba.typeof, arguments), types.int64, types.int64)
        return self._kinds[key]

    def layout(self, arguments: tuple[Any, ...]) -> _Layout:
        """The layout of these arguments. Raises whatever compiling the function raises."""
        key = _kinds_of_arrays(arguments)
        if key not in self._layouts:
            self._layouts[key] = _layout_of(self.function, self.kinds(arguments))
        return self._layouts[key]


def _kinds_of_arrays(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the Numba types of these arguments depend on, for one prepared layer."""
    return tuple(
        (value.dtype, value.ndim, value.flags.num) if isinstance(value, np.ndarray) else None
        for value in arguments
    )


class PackedCall:
    """A compiled function without a result, and all its arguments but the last two, ``begin`` and ``end``.

    ``entry`` and ``address`` are what :func:`enter` takes. Arrays may change their values at any time.
    Raises whatever compiling the function raises.
    """

    def __init__(self, loop: Any, arguments: tuple[Any, ...]) -> None:
        layout = (loop if isinstance(loop, TaskLoop) else TaskLoop(loop)).layout(arguments)
        self._packed, self._run = layout.pack(arguments), layout.run
        self.entry, self.address = layout.entry, self._packed.address

    def __call__(self, begin: int, end: int) -> None:
        """Runs tasks ``begin`` … ``end - 1`` on this thread. Raises what they raise."""
        self._run(self._packed, begin, end)
