"""Compiled functions that count no references.

Numba counts who holds an array, in every function and at every slice, even where the count cannot matter: of
rows of a few pixels that was a quarter of the time. A function that allocates nothing can do without.
"""

from __future__ import annotations

from typing import Any, TypeVar

from numba import njit

_Function = TypeVar("_Function")


def inner_loop(function: _Function) -> _Function:
    """Decorator: compiles a function that makes no array and returns none; nor may what it calls.

    Slices are not new arrays, but Numba assigns to them through one. No divisor may be 0: none is looked at.
    """
    return _compiled(function)


def inlined_loop(function: _Function) -> _Function:
    """Decorator: the same, made a part of what calls it: a tuple of many fields need not be handed over."""
    return _compiled(function, forceinline=True)


def _compiled(function: _Function, **options: bool) -> _Function:
    compiled: Any = njit
    result: _Function = compiled(cache=True, nogil=True, error_model="numpy", _nrt=False, **options)(function)
    return result
