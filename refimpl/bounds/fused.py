"""``com.microsoft:FusedConv``: a float convolution and its activation, joined by ONNX Runtime's optimizer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from karat24.refimpl.bounds.interval import Interval
from karat24.refimpl.bounds.onnx import conv
from karat24.refimpl.contract import Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import LayerView
from karat24.refimpl.ops import OPS

CLAMPING = ("Relu", "Clip")
"""Activations that only clamp, so that an interval is clamped as its values are."""


def check_fused_conv(view: LayerView) -> None:
    """Conv's own check, an activation that clamps, and no fourth input, which would be added first."""
    OPS["Conv"].check(_plain(view))
    if view.optional_input(3) is not None:
        raise UnsupportedOp(f"{view}: no bound of a convolution with another image added")
    _range(view)


def fused_conv(view: LayerView, values: Values) -> Interval:
    """The convolution's interval, clamped."""
    low, high = (np.float32(end) for end in _range(view))
    sums = conv(_plain(view), values)
    return Interval(np.clip(sums.low, low, high), np.clip(sums.high, low, high))


def _plain(view: LayerView) -> LayerView:
    """The convolution alone."""
    attributes = {name: v for name, v in view.layer.attributes.items() if not name.startswith("activation")}
    return replace(view, layer=replace(view.layer, op="Conv", attributes=attributes), inputs=view.inputs[:3])


def _range(view: LayerView) -> tuple[float, float]:
    activation = view.text("activation", "")
    if activation not in CLAMPING:
        raise UnsupportedOp(f"{view}: no bound of float32 with the fused activation {activation!r}")
    if activation == "Relu":
        return 0.0, math.inf
    ends = view.layer.attributes.get("activation_params", ())
    if not isinstance(ends, tuple) or len(ends) != 2:
        raise ModelError(f"{view}: a Clip between {ends!r}")
    return float(ends[0]), float(ends[1])
