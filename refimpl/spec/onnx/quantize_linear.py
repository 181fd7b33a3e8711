"""QuantizeLinear and DequantizeLinear, per tensor and per axis."""

from __future__ import annotations

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import dequantize, quantize, require_method
from karat24.refimpl.spec.onnx.parameters import Affine, affine
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require_arity,
    require_dtype,
    require_shape,
    resolve_axis,
)

FLOAT32 = 1
"""ONNX's number of the type, which ``precision`` may name."""

STORED = ("int8", "uint8", "int16", "uint16")


def check_quantize_linear(view: LayerView) -> None:
    """Inputs: float32 values, scale, optional zero point; attribute ``axis`` (1) for several scales."""
    require_arity(view, 2, optional=1)
    require_dtype(view, view.input(0), ("float32",))
    require_dtype(view, view.output(), STORED)
    if view.integer("precision", 0) not in (0, FLOAT32):
        raise UnsupportedOp(f"{view} divides in element type {view.integer('precision')}, not float32")
    _check(view, view.output())


def check_dequantize_linear(view: LayerView) -> None:
    """Inputs: stored values, scale, optional zero point; attribute ``axis`` (1) for several scales."""
    require_arity(view, 2, optional=1)
    require_dtype(view, view.input(0), (*STORED, "int32"))
    require_dtype(view, view.output(), ("float32",))
    _check(view, view.input(0))


def _check(view: LayerView, stored: Tensor) -> None:
    if view.integer("block_size", 0):
        raise UnsupportedOp(f"{view} is quantized in blocks, which is not implemented")
    require_shape(view, view.output(), view.input(0).shape)
    _parameters(view, stored)


def _parameters(view: LayerView, stored: Tensor) -> Affine:
    """Shaped to broadcast against the values."""
    rank, channels, axis = len(stored.shape), 1, 0
    if view.input(1).shape not in ((), (1,)):
        axis = resolve_axis(view, view.integer("axis", 1), rank)
        channels = stored.shape[axis]
    return affine(view, 1, 2, stored.dtype, channels).along(axis, rank)


def quantize_linear(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``clip(rint(x / scale) + zp)``, ties to even."""
    require_method(view, rule, "divide_float32", "divide_float64", "reciprocal_half_even")
    result = quantize(operand(values, 0), _parameters(view, view.output()), rule.method)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),))


def dequantize_linear(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``float32(q - zp) * scale``."""
    require_method(view, rule, "reference")
    return SpecResult((dequantize(operand(values, 0), _parameters(view, view.input(0))),))
