"""Layers ONNX Runtime refuses by itself, or computes otherwise than their definition, each with its reason.

Established by giving models on both sides of every condition to ONNX Runtime 1.31.1 and 1.32.0 on x86-64;
dilated pools padded by SAME to 1.32.0 only.
"""

from __future__ import annotations

from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.refusal import Refusal, Refusals


def _has_dilations(view: LayerView) -> bool:
    return "dilations" in view.layer.attributes


def _same_and_dilated(view: LayerView) -> bool:
    """``auto_pad`` is SAME, and taps lie apart."""
    apart = any(dilation != 1 for dilation in view.integers("dilations", ()))
    return apart and view.text("auto_pad", "NOTSET").startswith("SAME")


ORT: Refusals = (
    Refusal(
        frozenset({"com.microsoft:QLinearAveragePool"}),
        _has_dilations,
        "its QLinearAveragePool has no attribute dilations, whatever their values, and the whole model does "
        "not load; where it is ONNX Runtime that makes this layer, of an AveragePool between "
        "DequantizeLinear and QuantizeLinear, leave out dilations of 1, or set the session's optimizations "
        "to ORT_ENABLE_BASIC, which leaves the pool in float",
    ),
)
"""ONNX Runtime 1.31 and 1.32."""

ORT_SILENT: Refusals = (
    Refusal(
        frozenset({"AveragePool", "MaxPool"}),
        _same_and_dilated,
        "with auto_pad SAME it pads as if there were no dilations, so that its output is smaller than the "
        "op defines; write the pads out",
    ),
)
"""ONNX Runtime 1.31 and 1.32: pools whose outputs have other sizes than the file's."""
