"""CAST between element types."""

from __future__ import annotations

from typing import Any

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import operand, require_arity, require_dtype, require_shape

CASTABLE = ("bool", "int8", "uint8", "int16", "int32", "int64", "float32", "float64")


def check_cast(view: LayerView) -> None:
    """One input; the tensors' element types count, as in the runtimes, not the attributes.

    Stored values are converted; quantization plays no part.
    """
    require_arity(view, 1)
    data, output = view.input(0), view.output()
    require_dtype(view, data, CASTABLE)
    require_dtype(view, output, CASTABLE)
    require_shape(view, output, data.shape)


def cast(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """CAST. To bool: not 0. Integer to integer: the low bits. Integer to float: the nearest.

    Float to integer: toward zero. By ``saturating`` and ``saturating_or_0``, values that do not fit are
    clamped; NaN is treated as plus infinity by the first and gives 0 by the second. By ``exact`` they become
    the result of the x86 conversion instruction: the lowest value of 32 or 64 bits, then its low bits.
    """
    data, target = operand(values, 0), DTYPES[view.output().dtype]
    if target.kind == "b":
        return SpecResult((data != 0,))
    if data.dtype.kind == "f" and target.kind in "iu":
        if rule.method == "exact":
            return SpecResult((_x86(data, target),))
        return SpecResult((_saturated(data, target, _of_nan(view, target, rule)),))
    with np.errstate(over="ignore"):
        return SpecResult((data.astype(target),))


def _of_nan(view: LayerView, target: np.dtype[Any], rule: Rule) -> int:
    """The integer that NaN becomes."""
    if rule.method == "saturating":
        return _ends(target)[1]
    if rule.method == "saturating_or_0":
        return 0
    raise ModelError(f"{view}: CAST by {rule.method!r} is not defined")


def _ends(target: np.dtype[Any]) -> tuple[int, int]:
    bits = 8 * target.itemsize
    return (0, 2**bits - 1) if target.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _saturated(data: Array, target: np.dtype[Any], of_nan: int) -> Array:
    low, high = _ends(target)
    flat = [_saturate(float(value), low, high, of_nan) for value in data.reshape(-1)]
    return np.array(flat, target).reshape(data.shape)


def _saturate(value: float, low: int, high: int, of_nan: int) -> int:
    if value != value:
        return of_nan
    if value >= high:
        return high
    return low if value <= low else int(value)


def _x86(data: Array, target: np.dtype[Any]) -> Array:
    bits = 64 if target.itemsize == 8 else 32
    low = -(2 ** (bits - 1))
    whole = [int(value) if low <= value < -low else low for value in data.reshape(-1).astype(np.float64)]
    return np.array(whole, np.int64).astype(target).reshape(data.shape)
