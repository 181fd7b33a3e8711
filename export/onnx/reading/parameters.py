"""The quantization parameters of the edges of an ONNX graph.

In ONNX, scales and zero points are inputs of nodes, not properties of tensors. This module also puts them on
the tensors, so that differences can be given in LSBs and layers can be described: on the outputs of
QuantizeLinear and the QLinear ops, on the inputs of DequantizeLinear and the QLinear ops, and on the outputs
of ops that only move values. An edge that is written with one set of parameters and read with another one
keeps the first. An edge whose writer gives no parameters has those of its readers, where they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from karat24.export.onnx.schema import MICROSOFT
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import QUANTIZED_RANGE, LayerView, Quantization, Tensor


@dataclass(frozen=True)
class Edge:
    """A quantized tensor of a node: positions of the tensor, its scale and its zero point.

    ``filter_axis`` is the axis that scales of several channels belong to: 0 for filters OIHW, -1 for the
    columns of a matrix (its rows where ``transB`` is set), None for the attribute ``axis``.
    """

    tensor: int
    scale: int
    zero_point: int
    filter_axis: int | None = 0


@dataclass(frozen=True)
class Parameters:
    """The edges of an op's quantized inputs and of its output; ``output.tensor`` is an output position."""

    inputs: tuple[Edge, ...]
    output: Edge | None


_UNARY = Parameters((Edge(0, 1, 2),), Edge(0, 3, 4))
_BINARY = Parameters((Edge(0, 1, 2), Edge(3, 4, 5)), Edge(0, 6, 7))
_QUANTIZE = Parameters((), Edge(0, 1, 2, None))
_DEQUANTIZE = Parameters((Edge(0, 1, 2, None),), None)

PARAMETERS: Mapping[str, Parameters] = MappingProxyType(
    {
        "DequantizeLinear": _DEQUANTIZE,
        "QLinearConv": _BINARY,
        "QLinearMatMul": Parameters((Edge(0, 1, 2), Edge(3, 4, 5, -1)), Edge(0, 6, 7, -1)),
        "QuantizeLinear": _QUANTIZE,
        f"{MICROSOFT}:DequantizeLinear": _DEQUANTIZE,
        f"{MICROSOFT}:DynamicQuantizeMatMul": Parameters((Edge(1, 2, 3, -1),), None),
        f"{MICROSOFT}:MatMulIntegerToFloat": Parameters((Edge(0, 2, 4), Edge(1, 3, 5, -1)), None),
        f"{MICROSOFT}:QGemm": Parameters((Edge(0, 1, 2), Edge(3, 4, 5, -1)), Edge(0, 7, 8)),
        f"{MICROSOFT}:QLinearAdd": _BINARY,
        f"{MICROSOFT}:QLinearAveragePool": _UNARY,
        f"{MICROSOFT}:QLinearGlobalAveragePool": _UNARY,
        f"{MICROSOFT}:QLinearLeakyRelu": _UNARY,
        f"{MICROSOFT}:QLinearMul": _BINARY,
        f"{MICROSOFT}:QLinearSigmoid": _UNARY,
        f"{MICROSOFT}:QLinearSoftmax": _UNARY,
        f"{MICROSOFT}:QuantizeLinear": _QUANTIZE,
    }
)
"""The positions of an op's quantization parameters; :func:`parameters_of` adds QLinearConcat, whose number
of inputs varies."""

MOVING = frozenset(
    {
        "Clip", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu",
        "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Ops whose outputs have the scale and zero point of input 0, where that is quantized per tensor."""


def parameters_of(op: str, input_count: int) -> Parameters | None:
    """The positions of a node's quantization parameters; None for an op without any."""
    if op == f"{MICROSOFT}:QLinearConcat":
        edges = tuple(Edge(i, i + 1, i + 2) for i in range(2, input_count - 2, 3))
        return Parameters(edges, Edge(0, 0, 1))
    return PARAMETERS.get(op)


def output_quantization(view: LayerView) -> Quantization | None:
    """Parameters of the node's outputs, where they are constants. Raises ModelError."""
    line = parameters_of(view.op, len(view.inputs))
    if line is not None and line.output is not None:
        return _parameters(view, line.output, view.output())
    source = view.optional_input(0)
    if view.op in MOVING and source is not None and source.quantization is not None:
        return None if source.quantization.per_channel else source.quantization
    return None


def input_quantizations(view: LayerView) -> list[tuple[int, Quantization]]:
    """``(tensor index, parameters)`` of each quantized input. Raises ModelError."""
    line = parameters_of(view.op, len(view.inputs))
    found = []
    for edge in line.inputs if line is not None else ():
        tensor = view.input(edge.tensor)
        quantization = _parameters(view, edge, tensor)
        if quantization is not None:
            found.append((tensor.index, quantization))
    return found


def _parameters(view: LayerView, edge: Edge, tensor: Tensor) -> Quantization | None:
    scale, zero_point = view.optional_input(edge.scale), view.optional_input(edge.zero_point)
    blocks = view.layer.attributes.get("block_size", 0)
    if scale is None or scale.data is None or tensor.dtype not in QUANTIZED_RANGE or blocks:
        return None
    if scale.dtype not in ("float32", "float16") or scale.data.ndim > 1:
        raise ModelError(f"{view}: the scale {scale.name!r} is {scale.dtype} of shape {scale.shape}")
    scales = tuple(float(value) for value in scale.data.reshape(-1))
    zero_points: tuple[int, ...] = (0,) * len(scales)
    if zero_point is not None:
        if zero_point.data is None:
            return None
        if zero_point.dtype != tensor.dtype or zero_point.data.size != len(scales):
            raise ModelError(
                f"{view}: zero point {zero_point.name!r} is {zero_point.dtype} of shape {zero_point.shape}, "
                f"for {tensor.dtype} values with {len(scales)} scales"
            )
        zero_points = tuple(int(value) for value in np.asarray(zero_point.data).reshape(-1))
    axis = 0
    if len(scales) > 1:
        wanted = view.integer("axis", 1) if edge.filter_axis is None else edge.filter_axis
        if wanted == -1 and view.integer("transB", 0):
            wanted = 0
        rank = len(tensor.shape)
        if not -rank <= wanted < rank:
            raise ModelError(f"{view}: scales along axis {wanted} of a rank-{rank} tensor")
        axis = wanted % rank
    try:
        quantization = Quantization(scales, zero_points, axis)
        Tensor(tensor.index, tensor.name, tensor.shape, tensor.dtype, quantization)
    except ModelError as error:
        raise ModelError(f"{view}: {error}") from None
    return quantization
