"""Filter, bias, accumulator and requantization of convolutions and fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from karat24.refimpl.contract import SpecResult, accumulator_dtype
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView, Tensor
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.shared.packed import PACKED, packed_size, unpacked
from karat24.refimpl.spec.shared.primitives import (
    ACTIVATION_BOUNDS,
    activation_range,
    effective_multiplier,
    requantize,
    wrap32,
)
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    QUANTIZED_8,
    require,
    require_activation,
    require_dtype,
    require_elements,
    require_quantized,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.shared.scales import require_bounds, require_inside_int32, require_multiplier

UNNAMED_BIAS = "float32"
"""The default of attribute ``quantized_bias_type``, which means that no type is given."""

FILTERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"int8": ("int8", "int4"), "uint8": ("uint8",), "int16": ("int8",)}
)
"""Element type of the input to those of the filter."""

MOST_TAPS = 2**16
"""The most products of two int8 values, each at most 255 * 128, whose sum cannot overflow int32."""

UNBOUNDED: tuple[Method, ...] = ("q15", "float64_half_away", "float64_saturating")
"""Methods that take accumulators of 64 bits."""


def require_weighted(
    view: LayerView,
    input_: Tensor,
    filter_: Tensor,
    bias: Tensor | None,
    channel_axis: int,
    any_filter: bool = False,
) -> None:
    """Input and output int8 or uint8, a constant filter of the same type, a constant int32 bias.

    The filter of an int8 input may be int4. Input and output may be int16 with zero point 0; the filter
    is int8 then and the bias int32 or int64. The filter is quantized per tensor, or (int8 and int4
    only) per channel along ``channel_axis``; such a filter's zero points are 0. With ``any_filter`` an 8-bit
    filter of 8-bit data that is quantized per tensor may be computed and have any zero point. The bias has
    one value per output channel. For float32 data the filter is int8 and the bias float32. Runtimes must
    define every multiplier ``s_in * s_filter / s_out``, no result plus zero point may overflow int32, and the
    fused activation must be known.
    """
    output = view.output()
    if input_.dtype == "float32":
        _require_hybrid(view, input_, filter_, bias, channel_axis)
        return
    require_dtype(view, input_, QUANTIZED)
    require_dtype(view, output, (input_.dtype,))
    require_dtype(view, filter_, FILTERS[input_.dtype])
    for tensor in (input_, filter_, output):
        require_elements(view, tensor)
    require_quantized(view, input_, output)
    require_symmetric(view, input_, output)
    free = any_filter and input_.dtype in QUANTIZED_8 and filter_.dtype in QUANTIZED_8
    _require_filter(view, filter_, channel_axis, free)
    if bias is not None:
        _require_bias(view, bias, filter_.shape[channel_axis])
    require_bounds(view, require_activation(view, ACTIVATION_BOUNDS), output)
    for scale in scales_of(filter_):
        require_multiplier(view, input_.scale * scale / output.scale, "s_in * s_filter / s_out")
    require_inside_int32(view)


def _require_hybrid(
    view: LayerView, input_: Tensor, filter_: Tensor, bias: Tensor | None, channel_axis: int
) -> None:
    require_dtype(view, view.output(), ("float32",))
    require_dtype(view, filter_, ("int8",))
    for tensor in (input_, filter_, view.output()):
        require_elements(view, tensor)
    _require_filter(view, filter_, channel_axis, False)
    taps = math.prod(filter_.shape) // filter_.shape[channel_axis]
    require(view, taps <= MOST_TAPS, f"sums of {taps} products; more than {MOST_TAPS} can overflow int32")
    require_activation(view, ACTIVATION_BOUNDS)
    if bias is not None:
        require_dtype(view, bias, ("float32",))
        _require_constant(view, bias, f"bias (tensor {bias.index}, {bias.name!r})")
        require_shape(view, bias, (filter_.shape[channel_axis],))


def _require_filter(view: LayerView, filter_: Tensor, channel_axis: int, any_filter: bool) -> None:
    label = f"filter (tensor {filter_.index}, {filter_.name!r})"
    if filter_.dtype in PACKED and filter_.data is not None:
        require(
            view,
            filter_.data.size == packed_size(filter_),
            f"{label} of shape {filter_.shape} has {filter_.data.size} bytes, not {packed_size(filter_)}",
        )
    quantization = filter_.quantization
    require(view, quantization is not None, f"{label} has no quantization parameters")
    assert quantization is not None
    any_filter = any_filter and not quantization.per_channel
    if not any_filter:
        _require_constant(view, filter_, label)
    if quantization.per_channel:
        if filter_.dtype == "uint8":
            raise UnsupportedOp(f"{view}: {label} is {filter_.dtype} per channel; only int8 filters can be")
        require(
            view,
            quantization.axis == channel_axis,
            f"{label} is quantized along axis {quantization.axis}; axis {channel_axis} is needed",
        )
    if filter_.dtype != "uint8" and not any_filter:
        require(
            view,
            not any(quantization.zero_point),
            f"{label} is {filter_.dtype} with a zero point that is not 0",
        )


def _require_bias(view: LayerView, bias: Tensor, channels: int) -> None:
    label = f"bias (tensor {bias.index}, {bias.name!r})"
    require_dtype(view, bias, ("int32", "int64") if view.output().dtype == "int16" else ("int32",))
    named = view.text("quantized_bias_type", UNNAMED_BIAS)
    if view.output().dtype == "int16" and named not in (UNNAMED_BIAS, bias.dtype):
        require(view, False, f"{label} is {bias.dtype}, attribute quantized_bias_type says {named}")
    _require_constant(view, bias, label)
    require(
        view,
        bias.shape == (channels,),
        f"{label} has shape {bias.shape}; one value for each of {channels} output channels is needed",
    )
    if bias.quantization is not None:
        require(view, not any(bias.quantization.zero_point), f"{label} has a zero point that is not 0")


def _require_constant(view: LayerView, tensor: Tensor, label: str) -> None:
    if not tensor.is_constant:
        raise UnsupportedOp(f"{view}: {label} is computed by the graph; karat24 implements constants only")


def scales_of(filter_: Tensor) -> tuple[float, ...]:
    """The filter's scales: a single one, or one per output channel."""
    assert filter_.quantization is not None
    return filter_.quantization.scale


def zero_point_removed(tensor: Tensor, value: Array) -> Array:
    """``q - zero_point`` as int64 in the tensor's shape. A per-channel filter's zero points are all 0."""
    assert tensor.quantization is not None
    return unpacked(tensor, value).astype(np.int64) - tensor.quantization.zero_point[0]


def finish(
    view: LayerView, input_: Tensor, filter_: Tensor, products: Array, bias: Array | None, rule: Rule
) -> SpecResult:
    """Bias, requantization and fused activation over ``products`` ``[..., out_channel]``, int64 sums.

    ``acc = wrap32(products + bias)``, the value of an int32 accumulator in any order of additions. For int16
    without an int32 bias the accumulator has 64 bits, where the method takes them.
    """
    if bias is not None:
        products = products + bias.astype(np.int64)
    narrow_bias = bias is not None and bias.dtype == np.int32
    wide = input_.dtype == "int16" and not narrow_bias and rule.method in UNBOUNDED
    acc = products if wide else wrap32(products)
    result = requantized(view, input_, filter_, acc, rule)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),), acc.astype(accumulator_dtype(view)))


def requantized(view: LayerView, input_: Tensor, filter_: Tensor, acc: Array, rule: Rule) -> Array:
    """Accumulators ``[..., out_channel]`` as outputs within the fused activation's bounds, int64."""
    output = view.output()
    activation = view.text("fused_activation_function", "NONE")
    low, high = activation_range(activation, output.scale, output.zero_point, output.dtype, rule.clamp)
    effective = effective_multipliers(input_, filter_, output, rule)
    return requantize(acc, effective, rule, output.zero_point, low, high)


def effective_multipliers(input_: Tensor, filter_: Tensor, output: Tensor, rule: Rule) -> Array:
    """``s_in * s_filter / s_out``: a single one, or one per output channel."""
    scales = np.array(scales_of(filter_), np.float32)
    return effective_multiplier(rule.multiplier, input_.scale, scales, output.scale)
