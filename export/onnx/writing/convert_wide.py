"""A convolution with an int16 filter of powers of two, as two int8 convolutions.

ONNX has no integer convolution with 16-bit filters, but its sums are exact in int32:
``sum(x * q) = ConvInteger(x, low) + 2^k * ConvInteger(x, high)`` for ``q = low + 2^k * high``. The bias is
added in int32; DequantizeLinear and QuantizeLinear then round the sum.
"""

from __future__ import annotations

import numpy as np

from karat24.export.onnx.layout import TO_NCHW
from karat24.export.onnx.writing.converter import Converter, layout, strides
from karat24.export.onnx.writing.float_graph import window_pads
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, AttributeValue, LayerView, Tensor


def two_int8(integers: Array, split: int) -> tuple[Array, Array]:
    """``(low, high)``, both int8, with ``low + high * 2^split`` the given integers ±2^p and 0.

    Exponents below ``split`` go into ``low``, the others into ``high``. With ``split = 8`` the low part can
    be +128, which int8 lacks: it is written as 256 - 128.
    Raises ValueError if a part does not fit int8.
    """
    wide = integers.astype(np.int64)
    magnitudes = np.abs(wide)
    high = np.sign(wide) * (magnitudes >> split)
    low = wide - (high << split)
    high, low = np.where(low == 128, high + 1, high), np.where(low == 128, low - (1 << split), low)
    parts = low.astype(np.int8), high.astype(np.int8)
    if not np.array_equal(parts[0] + (parts[1].astype(np.int64) << split), wide):
        raise ValueError(f"integers up to {magnitudes.max()} do not fit two int8 parts split at bit {split}")
    return parts


def split_of(integers: Array) -> int:
    """Where :func:`two_int8` halves the exponents of these integers: 4 for a span of 7, 8 for one of 14."""
    span = int(np.abs(integers.astype(np.int64)).max()).bit_length() - 1
    return span // 2 + 1


def is_wide(filter_: Tensor) -> bool:
    """True for the filters this module writes."""
    return filter_.dtype == "int16" and filter_.data is not None


def wide_conv(converter: Converter, view: LayerView) -> None:
    """A CONV_2D with an int16 filter OHWI. Raises UnsupportedOp in flavours other than ``qoperator``, which
    would compute it in float32, and for a filter that is not a sum of two int8 ones."""
    filter_, bias = view.input(1), view.optional_input(2)
    assert filter_.data is not None
    assert filter_.quantization is not None
    if not converter.on_integers:
        raise UnsupportedOp(
            f"{view}: the int16 filter {filter_.name!r} is exact in two integer convolutions only; "
            "use the flavour qoperator"
        )
    split = split_of(filter_.data)
    try:
        low, high = two_int8(filter_.data.transpose(TO_NCHW), split)
    except ValueError as failure:
        raise UnsupportedOp(f"{view}: the filter {filter_.name!r}: {failure}") from None
    sums = [_integer_conv(converter, view, part, values) for part, values in (("low", low), ("high", high))]
    name, shape = converter.name(view.output()), layout(view.output().shape)
    factor = converter.constant(f"{name}/factor", np.array(1 << split, np.int32))
    sums[1] = converter.node("Mul", [sums[1], factor], _int32(converter, f"{name}/raised", shape))
    total = converter.node("Add", sums, _int32(converter, f"{name}/sum", shape))
    if bias is not None:
        if bias.data is None or bias.dtype != "int32":
            raise UnsupportedOp(f"{view}: the bias {bias.name!r} must be an int32 constant")
        values = converter.constant(converter.name(bias), bias.data.reshape(1, -1, 1, 1))
        total = converter.node("Add", [total, values], _int32(converter, f"{name}/biased", shape))
    scales = np.float32(view.input(0).scale) * np.array(filter_.quantization.scale, np.float32)
    scale = converter.constant(
        f"{name}/scales", scales.reshape(-1) if scales.size > 1 else scales.reshape(())
    )
    converter.in_float(view, "DequantizeLinear", [total, scale], axis=1)


def _integer_conv(converter: Converter, view: LayerView, part: str, values: np.ndarray) -> int:
    """The int32 sums of the image with one half of the filter, OIHW."""
    image, output, sizes = view.input(0).shape, view.output().shape, values.shape[2:]
    dilations = (view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1))
    windows = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    attributes: dict[str, AttributeValue] = {
        "kernel_shape": tuple(sizes),
        "strides": strides(view),
        "dilations": dilations,
        "group": image[3] // values.shape[1],
        "pads": tuple(window_pads(view, image, output, windows)),
    }
    name = f"{converter.name(view.output())}/{part}"
    filter_ = converter.constant(f"{name}/filter", values)
    data = converter.activation(view, 0)
    _, zero_point = converter.parameters(data)
    sums = _int32(converter, name, layout(output))
    return converter.node("ConvInteger", [data, filter_, zero_point], sums, **attributes)


def _int32(converter: Converter, name: str, shape: tuple[int, ...]) -> int:
    return converter.edge(name, shape, Tensor(0, name, shape, "int32"))
