"""Calls with many arguments, all of them left in memory beforehand, as the compiled code sees them.

A convolution takes a dozen arguments, tuples of many fields among them. Numba turns each field of each
argument from a Python object to a number at every call: 2 µs, longer than a small layer. A program's
arguments never change, so they are turned once and kept; a call hands over one address.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
def _call(_: Any, packed: Any) -> Any:
    """Calls the function with the arguments."""
    kinds = tuple(packed.arguments)

    def codegen(context: Any, builder: Any, __: Any, values: Any) -> Any:
        (address,) = values
        convention = context.call_conv
        kind = convention.get_function_type(types.none, kinds)
        function = pointer(builder, load(builder, address, INT64, 8), kind)
        first = element(builder, address, constant(_HEAD), 1)
        given = load(builder, first, context.get_value_type(packed.arguments), 8)
        arguments = [builder.extract_value(given, index) for index in range(len(kinds))]
        status, _ = convention.call_function(builder, function, types.none, kinds, arguments)
        with builder.if_then(status.is_error, likely=False):
            convention.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(packed), codegen


@njit(cache=True, nogil=True)
def _run(packed: Any) -> None:
    _call(packed)


class PackedCall:
    """A compiled function without a result, whose arguments have the same types at every call."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def bound(self, *arguments: Any) -> Callable[[], None]:
        """The call with these arguments, to be made again and again.

        Arrays may change their values in between. Raises whatever compiling the function raises.
        """
        packed = Packed(self._address(tuple(numba.typeof(value) for value in arguments)), arguments)
        return partial(_run.compile((packed.type,)), packed)

    def _address(self, kinds: tuple[Any, ...]) -> int:
        """Where the code for arguments of these types is."""
        self._function.compile(kinds)
        compiled = self._function.overloads[kinds]
        address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        return address
