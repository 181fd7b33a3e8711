"""QUANTIZE and DEQUANTIZE: float32 to int8/uint8, between the two, and back to float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit, prange

from refimpl.contract import Kernel, Target, Values
from refimpl.errors import UnsupportedOp
from refimpl.graph import Array, LayerView
from refimpl.kernels.activations import coarse, ratio32
from refimpl.kernels.fixed_point import fixed_point, rescale
from refimpl.kernels.lookup import (
    Tables,
    as_bytes,
    byte_values,
    flat_bytes,
    full_range,
    operand,
    unary_kernel,
)
from refimpl.profiles.rules import Method, Rule

_DIVIDE_32, _DIVIDE_64, _RECIPROCAL = 0, 1, 2
_FLOAT_METHODS: dict[Method, int] = {
    "divide_float32": _DIVIDE_32,
    "divide_float64": _DIVIDE_64,
    "reciprocal_half_even": _RECIPROCAL,
}
_CHUNK = 1 << 14


def prepare_quantize(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QUANTIZE, from float32 or from int8/uint8 (a rescale)."""
    if view.input(0).dtype == "float32":
        return _from_float(view, rule)
    return _rescaled(view, rule)


def _from_float(view: LayerView, rule: Rule) -> Kernel:
    output = view.output()
    size = math.prod(output.shape)
    method, tail = _float_method(view, rule.method), _float_method(view, rule.tail or rule.method)
    body = size // rule.block * rule.block if rule.tail is not None else size
    scale, zero_point = np.float32(output.scale), output.zero_point
    low, high = (bound - zero_point for bound in full_range(output.dtype))

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        values, out = operand(inputs, 0).reshape(-1), flat_bytes(outputs[0])
        _quantize(values[:body], method, scale, zero_point, low, high, out[:body])
        _quantize(values[body:], tail, scale, zero_point, low, high, out[body:])

    return run


def _float_method(view: LayerView, method: Method) -> int:
    if method not in _FLOAT_METHODS:
        raise UnsupportedOp(f"{view}: no kernel quantizes float32 by {method!r}")
    return _FLOAT_METHODS[method]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _quantize(values: Any, method: int, scale: Any, zero_point: int, low: int, high: int, out: Any) -> None:
    """Rounds ``values / scale``, clamps to ``[low, high]`` and adds the zero point.

    Clamping first changes no result, since the bounds are whole, and keeps the
    conversion to an integer in range.
    """
    reciprocal = np.float32(1) / scale
    floor, ceiling = np.float64(low), np.float64(high)
    for chunk in prange((out.size + _CHUNK - 1) // _CHUNK):
        for i in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, out.size)):
            if method == _DIVIDE_32:
                steps = np.float64(np.float32(values[i] / scale))
            elif method == _DIVIDE_64:
                steps = np.float64(values[i]) / np.float64(scale)
            else:
                steps = np.float64(np.rint(np.float32(values[i] * reciprocal)))
            bounded = min(max(steps, floor), ceiling)
            whole = np.trunc(bounded)
            # Twice the fraction truncates to -1, 0 or 1: half away from zero.
            rounded = whole + np.trunc((bounded - whole) * 2.0)
            out[i] = np.uint8(np.int64(rounded) + zero_point)


def _rescaled(view: LayerView, rule: Rule) -> Kernel:
    """int8/uint8 to int8/uint8: a table per rounding method."""
    blocks = _rescale_table(view, rule.method)
    if rule.tail is None:
        return unary_kernel(Tables.single(blocks))
    rest = _rescale_table(view, rule.tail)
    return unary_kernel(Tables.mixed(blocks, rest, rule.block, math.prod(view.output().shape)))


def _rescale_table(view: LayerView, method: Method) -> Array:
    input_, output = view.input(0), view.output()
    centred = byte_values(input_.dtype) - input_.zero_point
    if method == "xnnpack":
        scaled = coarse(centred, ratio32(view))
    else:
        real = input_.scale / output.scale  # both float32 values: a float64 division
        scaled = rescale(centred, fixed_point(real, view), method)
    return as_bytes(scaled + output.zero_point, *full_range(output.dtype))


def prepare_dequantize(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """DEQUANTIZE int8/uint8 to float32: f32(s*(x-z)), or in blocks f32(f32(x*s) + f32(-z*s))."""
    blocks = _real_table(view, rule.method)
    if rule.tail is None:
        return unary_kernel(Tables.single(blocks))
    rest = _real_table(view, rule.tail)
    return unary_kernel(Tables.mixed(blocks, rest, rule.block, math.prod(view.output().shape)))


def _real_table(view: LayerView, method: Method) -> Array:
    input_ = view.input(0)
    values, scale = byte_values(input_.dtype), np.float32(input_.scale)
    with np.errstate(over="ignore"):
        if method == "reference":
            return (values - input_.zero_point).astype(np.float32) * scale
        if method == "affine_float32":
            return values.astype(np.float32) * scale + np.float32(-input_.zero_point) * scale
    raise UnsupportedOp(f"{view}: no kernel dequantizes by {method!r}")
