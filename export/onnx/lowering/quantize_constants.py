"""Quantizing float filters and biases of quantized layers, as ONNX Runtime's optimizer does it.

Its pass WeightBiasQuantization (1.31) looks at each Conv, ConvTranspose and Gemm whose input 0 is
dequantized with one scale and whose output is only read, over Relu and Clip, by a QuantizeLinear. It makes
int8 of what files in QOperator form leave in float, such as the filter of a ConvTranspose.
"""

from __future__ import annotations

import numpy as np

from karat24.export.onnx.lowering.rewriting import DEQUANTIZE, QUANTIZE, Node, Rewriting
from karat24.refimpl.graph import Array, Quantization


def quantize_constants(rewriting: Rewriting) -> None:
    """Puts DequantizeLinear nodes of new constants where the optimizer would."""
    for node in rewriting.each("Conv", "ConvTranspose", "Gemm"):
        image, filter_ = rewriting.dequantize_of(node, 0), rewriting.dequantize_of(node, 1)
        if image is None or not leads_to_quantize(rewriting, node):
            continue
        scale, bias = rewriting.data(image.inputs[1]), _bias(rewriting, node)
        if scale is None or scale.size != 1 or (node.input(2) != -1 and bias is None):
            continue
        stored = filter_ is not None
        if filter_ is None:
            filter_ = _quantize_filter(rewriting, node, image.version)
        filter_scale = None if filter_ is None else rewriting.data(filter_.inputs[1])
        if filter_ is None or filter_scale is None or bias is None:
            continue
        if filter_scale.size != 1 and (
            filter_scale.shape != bias.shape or _other_axis(rewriting, node, filter_)
        ):
            continue
        if stored and scale.ndim > filter_scale.ndim and node.op != "ConvTranspose":
            # The pass expects a product of shape [] of scales of shape [1] and [], and so fails to fold it:
            # the bias is quantized while the model runs, and the op stays in float.
            continue
        _quantize_bias(rewriting, node, bias, scale.reshape(()) * filter_scale, filter_.version)


def _bias(rewriting: Rewriting, node: Node) -> Array | None:
    """The node's bias where it is a constant list of float32 numbers."""
    bias = rewriting.data(node.input(2))
    return bias if bias is not None and bias.ndim == 1 and bias.dtype == np.float32 else None


def _quantize_filter(rewriting: Rewriting, node: Node, version: int) -> Node | None:
    """A DequantizeLinear over the float32 constant in int8, per tensor; None for anything else."""
    index = node.inputs[1]
    values = rewriting.data(index)
    if values is None or values.dtype != np.float32 or not values.size:
        return None
    stored, scale, zero_point = quantized_filter(values)
    source = rewriting.tensors[index]
    parameters = Quantization.per_tensor(float(scale), int(zero_point))
    quantized = rewriting.add_constant(f"{source.name}_q", stored, parameters)
    inputs = [
        quantized,
        rewriting.add_constant(f"{source.name}_scale", np.asarray(scale)),
        rewriting.add_constant(f"{source.name}_zp", np.asarray(zero_point)),
    ]
    restored = rewriting.add_tensor(f"{source.name}_dq", source, "float32")
    pair = Node(DEQUANTIZE, inputs, [restored], {}, version)
    rewriting.insert(rewriting.nodes.index(node), pair)
    rewriting.read(node, 1, restored)
    return pair


def quantized_filter(values: Array) -> tuple[Array, np.float32, np.int8]:
    """int8 values, their scale and zero point, for float32 ``values``; all steps in float32.

    The range is stretched to hold 0: ``scale = (max - min) / 255``, 1 where both are 0, and
    ``zero_point = rint(clip(-128 - min / scale))``. Source: ONNX Runtime 1.31, ``GetQuantizationParameter``.
    """
    low, high = (np.float32(limit) for limit in (min(values.min(), 0.0), max(values.max(), 0.0)))
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.float32(1) if low == high else np.float32((high - low) / np.float32(255))
        zero_point = np.rint(np.clip(np.float32(-128) - low / scale, np.float32(-128), np.float32(127)))
        steps = np.clip(values / scale, np.float32(-128) - zero_point, np.float32(127) - zero_point)
        return (np.rint(steps) + zero_point).astype(np.int8), scale, zero_point.astype(np.int8)


def _quantize_bias(rewriting: Rewriting, node: Node, bias: Array, scales: Array, version: int) -> None:
    """int32 in steps of the scales of input and filter: ``rint(f32(bias / f32(sx * sw)))``."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        steps = np.rint(bias / scales).astype(np.int32)
    source = rewriting.tensors[node.inputs[2]]
    quantized = rewriting.add_constant(f"{source.name}_int32", steps)
    restored = rewriting.add_tensor(f"{source.name}_dq", source, "float32")
    scale = rewriting.add_constant(f"{source.name}_scale", np.asarray(scales))
    attributes = {"axis": 0} if scales.size != 1 else {}
    pair = Node(DEQUANTIZE, [quantized, scale], [restored], dict(attributes), version)
    rewriting.insert(rewriting.nodes.index(node), pair)
    rewriting.read(node, 2, restored)


def _other_axis(rewriting: Rewriting, node: Node, filter_: Node) -> bool:
    """True when the filter's scales are not along its output channels (ConvTranspose: its input's)."""
    axis = rewriting.view(filter_).integer("axis", 1) % len(rewriting.tensors[filter_.inputs[0]].shape)
    expected = 1 if node.op == "Gemm" and not rewriting.view(node).integer("transB", 0) else 0
    return axis != expected


def leads_to_quantize(rewriting: Rewriting, node: Node) -> bool:
    """True when the output's only reader, after any Relu and Clip, is a QuantizeLinear."""
    reader = rewriting.only_reader(node)
    while reader is not None and reader.op in ("Relu", "Clip"):
        reader = rewriting.only_reader(reader)
    return reader is not None and reader.op == QUANTIZE
