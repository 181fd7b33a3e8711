"""Calls with many arguments, all of them left in memory beforehand, as the compiled code sees them.

A convolution takes a dozen arguments, tuples of many fields among them. Numba turns each field of each
argument from a Python object to a number at every call: 2 µs, longer than a small layer. A program's
arguments never change, so they are turned once and kept; a call hands over one address.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from refimpl.kernels.addresses import INT64, constant, element, load, pointer, store

_intrinsic: Any = intrinsic  # Numba's own type asks callers for the context, too

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
    """A compiled function and the arguments of a call, in memory that lasts as long as this."""

    def __init__(self, function: int, arguments: tuple[Any, ...]) -> None:
        self.type = PackedType(numba.typeof(arguments))
        self._arguments = arguments  # arrays the memory points to
        self._memory = np.zeros(_store(np.empty(0, np.int64), arguments) // 8 + 1, np.int64)
        self._memory[0] = function
        _store(self._memory[_HEAD // 8 :], arguments)
        self.address = self._memory.ctypes.data


@typeof_impl.register(Packed)
def _typeof_packed(packed: Packed, _: Any) -> PackedType:
    return packed.type


@unbox(PackedType)
def _unbox_packed(_: Any, packed: Any, c: Any) -> Any:
    number = c.pyapi.object_getattr_string(packed, "address")
    address = c.pyapi.long_as_longlong(number)
    c.pyapi.decref(number)
    return NativeValue(address)


@_intrinsic
def _size_of(_: Any, arguments: Any) -> Any:
    """Bytes the arguments take in memory."""

    def codegen(context: Any, _: Any, __: Any, ___: Any) -> Any:
        return constant(context.get_abi_sizeof(context.get_value_type(arguments)))

    return types.int64(arguments), codegen


@_intrinsic
def _put(_: Any, address: Any, arguments: Any) -> Any:
    """Writes the arguments to ``address``."""

    def codegen(context: Any, builder: Any, __: Any, values: Any) -> Any:
        address, given = values
        store(builder, _borrowed(context, builder, arguments, given), address, 8)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), codegen


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """The value with no array's owner in it: nobody counts references to what is kept in memory."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = array.meminfo.type(None)
        array.parent = array.parent.type(None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        inner: Any = kind
        for index in range(len(inner)):
            part = _borrowed(context, builder, inner[index], builder.extract_value(value, index))
            value = builder.insert_value(value, part, index)
    return value


@njit(cache=True)
def _store(memory: Any, arguments: Any) -> int:
    """How many bytes the arguments take; writes them if the memory has as many."""
    size: int = _size_of(arguments)
    if memory.size * memory.itemsize >= size:
        _put(memory.ctypes.data, arguments)
    return size


@_intrinsic
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


@_intrinsic
def enter(_: Any, entry: Any, packed: Any, begin: Any, end: Any) -> Any:
    """Runs tasks ``begin`` … ``end - 1`` of a :class:`PackedCall` by its two addresses.

    1 where they ended in an exception, which is lost; else 0.
    """
    kinds = (types.int64,) * 3

    def codegen(context: Any, builder: Any, __: Any, values: Any) -> Any:
        address, *arguments = values
        convention = context.call_conv
        function = pointer(builder, address, convention.get_function_type(types.none, kinds))
        status, _ = convention.call_function(builder, function, types.none, kinds, arguments)
        return builder.zext(status.is_error, INT64)

    return types.int64(types.int64, *kinds), codegen


class PackedCall:
    """A compiled function without a result and its arguments but for the last two, ``begin`` and ``end``.

    ``entry`` and ``address`` are what :func:`enter` takes. Arrays may change their values at any time.
    Raises whatever compiling the function raises.
    """

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        kinds = tuple(numba.typeof(value) for value in arguments)
        self._packed = Packed(_address(function, (*kinds, types.int64, types.int64)), arguments)
        signature = (self._packed.type, types.int64, types.int64)
        self._run = _run.compile(signature)
        self.entry, self.address = _address(_run, signature), self._packed.address

    def __call__(self, begin: int, end: int) -> None:
        """Runs tasks ``begin`` … ``end - 1`` on this thread. Raises what they raise."""
        self._run(self._packed, begin, end)


def _address(function: Any, kinds: tuple[Any, ...]) -> int:
    """Where the code for arguments of these types is."""
    function.compile(kinds)
    compiled = function.overloads[kinds]
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return address
