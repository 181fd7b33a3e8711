"""What a layer multiplies with: per output channel where it accumulates, per operand where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from karat24.inspection.multipliers import Product, float32_bits, pair_forms
from karat24.inspection.surroundings import Surroundings
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.tflite.variants import COMPARISONS
from karat24.refimpl.spec.shared.primitives import quantize_multiplier

FILTERED: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "CONV_2D": (0, 1),
        "DEPTHWISE_CONV_2D": (0, 1),
        "FULLY_CONNECTED": (0, 1),
        "TRANSPOSE_CONV": (2, 1),
        "QLinearConv": (0, 3),
        "QLinearMatMul": (0, 3),
        "com.microsoft:QGemm": (0, 3),
        "Conv": (0, 1),
        "ConvTranspose": (0, 1),
        "MatMul": (0, 1),
        "Gemm": (0, 1),
        "BATCH_MATMUL": (0, 1),
    }
)
"""Positions of the data and of the filter in layers that accumulate."""

ADD_LEFT_SHIFT = 20


def channel_scalings(around: Surroundings, view: LayerView) -> list[dict[str, Any]]:
    """One entry per scale of an accumulating layer's filter: its channel (None for all channels), its scale
    and its multiplier's forms. Empty for other layers, and where a scale is not stored."""
    if view.op not in FILTERED:
        return []
    data, filter_ = (view.optional_input(position) for position in FILTERED[view.op])
    parameters = [around.quantization(tensor) for tensor in (data, filter_, *view.outputs[:1])]
    if len(parameters) != 3 or data is None or filter_ is None:
        return []
    given, weights, written = parameters
    if given is None or weights is None or written is None or given.per_channel or written.per_channel:
        return []
    wide = data.dtype in ("int16", "uint16")
    return [
        {
            "channel": channel if weights.per_channel else None,
            "input_scale": given.scale[0],
            "filter_scale": scale,
            "output_scale": written.scale[0],
            **Product(given.scale[0], scale, written.scale[0], wide).forms(),
        }
        for channel, scale in enumerate(weights.scale)
    ]


def operand_scalings(view: LayerView) -> list[dict[str, Any]]:
    """One entry per multiplier of a layer on quantized values that does not accumulate."""
    describe = OPERANDS.get(view.op)
    if describe is None:
        return []
    try:
        return describe(view)
    except KaratError:
        return []  # a scale is missing or has no pair: there is nothing to show


def _entry(what: str, product: Product) -> dict[str, Any]:
    return {"operand": what, **product.forms()}


def _pair(what: str, real: float) -> dict[str, Any]:
    """A multiplier of TFLite's own, which other runtimes do not share."""
    return {"operand": what, "real": real, **pair_forms(*quantize_multiplier(real))}


def _sum(view: LayerView) -> list[dict[str, Any]]:
    """TFLite shifts both operands left by 20 bits and scales each with its scale over twice the larger one;
    XNNPACK and ONNX Runtime take the ratios of float32 scales."""
    left, right, output = (tensor.scale for tensor in (view.input(0), view.input(1), view.output()))
    twice = 2.0 * max(left, right)
    steps = float(np.float32(2**ADD_LEFT_SHIFT) * np.float32(output))
    shifted = f" << {ADD_LEFT_SHIFT}"
    return [
        _pair(f"input 0{shifted}", left / twice),
        _pair(f"input 1{shifted}", right / twice),
        _pair("sum", twice / steps),
        _ratio("input 0", left, output),
        _ratio("input 1", right, output),
    ]


def _ratio(what: str, given: float, output: float) -> dict[str, Any]:
    single = np.float32(given) / np.float32(output)
    return {"operand": f"{what}, XNNPACK and ONNX Runtime", "real": given / output, "float32": float(single),
            "float32_bits": float32_bits(single)}  # fmt: skip


def _product(view: LayerView) -> list[dict[str, Any]]:
    return [_entry("product", Product(view.input(0).scale, view.input(1).scale, view.output().scale))]


def _rescale(view: LayerView) -> list[dict[str, Any]]:
    return [_entry("input 0", Product(view.input(0).scale, 1.0, view.output().scale))]


def _leaky(view: LayerView) -> list[dict[str, Any]]:
    given, output = view.input(0).scale, view.output().scale
    slope = float(np.float32(view.real("alpha")))
    return [*_rescale(view), _entry(f"negative values, times alpha {slope:g}", Product(given, slope, output))]


def _prelu(view: LayerView) -> list[dict[str, Any]]:
    given, slope, output = view.input(0).scale, view.input(1).scale, view.output().scale
    return [*_rescale(view), _entry("negative values, times slope", Product(given, slope, output))]


def _onnx_sum(view: LayerView) -> list[dict[str, Any]]:
    left, right, output = view.input(0).scale, view.input(3).scale, view.output().scale
    return [_ratio("input 0", left, output), _ratio("input 3", right, output)]


def _onnx_product(view: LayerView) -> list[dict[str, Any]]:
    return [_entry("product", Product(view.input(0).scale, view.input(3).scale, view.output().scale))]


def _compared(view: LayerView) -> list[dict[str, Any]]:
    return [_pair(f"input {position} << 8", view.input(position).scale) for position in (0, 1)]


OPERANDS: Mapping[str, Callable[[LayerView], list[dict[str, Any]]]] = MappingProxyType(
    {
        "ADD": _sum,
        "SUB": _sum,
        "MUL": _product,
        "QUANTIZE": _rescale,
        "RELU": _rescale,
        "RELU6": _rescale,
        "RELU_N1_TO_1": _rescale,
        "LEAKY_RELU": _leaky,
        "PRELU": _prelu,
        "com.microsoft:QLinearAdd": _onnx_sum,
        "com.microsoft:QLinearMul": _onnx_product,
        **dict.fromkeys(COMPARISONS, _compared),
    }
)
"""Layers that rescale each operand, and how."""
