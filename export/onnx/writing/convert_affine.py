"""Writing layers with a filter in quantized ONNX."""

from __future__ import annotations

import math

import numpy as np

from karat24.export.onnx.layout import TO_NCHW
from karat24.export.onnx.schema import MICROSOFT
from karat24.export.onnx.writing.convert_reshape import reshaped
from karat24.export.onnx.writing.convert_wide import is_wide, wide_conv
from karat24.export.onnx.writing.converter import EIGHT_BITS, Converter, strides
from karat24.export.onnx.writing.float_graph import transposed_geometry, window_pads
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import AttributeValue, LayerView, Quantization, Tensor


def _filter(converter: Converter, view: LayerView, position: int, order: tuple[int, ...], axis: int) -> int:
    """The filter with its axes in ``order``; scales per channel lie along ``axis`` afterwards."""
    tensor = view.input(position)
    if tensor.data is None or tensor.dtype not in EIGHT_BITS or tensor.quantization is None:
        raise UnsupportedOp(f"{view}: the filter {tensor.name!r} must be an 8-bit constant")
    quantization = tensor.quantization
    if quantization.per_channel:
        if order[axis] != quantization.axis:
            raise UnsupportedOp(f"{view}: filter quantized along axis {quantization.axis}")
        quantization = Quantization(quantization.scale, quantization.zero_point, axis)
    else:
        quantization = Quantization(quantization.scale, quantization.zero_point)
    return _shared(converter, tensor, tensor.data.transpose(order), quantization)


def _shared(converter: Converter, tensor: Tensor, values: np.ndarray, quantization: Quantization) -> int:
    index = converter.constant(converter.name(tensor), values, quantization)
    converter.register(tensor, index)
    return index


def _bias(converter: Converter, view: LayerView, position: int, scales: np.ndarray) -> list[int]:
    """A list of the layer's int32 bias; empty where it has none."""
    tensor = view.optional_input(position)
    if tensor is None:
        return []
    if tensor.data is None or tensor.dtype != "int32":
        raise UnsupportedOp(f"{view}: the bias {tensor.name!r} must be an int32 constant")
    per_channel = scales.size > 1
    values = tuple(float(scale) for scale in scales)
    quantization = Quantization(values, (0,) * len(values)) if per_channel else Quantization(values, (0,))
    return [_shared(converter, tensor, tensor.data.reshape(-1), quantization)]


def _float_bias(converter: Converter, view: LayerView, position: int, scales: np.ndarray) -> list[int]:
    """The bias of an op in float: dequantized; stored as float32 for TensorRT and where it has 64 bits."""
    tensor = view.optional_input(position)
    if converter.flavour != "tensorrt" and (tensor is None or tensor.dtype != "int64"):
        return [converter.dequantized(index) for index in _bias(converter, view, position, scales)]
    if tensor is None:
        return []
    if tensor.data is None or tensor.dtype not in ("int32", "int64"):
        raise UnsupportedOp(f"{view}: the bias {tensor.name!r} must be an int32 constant")
    values = (tensor.data.astype(np.float64) * scales.astype(np.float64)).astype(np.float32)
    return [converter.constant(converter.name(tensor), values.reshape(-1))]


def _bias_scales(image: Tensor, filter_: Tensor) -> np.ndarray:
    """``f32(input scale * filter scale)``, one or one per output channel."""
    assert filter_.quantization is not None
    return np.float32(image.scale) * np.array(filter_.quantization.scale, np.float32)


def _affine(
    converter: Converter,
    view: LayerView,
    filter_: int,
    image: int,
    ops: tuple[str, str],
    **attributes: AttributeValue,
) -> None:
    """A product of the activation (an index of the ONNX graph) and a filter; input 2 is an optional bias."""
    scales = _bias_scales(view.input(0), view.input(1))
    if converter.on_integers:
        bias = _bias(converter, view, 2, scales)
        inputs = [*converter.with_parameters(image), *converter.with_parameters(filter_)]
        if ops[1].endswith("QGemm"):
            # QGemm reads its bias before the output's parameters.
            converter.in_integers(view, ops[1], [*inputs, *(bias or [-1])], attributes)
        else:
            converter.in_integers(view, ops[1], inputs, attributes, bias)
        return
    inputs = [converter.dequantized(image), converter.dequantized(filter_)]
    converter.in_float(view, ops[0], [*inputs, *_float_bias(converter, view, 2, scales)], **attributes)


def conv(converter: Converter, view: LayerView) -> None:
    """OHWI becomes [out_channel, in_channel / group, y, x]."""
    if is_wide(view.input(1)):
        wide_conv(converter, view)
        return
    channels, filter_ = view.input(0).shape[3], view.input(1).shape
    index = _filter(converter, view, 1, TO_NCHW, 0)
    _convolve(converter, view, index, channels // filter_[3])


def depthwise(converter: Converter, view: LayerView) -> None:
    """1HWC becomes [out_channel, 1, y, x] in as many groups as the input has channels."""
    index = _filter(converter, view, 1, (3, 0, 1, 2), 0)
    _convolve(converter, view, index, view.input(0).shape[3])


def _convolve(converter: Converter, view: LayerView, filter_: int, group: int) -> None:
    image, output, sizes = view.input(0).shape, view.output().shape, converter.shape(filter_)[2:]
    dilations = (view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1))
    windows = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    _affine(
        converter, view, filter_, converter.activation(view, 0), ("Conv", "QLinearConv"),
        kernel_shape=tuple(sizes), strides=strides(view), dilations=dilations, group=group,
        pads=tuple(window_pads(view, image, output, windows)),
    )  # fmt: skip


def transpose_conv(converter: Converter, view: LayerView) -> None:
    """TRANSPOSE_CONV in float, since no runtime has an integer form; OHWI becomes
    [in_channel, out_channel, y, x]."""
    filter_ = _filter(converter, view, 1, (3, 0, 1, 2), 1)
    pads, output_padding = transposed_geometry(view)
    scales = _bias_scales(view.input(2), view.input(1))
    inputs = [converter.dequantized(converter.activation(view, 2)), converter.dequantized(filter_)]
    converter.in_float(
        view, "ConvTranspose", [*inputs, *_float_bias(converter, view, 3, scales)],
        kernel_shape=view.input(1).shape[1:3], strides=strides(view), pads=tuple(pads),
        output_padding=tuple(output_padding),
    )  # fmt: skip


def fully_connected(converter: Converter, view: LayerView) -> None:
    """Rows of the input times the filter OI; an input of another rank is first reshaped to rows."""
    if view.text("weights_format", "DEFAULT") != "DEFAULT":
        raise UnsupportedOp(f"{view}: shuffled weights")
    output, columns = view.output(), view.input(1).shape[1]
    if len(output.shape) != 2:
        raise UnsupportedOp(f"{view} gives values of shape {output.shape}, not rows")
    image = converter.activation(view, 0)
    rows = (math.prod(view.input(0).shape) // columns, columns)
    if view.input(0).shape != rows:
        name = f"{converter.name(output)}/rows"
        image = reshaped(converter, view.input(0), image, name, rows)
    filter_ = _filter(converter, view, 1, (0, 1), 0)
    _affine(converter, view, filter_, image, ("Gemm", f"{MICROSOFT}:QGemm"), transB=1)
