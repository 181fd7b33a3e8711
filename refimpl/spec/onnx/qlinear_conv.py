"""QLinearConv: an int8 or uint8 convolution over one to three spatial axes, requantized."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import effective, requantize
from karat24.refimpl.spec.onnx.one_axis import as_image
from karat24.refimpl.spec.onnx.parameters import Affine, affine, constant
from karat24.refimpl.spec.onnx.sums import check_convolution, convolve, zero_of
from karat24.refimpl.spec.shared.primitives import wrap32
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
)
from karat24.refimpl.spec.shared.scales import require_multiplier


def check_qlinear_conv(view: LayerView) -> None:
    """Inputs: x, scale, zero point, filter OIHW (constant), scale, zero point, output scale, zero point,
    optional int32 bias ``[O]``. The filter's scales are one, or one per output channel.
    """
    require_arity(view, 8, optional=1)
    for tensor in (view.input(0), view.input(3), view.output()):
        require_dtype(view, tensor, QUANTIZED_8)
    constant(view, 3)
    check_convolution(as_image(view, 3), 0, 3)
    data, filters, output = parameters(view)
    require(view, data.per_tensor and output.per_tensor, "data and output need one scale each")
    bias = view.optional_input(8)
    if bias is not None:
        require(
            view,
            bias.dtype == "int32" and bias.shape == view.input(3).shape[:1],
            f"the bias is {bias.dtype} {bias.shape}, not int32 {view.input(3).shape[:1]}",
        )
        constant(view, 8)
    for scale in filters.scale:
        real = float(data.scale[0]) * float(scale) / float(output.scale[0])
        require_multiplier(view, real, "x_scale * w_scale / y_scale")


def parameters(view: LayerView) -> tuple[Affine, Affine, Affine]:
    """The parameters of the data, the filter and the output."""
    weights = view.input(3)
    return (
        affine(view, 1, 2, view.input(0).dtype),
        affine(view, 4, 5, weights.dtype, weights.shape[0]),
        affine(view, 6, 7, view.output().dtype),
    )


def qlinear_conv(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``y = acc * f32(f32(s_x * s_w) / s_y) + zp``, the accumulator kept in 32 bits."""
    data, filters, _ = parameters(view)
    given, view = view, as_image(view, 3)
    over = check_convolution(view, 0, 3)
    image, weights = (operand(values, i).reshape(view.input(i).shape) for i in (0, 3))
    sums = convolve(view, rule, over, (image, zero_of(data)), (weights, filters.zero_point))
    bias = values[8] if len(values) > 8 else None
    if bias is not None:
        sums = sums + bias.astype(np.int64).reshape(-1, *[1] * len(over))
    acc = wrap32(sums)
    result = requantized_convolution(view, acc, rule).reshape(given.output().shape)
    acc = acc.reshape(given.output().shape)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),), acc.astype(np.int32))


def requantized_convolution(view: LayerView, acc: Array, rule: Rule) -> Array:
    """Accumulators ``[batch, channel, ...]`` as quantized outputs, int64."""
    scale = effective_multipliers(view, rule).reshape(-1, *[1] * (acc.ndim - 2))
    return requantize(view, rule, acc, scale, parameters(view)[2])


def effective_multipliers(view: LayerView, rule: Rule) -> Array:
    """``s_x * s_w / s_y``, one or one per output channel."""
    return effective(rule, *parameters(view))
