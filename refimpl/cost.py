"""What a network costs: parameters, multiplication-additions and operations, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from karat24.refimpl.graph import Graph, LayerView


@dataclass(frozen=True)
class LayerCost:
    """One layer's cost for one run of the graph; windows that reach beyond the image count in full.

    ``parameters``: elements of its filter and bias. ``macs``: multiplication-additions.
    ``macs_at_output``: with a transposed convolution counted as papers do, as a convolution at its
    output's resolution. ``bias_additions``: one per output value with a bias.
    """

    layer: int
    op: str
    parameters: int = 0
    macs: int = 0
    macs_at_output: int = 0
    bias_additions: int = 0

    @property
    def operations(self) -> int:
        """Two per multiplication-addition and one per bias."""
        return 2 * self.macs + self.bias_additions

    @property
    def operations_at_output(self) -> int:
        """Operations with transposed convolutions counted at output resolution."""
        return 2 * self.macs_at_output + self.bias_additions


@dataclass(frozen=True)
class Cost:
    """Costs of all layers, in order, and their sums. ``parameters`` counts a shared constant once."""

    layers: tuple[LayerCost, ...]
    parameters: int

    @property
    def macs(self) -> int:
        """Multiplication-additions of one run."""
        return sum(layer.macs for layer in self.layers)

    @property
    def operations(self) -> int:
        """Two per multiplication-addition and one per bias."""
        return sum(layer.operations for layer in self.layers)

    @property
    def operations_at_output(self) -> int:
        """Operations with transposed convolutions counted at output resolution."""
        return sum(layer.operations_at_output for layer in self.layers)


def count(graph: Graph) -> Cost:
    """Counts a graph, float or quantized; layers without a filter cost nothing here.

    Raises ModelError when a layer with a filter lacks it.
    """
    layers = []
    shared: dict[int, int] = {}
    for view in graph.views():
        weighted = WEIGHTED.get(view.op)
        if weighted is None:
            layers.append(LayerCost(view.layer.index, view.op))
            continue
        elements = {
            tensor.index: math.prod(tensor.shape)
            for tensor in (view.input(weighted.filter), view.optional_input(weighted.bias))
            if tensor is not None
        }
        shared.update(elements)
        has_bias = view.optional_input(weighted.bias) is not None
        layers.append(
            LayerCost(
                view.layer.index,
                view.op,
                parameters=sum(elements.values()),
                macs=weighted.macs(view),
                macs_at_output=weighted.macs_at_output(view),
                bias_additions=math.prod(view.output().shape) if has_bias else 0,
            )
        )
    return Cost(tuple(layers), sum(shared.values()))


@dataclass(frozen=True)
class _Weighted:
    """The position of a layer's filter, and how its multiplication-additions are counted."""

    filter: int
    bias: int
    macs: Callable[[LayerView], int]
    macs_at_output: Callable[[LayerView], int]


def _conv(view: LayerView) -> int:
    """Each output value sums ``y * x * in_channel`` products; the filter is OHWI."""
    return math.prod(view.output().shape) * math.prod(view.input(1).shape[1:])


def _depthwise(view: LayerView) -> int:
    """Each output value sums ``y * x`` products; the filter is 1HWC."""
    return math.prod(view.output().shape) * math.prod(view.input(1).shape[1:3])


def _transposed(view: LayerView) -> int:
    """Each input value is spread over ``y * x * out_channel`` products; the filter is OHWI."""
    return math.prod(view.input(2).shape) * math.prod(view.input(1).shape[:3])


def _onnx_conv(filter_: int) -> Callable[[LayerView], int]:
    """As :func:`_conv`, for filters OIHW and for matrices with one row per output channel."""
    return lambda view: math.prod(view.output().shape) * math.prod(view.input(filter_).shape[1:])


def _onnx_transposed(view: LayerView) -> int:
    """Each input value is spread over its filter ``[in_channel, out_channel, y, x]``."""
    return math.prod(view.input(0).shape) * math.prod(view.input(1).shape[1:])


def _onnx_transposed_at_output(view: LayerView) -> int:
    filter_ = view.input(1).shape
    return math.prod(view.output().shape) * filter_[0] * math.prod(filter_[2:])


def _matrix(image: int) -> Callable[[LayerView], int]:
    """Each output value sums a row of the left matrix."""

    def macs(view: LayerView) -> int:
        rows = view.input(image).shape
        depth = rows[-2] if len(rows) > 1 and view.integer("transA", 0) else rows[-1]
        return math.prod(view.output().shape) * depth

    return macs


WEIGHTED: Mapping[str, _Weighted] = MappingProxyType(
    {
        "Conv": _Weighted(1, 2, _onnx_conv(1), _onnx_conv(1)),
        "ConvInteger": _Weighted(1, 4, _onnx_conv(1), _onnx_conv(1)),
        "ConvTranspose": _Weighted(1, 2, _onnx_transposed, _onnx_transposed_at_output),
        "Gemm": _Weighted(1, 2, _matrix(0), _matrix(0)),
        "MatMul": _Weighted(1, 2, _matrix(0), _matrix(0)),
        "MatMulInteger": _Weighted(1, 4, _matrix(0), _matrix(0)),
        "QLinearConv": _Weighted(3, 8, _onnx_conv(3), _onnx_conv(3)),
        "QLinearMatMul": _Weighted(3, 8, _matrix(0), _matrix(0)),
        "com.microsoft:DynamicQuantizeMatMul": _Weighted(1, 4, _matrix(0), _matrix(0)),
        "com.microsoft:MatMulIntegerToFloat": _Weighted(1, 6, _matrix(0), _matrix(0)),
        "com.microsoft:QGemm": _Weighted(3, 6, _matrix(0), _matrix(0)),
        "CONV_2D": _Weighted(1, 2, _conv, _conv),
        "DEPTHWISE_CONV_2D": _Weighted(1, 2, _depthwise, _depthwise),
        "FULLY_CONNECTED": _Weighted(1, 2, _conv, _conv),
        "TRANSPOSE_CONV": _Weighted(1, 3, _transposed, _conv),
    }
)
"""The ops that carry weights. FULLY_CONNECTED's filter is OI, which ``_conv`` counts rightly."""
