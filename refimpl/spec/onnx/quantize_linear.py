"""QuantizeLinear and DequantizeLinear, per tensor and per axis."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import dequantize, quantize
from karat24.refimpl.spec.onnx.parameters import Affine, affine_of, require_parameters
from karat24.refimpl.spec.shared.requirements import (
    operand,
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
    require_dtype(view, view.input(0), (*STORED, "int32"))
    require_dtype(view, view.output(), REALS)
    require_same_dtype(view, view.input(1), view.output())
    _check(view, view.input(0))


def _check(view: LayerView, stored: Tensor) -> None:
    if view.integer("block_size", 0):
        raise UnsupportedOp(f"{view} is quantized in blocks, which is not implemented")
    require_shape(view, view.output(), view.input(0).shape)
    axis = _axis(view)
    channels = 1 if axis is None else stored.shape[axis]
    require_parameters(view, 1, 2, stored.dtype, channels, REALS)


def _axis(view: LayerView) -> int | None:
    """The axis that several scales belong to; None for one scale."""
    if view.input(1).shape in ((), (1,)):
        return None
    return resolve_axis(view, view.integer("axis", 1), len(view.input(0).shape))


def _parameters(view: LayerView, values: Values, stored: Tensor) -> Affine:
    """Shaped to broadcast against the values."""
    return affine_of(view, values, 1, 2, stored.dtype).along(_axis(view) or 0, len(stored.shape))


def quantize_linear(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - one rule
    """``clip(rint(x / scale) + zp)``, ties to even."""
    result = quantize(operand(values, 0), _parameters(view, values, view.output()))
    return SpecResult((result.astype(DTYPES[view.output().dtype]),))


def dequantize_linear(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - one rule
    """``float32(q - zp) * scale``, as float16 where the scale is."""
    reals = dequantize(operand(values, 0), _parameters(view, values, view.input(0)))
    with np.errstate(over="ignore"):
        return SpecResult((reals.astype(DTYPES[view.output().dtype]),))
