"""DEQUANTIZE: ``real = scale * (q - zero_point)`` in float32."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.primitives import in_blocks
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require_arity,
    require_dtype,
    require_quantized,
    require_shape,
    require_symmetric,
)


def check_dequantize(view: LayerView) -> None:
    """One int8, uint8 or int16 input quantized per tensor; a float32 output of the same shape."""
    require_arity(view, 1)
    input_, output = view.input(0), view.output()
    require_dtype(view, input_, (*QUANTIZED_8, "int16"))
    require_dtype(view, output, ("float32",))
    require_quantized(view, input_)
    require_symmetric(view, input_)
    require_shape(view, output, input_.shape)


def dequantize(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """One rounding (``reference``), three (``affine_float32``) or two (``affine_fused``)."""
    input_ = view.input(0)
    data = operand(values, 0)
    scale, zero_point = np.float32(input_.scale), input_.zero_point

    def by(method: Method) -> Array:
        if method == "reference":  # q - zero_point has at most 17 bits: exact in float32
            return (data.astype(np.int64) - zero_point).astype(np.float32) * scale
        if method == "affine_float32":
            return data.astype(np.float32) * scale + np.float32(-zero_point) * scale
        if method == "affine_fused":
            return fused_multiply_add(data.astype(np.float32), scale, np.float32(-zero_point) * scale)
        raise UnsupportedOp(f"{view}: {method!r} is not defined for this op")

    with np.errstate(over="ignore", invalid="ignore"):
        return SpecResult((in_blocks(rule, view.output().shape, by),))
