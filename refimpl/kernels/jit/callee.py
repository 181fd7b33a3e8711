"""Functions that compiled loops call by their addresses.

A function that a loop calls by its name is compiled again as a part of this loop, and once more for each
loop above. One that is called by its address is compiled once. A call takes some 2 ns, so this is for work
of a row of pixels or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numba import types
from numba.extending import models, register_model, typeof_impl

from karat24.refimpl.kernels.jit.code import Code
from karat24.refimpl.kernels.jit.llvm_ir import INT64, intrinsic, pointer


class CalleeType(types.Type):
    """Numba's type of a :class:`Callee` of ``count`` arguments."""

    def __init__(self, count: int) -> None:
        self.kinds = (types.int64,) * count
        super().__init__(name=f"Callee({count})")


@register_model(CalleeType)
class _CalleeModel(models.PrimitiveModel):
    def __init__(self, manager: Any, callee: Any) -> None:
        super().__init__(manager, callee, INT64)


class Callee:
    """A compiled function of ``count`` numbers, int64, that returns nothing and raises nothing."""

    def __init__(self, function: Any, count: int) -> None:
        self.type = CalleeType(count)
        self.code = Code(function, self.type.kinds)


def callees(arguments: tuple[Any, ...]) -> Iterator[Callee]:
    """Those among the arguments, and within tuples of them."""
    for argument in arguments:
        if isinstance(argument, Callee):
            yield argument
        elif isinstance(argument, tuple):
            yield from callees(argument)


@typeof_impl.register(Callee)
def _typeof_callee(callee: Callee, _: Any) -> CalleeType:
    return callee.type


@intrinsic
def call_by_address(_: Any, callee: Any, arguments: Any) -> Any:
    """Calls a :class:`Callee` with the numbers of a tuple."""

    def codegen(context: Any, builder: Any, __: Any, values: Any) -> Any:
        address, given = values
        convention = context.call_conv
        function = pointer(builder, address, convention.get_function_type(types.none, callee.kinds))
        numbers = [
            context.cast(builder, builder.extract_value(given, index), kind, types.int64)
            for index, kind in enumerate(arguments)
        ]
        convention.call_function(builder, function, types.none, callee.kinds, numbers)
        return context.get_dummy_value()

    if len(arguments) != len(callee.kinds):
        raise TypeError(f"{len(callee.kinds)} arguments are taken, {len(arguments)} given")
    return types.void(callee, arguments), codegen
