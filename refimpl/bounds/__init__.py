"""What a float32 layer may compute when no document fixes the order of its sums: an interval per value.

A bound is used only where no rule is known. The layer's inputs count as exact: they are what the runtime had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from karat24.refimpl.bounds import attention, functions, fused, matmul_nbits, normalization, onnx, tflite
from karat24.refimpl.bounds.interval import Interval, Use
from karat24.refimpl.contract import Check, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles.rules import Rule

__all__ = ["BOUNDS", "BY_RULE", "Bound", "Interval", "Use", "bound_for", "bounds_for"]


@dataclass(frozen=True)
class Bound:
    """One line of the table: what the layer must be, and the interval of its only output."""

    check: Check
    interval: Callable[[LayerView, Values], Interval]


def _onnx(op: str, interval: Callable[[LayerView, Values], Interval]) -> Bound:
    return Bound(OPS[op].check, interval)


BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {
        "AVERAGE_POOL_2D": Bound(tflite.check_average_pool_2d, tflite.average_pool_2d),
        "BATCH_MATMUL": Bound(tflite.check_batch_matmul, tflite.batch_matmul),
        "CONV_2D": Bound(tflite.check_conv_2d, tflite.conv_2d),
        "DEPTHWISE_CONV_2D": Bound(tflite.check_depthwise_conv_2d, tflite.depthwise_conv_2d),
        "ELU": Bound(functions.check_unary, functions.elu),
        "EXP": Bound(functions.check_unary, functions.exp),
        "FULLY_CONNECTED": Bound(tflite.check_fully_connected, tflite.fully_connected),
        "GELU": Bound(functions.check_unary, functions.gelu),
        "LOGISTIC": Bound(functions.check_unary, functions.logistic),
        "MEAN": Bound(tflite.check_mean, tflite.mean),
        "SOFTMAX": Bound(functions.check_softmax, functions.softmax_last),
        "SUM": Bound(tflite.check_mean, tflite.sum_),
        "TANH": Bound(functions.check_unary, functions.tanh),
        "TRANSPOSE_CONV": Bound(tflite.check_transpose_conv, tflite.transpose_conv),
        "AveragePool": _onnx("AveragePool", onnx.average_pool),
        "BatchNormalization": _onnx("BatchNormalization", onnx.batch_normalization),
        "Conv": _onnx("Conv", onnx.conv),
        "ConvTranspose": _onnx("ConvTranspose", onnx.conv_transpose),
        "Elu": _onnx("Elu", functions.elu),
        "Erf": _onnx("Erf", functions.erf),
        "Exp": _onnx("Exp", functions.exp),
        "Gelu": _onnx("Gelu", functions.gelu),
        "Gemm": _onnx("Gemm", onnx.gemm),
        "GlobalAveragePool": _onnx("GlobalAveragePool", onnx.global_average_pool),
        "GroupNormalization": _onnx("GroupNormalization", normalization.normalized),
        "InstanceNormalization": _onnx("InstanceNormalization", normalization.normalized),
        "LayerNormalization": _onnx("LayerNormalization", normalization.normalized),
        "MatMul": _onnx("MatMul", onnx.matmul),
        "RMSNormalization": _onnx("RMSNormalization", normalization.normalized),
        "ReduceMean": _onnx("ReduceMean", onnx.reduce_mean),
        "ReduceSum": _onnx("ReduceSum", onnx.reduce_sum),
        "Sigmoid": _onnx("Sigmoid", functions.logistic),
        "SimplifiedLayerNormalization": _onnx("SimplifiedLayerNormalization", normalization.normalized),
        "Softmax": _onnx("Softmax", functions.softmax_along),
        "Softplus": _onnx("Softplus", functions.softplus),
        "Tanh": _onnx("Tanh", functions.tanh),
        "com.microsoft:BiasGelu": _onnx("com.microsoft:BiasGelu", functions.biased_gelu),
        "com.microsoft:FastGelu": _onnx("com.microsoft:FastGelu", functions.biased_gelu),
        "com.microsoft:FusedConv": Bound(fused.check_fused_conv, fused.fused_conv),
        "com.microsoft:FusedMatMul": _onnx("com.microsoft:FusedMatMul", onnx.fused_matmul),
        "com.microsoft:Gelu": _onnx("com.microsoft:Gelu", functions.gelu),
        "com.microsoft:MatMulNBits": _onnx("com.microsoft:MatMulNBits", matmul_nbits.matmul_nbits),
        "com.microsoft:QuickGelu": _onnx("com.microsoft:QuickGelu", functions.quick_gelu),
        "com.microsoft:SkipLayerNormalization": _onnx(
            "com.microsoft:SkipLayerNormalization", normalization.normalized
        ),
    }
)
"""Ops whose float32 form has a bound."""


def bound_for(view: LayerView) -> Callable[[Values], Interval]:
    """The interval of the layer's output as a function of its inputs, constants included.

    Raises UnsupportedOp where no bound is known for the layer, ModelError where the layer is malformed. The
    function raises CannotCompare for inputs that may overflow.
    """
    bound = BOUNDS.get(view.op)
    if bound is None:
        raise UnsupportedOp(f"{view}: no bound is known for a float32 {view.op}")
    bound.check(view)
    return lambda values: bound.interval(view, values)


BY_RULE: Mapping[str, Callable[[LayerView, Values, Rule], tuple[Interval, ...]]] = MappingProxyType(
    {"com.microsoft:QAttention": attention.qattention}
)
"""Ops with several outputs, or with integer sums that the rule says how to form."""


def bounds_for(view: LayerView, rule: Rule) -> Callable[[Values], tuple[Interval, ...]]:
    """As :func:`bound_for`, one interval per output."""
    by_rule = BY_RULE.get(view.op)
    if by_rule is None:
        bound = bound_for(view)
        return lambda values: (bound(values),)
    OPS[view.op].check(view)
    return lambda values: by_rule(view, values, rule)
