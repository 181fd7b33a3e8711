"""What changed in the standard operator sets 9 to 28, for the ops defined here.

A layer's version is that of its operator set. Between two numbers listed for an op nothing changed but the
element types it takes. Source: the schemas of onnx 1.23, against which a test holds this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from karat24.refimpl.contract import Check
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView

OPSETS = range(9, 29)
"""Versions of the standard operator set whose definitions were read."""

CHANGES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "ArgMax": {12: "select_last_index, 0 by default, says which of equal values counts"},
        "ArgMin": {12: "select_last_index, 0 by default, says which of equal values counts"},
        "AveragePool": {10: "ceil_mode, 0 by default", 19: "dilations, 1 by default"},
        "BatchNormalization": {14: "training_mode, 0 by default, and fewer outputs"},
        "Cast": {19: "saturate, for 8-bit floats", 24: "round_mode, for 8-bit exponents"},
        "Clip": {11: "the ends are inputs"},
        "DepthToSpace": {11: "mode, DCR by default"},
        "DequantizeLinear": {
            13: "axis, for several scales", 21: "block_size, 0 by default", 23: "output_dtype",
        },
        "Dropout": {12: "ratio and training_mode are inputs; nothing is dropped without the latter"},
        "Gemm": {11: "the bias may be left out"},
        "GroupNormalization": {21: "scales and biases are per channel, and stash_type"},
        "Hardmax": {13: "along one axis, the last by default"},
        "LogSoftmax": {13: "along one axis, the last by default"},
        "LpPool": {18: "ceil_mode, 0 by default, and dilations, 1 by default"},
        "MaxPool": {10: "ceil_mode, 0 by default, and dilations, 1 by default"},
        "Pad": {11: "pads and value are inputs", 18: "axes"},
        "QuantizeLinear": {
            13: "axis, for several scales", 19: "saturate, for 8-bit floats",
            21: "block_size and output_dtype", 23: "precision",
        },
        "ReduceL1": {18: "axes are an input"},
        "ReduceL2": {18: "axes are an input"},
        "ReduceMax": {18: "axes are an input"},
        "ReduceMean": {18: "axes are an input"},
        "ReduceMin": {18: "axes are an input"},
        "ReduceProd": {18: "axes are an input"},
        "ReduceSum": {13: "axes are an input"},
        "Reshape": {14: "allowzero, 0 by default"},
        "Resize": {
            11: "coordinates by the attributes' modes, and sizes",
            13: "the region of interest may be left out", 18: "antialias, axes, keep_aspect_ratio_policy",
        },
        "Shape": {15: "start and end"},
        "Softmax": {13: "along one axis, the last by default"},
        "Slice": {10: "starts, ends and axes are inputs, and steps"},
        "SpaceToDepth": {28: "mode, DCR by default"},
        "Split": {13: "sizes are an input", 18: "num_outputs"},
        "Squeeze": {13: "axes are an input"},
        "Unsqueeze": {13: "axes are an input"},
    }
)  # fmt: skip
"""Op to what each version changed, as far as it is more than element types."""

REWRITTEN: Mapping[str, int] = MappingProxyType({"Clip": 11, "Pad": 11, "Resize": 11, "Slice": 10})
"""The first version that is implemented, of ops whose older form nobody wrote."""

ALONG_ONE_AXIS = frozenset({"Hardmax", "LogSoftmax", "Softmax"})
"""Below version 13 all axes from ``axis`` (1 by default) on are one row of values."""

PER_TENSOR_BELOW: Mapping[str, int] = MappingProxyType({"DequantizeLinear": 13, "QuantizeLinear": 13})
"""Ops that have one scale in older versions."""


def why_unknown(view: LayerView) -> str:
    """Why the layer's version of its op has no meaning here; empty where it has one.

    Layers whose version says nothing, below 9, are taken as they are: no file holds them.
    """
    version = view.layer.version
    if version < OPSETS[0]:
        return ""
    changed = CHANGES.get(view.op, {})
    if version < REWRITTEN.get(view.op, 0):
        first = REWRITTEN[view.op]
        return f"since version {first} {changed[first]}; the version {version} before that is not implemented"
    if version < 13 and view.op in ALONG_ONE_AXIS:
        rank = len(view.input(0).shape)
        if view.integer("axis", 1) not in (-1, rank - 1):
            return f"version {version} takes all axes from axis on for one row; only the last is implemented"
    several = view.op in PER_TENSOR_BELOW and view.input(1).shape not in ((), (1,))
    if several and version < PER_TENSOR_BELOW[view.op]:
        return f"version {version} has one scale, not {view.input(1).shape}"
    return ""


def versioned(check: Check) -> Check:
    """The check, behind one that the layer's version of its op is implemented (UnsupportedOp)."""

    def checked(view: LayerView) -> None:
        reason = why_unknown(view)
        if reason:
            raise UnsupportedOp(f"{view}: {reason}")
        check(view)

    return checked
