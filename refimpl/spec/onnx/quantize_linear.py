"""QuantizeLinear and DequantizeLinear, per tensor, per axis and in blocks; 4-bit constants are read only."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import dequantize, quantize, require_method
from karat24.refimpl.spec.onnx.parameters import Affine, affine_of, require_parameters
from karat24.refimpl.spec.shared.packed import PACKED, packed_size, unpacked
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_shape,
    resolve_axis,
)

FLOAT32 = 1
"""ONNX's number of the type, which ``precision`` may name."""

REALS = ("float32", "float16")
"""Types of real values; those of the latter are divided and multiplied in float32."""

STORED = ("int8", "uint8", "int16", "uint16")


def check_quantize_linear(view: LayerView) -> None:
    """Inputs: float32 or float16 values, a scale of their type, optional zero point; attribute ``axis`` (1)
    for several scales.

    The graph may compute scale and zero point, here and in DequantizeLinear.
    """
    require_arity(view, 2, optional=1)
    require_dtype(view, view.input(0), REALS)
    require_same_dtype(view, view.input(0), view.input(1))
    require_dtype(view, view.output(), STORED)
    if view.integer("precision", 0) not in (0, FLOAT32):
        raise UnsupportedOp(f"{view} divides in element type {view.integer('precision')}, not float32")
    _check(view, view.output())


def check_dequantize_linear(view: LayerView) -> None:
    """Inputs: stored values, scale, optional zero point; attribute ``axis`` (1) for several scales."""
    require_arity(view, 2, optional=1)
    require_dtype(view, view.input(0), (*STORED, "int32", *PACKED))
    require_dtype(view, view.output(), REALS)
    require_same_dtype(view, view.input(1), view.output())
    _check(view, view.input(0))


def _check(view: LayerView, stored: Tensor) -> None:
    require_shape(view, view.output(), view.input(0).shape)
    require_packed(view, stored, view.optional_input(2))
    if view.integer("block_size", 0):
        _check_blocks(view, stored)
        return
    axis = _axis(view)
    channels = 1 if axis is None else stored.shape[axis]
    require_parameters(view, 1, 2, stored.dtype, channels, REALS)


def require_packed(view: LayerView, *tensors: Tensor | None) -> None:
    """Packed values are constants, of as many bytes as their shapes need."""
    for tensor in tensors:
        if tensor is None or tensor.dtype not in PACKED:
            continue
        if tensor.data is None:
            raise UnsupportedOp(f"{view}: {tensor.name!r} of {tensor.dtype} must be a constant")
        fits = tensor.data.size == packed_size(tensor)
        require(view, fits, f"{tensor.name!r} of shape {tensor.shape} has {tensor.data.size} bytes")


def _check_blocks(view: LayerView, stored: Tensor) -> None:
    """One scale per ``block_size`` values along ``axis``, the last block may be shorter."""
    block, scales, zero_point = view.integer("block_size"), view.input(1), view.optional_input(2)
    axis = resolve_axis(view, view.integer("axis", 1), len(stored.shape))
    require(view, block >= 1, f"blocks of {block}")
    wanted = tuple(-(-size // block) if at == axis else size for at, size in enumerate(stored.shape))
    require_dtype(view, scales, REALS)
    require_shape(view, scales, wanted)
    if zero_point is not None:
        require_same_dtype(view, stored, zero_point)
        require_shape(view, zero_point, wanted)


def _axis(view: LayerView) -> int | None:
    """The axis that several scales belong to; None for one scale."""
    if view.input(1).shape in ((), (1,)):
        return None
    return resolve_axis(view, view.integer("axis", 1), len(view.input(0).shape))


def _parameters(view: LayerView, values: Values, stored: Tensor) -> Affine:
    """The parameters, shaped to broadcast against the values."""
    zero_point = view.optional_input(2)
    if zero_point is not None:
        values = [*values[:2], unpacked(zero_point, operand(values, 2))]
    given = affine_of(view, values, 1, 2, stored.dtype)
    if not view.integer("block_size", 0):
        return given.along(_axis(view) or 0, len(stored.shape))
    axis = resolve_axis(view, view.integer("axis", 1), len(stored.shape))
    block_of = np.arange(stored.shape[axis]) // view.integer("block_size")
    scale, zeros = (
        np.take(each.reshape(view.input(1).shape), block_of, axis) for each in (given.scale, given.zero_point)
    )
    return Affine(scale, zeros, given.low, given.high)


def quantize_linear(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``clip(rint(x / scale) + zp)``, ties to even."""
    require_method(view, rule, "divide_float32", "divide_float64", "reciprocal_half_even")
    result = quantize(operand(values, 0), _parameters(view, values, view.output()), rule.method)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),))


def dequantize_linear(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``float32(q - zp) * scale``, as float16 where the scale is."""
    require_method(view, rule, "reference")
    stored = unpacked(view.input(0), operand(values, 0))
    reals = dequantize(stored, _parameters(view, values, view.input(0)))
    with np.errstate(over="ignore"):
        return SpecResult((reals.astype(DTYPES[view.output().dtype]),))
