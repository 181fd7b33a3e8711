"""Decorators that compile a function without reference counting.

Numba counts the references to an array in every function and at every slice, even where the count cannot
matter: that took a quarter of the time of rows of a few pixels. A function that allocates nothing needs no
count.
"""

from __future__ import annotations

from typing import Any, TypeVar

from numba import njit

_Function = TypeVar("_Function")


def no_refcount(function: _Function) -> _Function:
    """Compiles a function that neither makes nor returns an array, and calls none that does.

    A slice is no new array, but Numba assigns to one through a new array. No divisor may be 0: none is
    checked.
    """
    return _compiled(function)


def no_refcount_inlined(function: _Function) -> _Function:
    """As :func:`no_refcount`, and inlined into its callers: passing a tuple of many fields takes 60 ns and
    more.
    """
    return _compiled(function, forceinline=True, no_cpython_wrapper=True)


def no_refcount_once(function: _Function) -> _Function:
    """As :func:`no_refcount`, for a function with one caller: Numba compiles it as a part of that caller.

    Compiled by itself as well, a large one would take one or two seconds more.
    """
    return _compiled(function, inline="always")


def task_loop(function: _Function) -> _Function:
    """As :func:`no_refcount`, for a loop that runs by its address only (``jit.packed_call``).

    It has no entry for Python, so a call from there would crash: converting a convolution's arguments is
    code that takes half a second to compile.
    """
    return _compiled(function, no_cpython_wrapper=True)


def no_refcount_inside(function: _Function) -> _Function:
    """As :func:`no_refcount`, for a function that only compiled code calls; a call from Python would crash.

    Numba compiles such a function once for each literal number it is given: pass it variables.
    """
    return _compiled(function, no_cpython_wrapper=True)


def _compiled(function: _Function, **options: bool | str) -> _Function:
    compiled: Any = njit
    result: _Function = compiled(
        cache=True, nogil=True, error_model="numpy", _nrt=False, no_cfunc_wrapper=True, **options
    )(function)
    return result
