"""Writing each TFLite op in quantized ONNX, in integers and in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.export.onnx.layout import TO_NCHW
from karat24.export.onnx.schema import MICROSOFT
from karat24.export.onnx.writing.convert_affine import conv, depthwise, fully_connected, transpose_conv
from karat24.export.onnx.writing.convert_moves import gather, slice_, split, split_v, strided_slice, transpose
from karat24.export.onnx.writing.convert_reshape import reshaped
from karat24.export.onnx.writing.converter import Converter, layout, strides
from karat24.export.onnx.writing.float_graph import window_pads
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import AttributeValue, LayerView

Convert = Callable[[Converter, LayerView], None]


def _reshape(converter: Converter, view: LayerView) -> None:
    index = converter.activation(view, 0)
    output = converter.moved_output(view)
    name = converter.name(view.output())
    reshaped(converter, view.input(0), index, name, view.output().shape, output)


def _binary(op: str) -> Convert:
    """Ops of two activations; SUB has no integer form."""

    def convert(converter: Converter, view: LayerView) -> None:
        rank = len(view.output().shape)
        for position in (0, 1):
            tensor = view.input(position)
            if len(tensor.shape) != rank and not tensor.is_constant:
                raise UnsupportedOp(
                    f"{view}: shapes {[t.shape for t in view.inputs if t]} of different ranks"
                )
        left, right = (converter.activation(view, position) for position in (0, 1))
        if converter.on_integers and op != "Sub":
            inputs = [*converter.with_parameters(left), *converter.with_parameters(right)]
            converter.in_integers(view, f"{MICROSOFT}:QLinear{op}", inputs, {})
        else:
            converter.in_float(view, op, [converter.dequantized(left), converter.dequantized(right)])

    return convert


def _unary(op: str, integers: bool = True) -> Convert:
    """Ops of one activation without attributes."""

    def convert(converter: Converter, view: LayerView) -> None:
        _one_input(converter, view, op, integers)

    return convert


def _one_input(
    converter: Converter, view: LayerView, op: str, integers: bool = True, **attributes: AttributeValue
) -> None:
    index = converter.activation(view, 0)
    if converter.on_integers and integers:
        if op == "Softmax":
            attributes["opset"] = 13
        converter.in_integers(view, f"{MICROSOFT}:QLinear{op}", converter.with_parameters(index), attributes)
    else:
        converter.in_float(view, op, [converter.dequantized(index)], **attributes)


def _leaky_relu(converter: Converter, view: LayerView) -> None:
    _one_input(converter, view, "LeakyRelu", alpha=view.real("alpha"))


def _softmax(converter: Converter, view: LayerView) -> None:
    if view.real("beta", 1.0) != 1:
        raise UnsupportedOp(f"{view}: beta {view.real('beta')}; ONNX has only 1")
    _one_input(converter, view, "Softmax", axis=1 if len(view.output().shape) == 4 else -1)


def _relu6(converter: Converter, view: LayerView) -> None:
    ends = [
        converter.constant(f"{converter.name(view.output())}/{end}", np.array(value, np.float32))
        for end, value in (("min", 0), ("max", 6))
    ]
    converter.in_float(view, "Clip", [converter.dequantized(converter.activation(view, 0)), *ends])


def _average_pool(converter: Converter, view: LayerView) -> None:
    windows = (view.integer("filter_height"), view.integer("filter_width"))
    pads = window_pads(view, view.input(0).shape, view.output().shape, windows)
    _one_input(
        converter, view, "AveragePool", kernel_shape=windows, strides=strides(view), pads=tuple(pads),
        count_include_pad=0,
    )  # fmt: skip


def _max_pool(converter: Converter, view: LayerView) -> None:
    if view.text("fused_activation_function", "NONE") != "NONE":
        raise UnsupportedOp(f"{view}: a pool with a fused activation")
    windows = (view.integer("filter_height"), view.integer("filter_width"))
    pads = window_pads(view, view.input(0).shape, view.output().shape, windows)
    index = converter.activation(view, 0)
    converter.move(
        "MaxPool", index, converter.moved_output(view), kernel_shape=windows, strides=strides(view),
        pads=tuple(pads),
    )  # fmt: skip


def _sizes(converter: Converter, view: LayerView) -> int:
    name = converter.name(view.output())
    return converter.constant(f"{name}/sizes", np.array(layout(view.output().shape), np.int64))


def _coordinates(view: LayerView) -> str:
    if view.flag("align_corners"):
        return "align_corners"
    return "half_pixel" if view.flag("half_pixel_centers") else "asymmetric"


def _resize_bilinear(converter: Converter, view: LayerView) -> None:
    """In float, since ONNX Runtime's integer form truncates instead of rounding."""
    image, sizes = converter.dequantized(converter.activation(view, 0)), _sizes(converter, view)
    converter.in_float(
        view, "Resize", [image, -1, -1, sizes], mode="linear",
        coordinate_transformation_mode=_coordinates(view),
    )  # fmt: skip


def _resize_nearest(converter: Converter, view: LayerView) -> None:
    """TFLite rounds asymmetric coordinates down, the others half up."""
    mode = _coordinates(view)
    index, sizes = converter.activation(view, 0), _sizes(converter, view)
    converter.move(
        "Resize", index, converter.moved_output(view), -1, -1, sizes, mode="nearest",
        coordinate_transformation_mode=mode,
        nearest_mode="floor" if mode == "asymmetric" else "round_prefer_ceil",
    )  # fmt: skip


def _concatenation(converter: Converter, view: LayerView) -> None:
    rank = len(view.output().shape)
    axis = view.integer("axis") % rank
    axis = TO_NCHW.index(axis) if rank == 4 else axis
    inputs = [converter.activation(view, position) for position in range(len(view.inputs))]
    if converter.on_integers:
        triples = [index for source in inputs for index in converter.with_parameters(source)]
        converter.in_integers(view, f"{MICROSOFT}:QLinearConcat", triples, {"axis": axis}, front=True)
    else:
        converter.in_float(view, "Concat", [converter.dequantized(index) for index in inputs], axis=axis)


def _pad(converter: Converter, view: LayerView) -> None:
    """Zeros: the zero point on integers, 0 in float."""
    pads = view.input(1).data
    if pads is None or len(view.inputs) > 2:
        raise UnsupportedOp(f"{view}: paddings must be constant, without a value to pad with")
    order = TO_NCHW if len(view.output().shape) == 4 else tuple(range(len(view.output().shape)))
    ends = pads[list(order)].T.reshape(-1).astype(np.int64)
    name, output = converter.name(view.output()), converter.output_of(view)
    index = converter.activation(view, 0)
    sizes = converter.constant(f"{name}/pads", ends)
    value = np.array(output.zero_point, output.dtype) if converter.on_integers else np.array(0, np.float32)
    zero = converter.constant(f"{name}/value", value)
    converter.move("Pad", index, converter.moved_output(view), sizes, zero)


AXES_ARE_AN_INPUT = 18
"""The first operator set in which ReduceMean reads its axes from an input."""


def _mean(converter: Converter, view: LayerView) -> None:
    """The mean over an image becomes a global pool; a mean over other axes stays float."""
    axes, rank = view.input(1).data, len(view.input(0).shape)
    if axes is None:
        raise UnsupportedOp(f"{view}: axes must be constant")
    wanted = tuple(sorted({int(axis) % rank for axis in np.asarray(axes).reshape(-1)}))
    if rank == 4 and wanted == (1, 2) and view.flag("keep_dims"):
        _one_input(converter, view, "GlobalAveragePool")
        return
    if rank == 4 and wanted == (1, 2):
        _pooled_rows(converter, view)
        return
    if rank == 4:
        if not view.flag("keep_dims"):
            raise UnsupportedOp(f"{view}: a mean over axes {wanted} that drops them")
        wanted = tuple(sorted(TO_NCHW.index(axis) for axis in wanted))
    image = converter.dequantized(converter.activation(view, 0))
    kept = int(view.flag("keep_dims"))
    if converter.opset < AXES_ARE_AN_INPUT:
        converter.in_float(view, "ReduceMean", [image], axes=wanted, keepdims=kept)
        return
    given = converter.constant(f"{converter.name(view.output())}/axes", np.array(wanted, np.int64))
    converter.in_float(view, "ReduceMean", [image, given], keepdims=kept)


def _pooled_rows(converter: Converter, view: LayerView) -> None:
    """A global pool to [batch, channel, 1, 1], reshaped to [batch, channel]."""
    output, index = converter.output_of(view), converter.activation(view, 0)
    name = converter.name(output)
    pooled = converter.edge(f"{name}/pooled", (*output.shape, 1, 1), output)
    if converter.on_integers:
        inputs = [*converter.with_parameters(index), *converter.parameters(pooled)]
        converter.node(f"{MICROSOFT}:QLinearGlobalAveragePool", inputs, pooled)
    else:
        mean = converter.edge(f"{name}/mean", (*output.shape, 1, 1))
        converter.node("GlobalAveragePool", [converter.dequantized(index)], mean)
        converter.node("QuantizeLinear", [mean, *converter.parameters(pooled)], pooled)
    rows = converter.edge(name, output.shape, output)
    converter.register(output, rows)
    sizes = converter.constant(f"{name}/shape", np.array(output.shape, np.int64))
    converter.move("Reshape", pooled, rows, sizes)


def _quantize(converter: Converter, view: LayerView) -> None:
    """From float, or from other parameters through float, since no runtime has an integer form."""
    source = view.input(0)
    converter.output_of(view)
    if source.dtype == "float32":
        converter.quantize(converter.at(source), view.output())
    else:
        converter.quantize(converter.dequantized(converter.activation(view, 0)), view.output())


def _dequantize(converter: Converter, view: LayerView) -> None:
    converter.register(view.output(), converter.dequantized(converter.activation(view, 0)))


def _size_arithmetic(converter: Converter, view: LayerView) -> None:
    """Layers that compute the sizes of a RESHAPE are not written, since the sizes are known."""
    del converter
    if view.output().dtype not in ("int32", "int64"):
        raise UnsupportedOp(f"{view}: no quantized ONNX for {view.op} of {view.output().dtype} values")


CONVERTERS: Mapping[str, Convert] = MappingProxyType(
    {
        "ADD": _binary("Add"),
        "AVERAGE_POOL_2D": _average_pool,
        "CONCATENATION": _concatenation,
        "CONV_2D": conv,
        "DEPTHWISE_CONV_2D": depthwise,
        "DEQUANTIZE": _dequantize,
        "EXPAND_DIMS": _reshape,
        "FULLY_CONNECTED": fully_connected,
        "GATHER": gather,
        "HARD_SWISH": _unary("HardSwish", integers=False),
        "LEAKY_RELU": _leaky_relu,
        "LOGISTIC": _unary("Sigmoid"),
        "MAX_POOL_2D": _max_pool,
        "MEAN": _mean,
        "MUL": _binary("Mul"),
        "PACK": _size_arithmetic,
        "PAD": _pad,
        "QUANTIZE": _quantize,
        "RELU": _unary("Relu", integers=False),
        "RELU6": _relu6,
        "RESHAPE": _reshape,
        "RESIZE_BILINEAR": _resize_bilinear,
        "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
        "SHAPE": _size_arithmetic,
        "SLICE": slice_,
        "SOFTMAX": _softmax,
        "SPLIT": split,
        "SPLIT_V": split_v,
        "SQUEEZE": _reshape,
        "STRIDED_SLICE": strided_slice,
        "SUB": _binary("Sub"),
        "TANH": _unary("Tanh", integers=False),
        "TRANSPOSE": transpose,
        "TRANSPOSE_CONV": transpose_conv,
    }
)
"""TFLite op to the function that writes it as quantized ONNX."""
