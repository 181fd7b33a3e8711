"""Rule tables of ONNX runtimes. Normative, with source and version.

``ort-1.31`` was verified value by value against ONNX Runtime 1.31.1 and 1.32.0 on x86-64 with VNNI and on
64-bit Arm, ``ort-1.31-avx2`` on x86-64 without VNNI (emulated by QEMU); ``onnx-spec`` against
``onnx.reference`` 1.23; ``tensorrt`` follows NVIDIA's documentation, not a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import EXACT, Rule, RuleTable

MICROSOFT = "com.microsoft:"

LONGEST_CHAIN = 128
"""Terms of a float32 sum that MLAS adds in one piece, in order, whatever the sizes of the matrices."""

COPIES = (
    "ArgMax", "ArgMin", "Cast", "Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather",
    "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape",
    "Shape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Ops that move or compare values: the same bits in every runtime."""

IEEE = ("Abs", "Add", "Ceil", "Div", "Floor", "LeakyRelu", "Mul", "Neg", "PRelu", "Round", "Sqrt", "Sub")
"""float32 ops that are one correctly rounded operation, and their integer forms."""

IN_STEPS = ("HardSigmoid", "HardSwish", "Reciprocal")
"""float32 ops that ONNX Runtime and onnx.reference compute as several, each rounded."""

INTEGER_SUMS = ("ConvInteger", "MatMulInteger")

UNSPECIFIED = (
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "Log",
    "MatMul",
    "Pow",
    "RMSNormalization",
    "ReduceMean",
    "ReduceSum",
    "Sigmoid",
    "SimplifiedLayerNormalization",
    "Softmax",
    "Softplus",
    "Tanh",
)
"""float32 ops whose last bits depend on the order of a sum or on a library's function."""

UNSPECIFIED_ONNXRUNTIME = tuple(
    f"{MICROSOFT}{op}"
    for op in (
        "BiasGelu",
        "FastGelu",
        "FusedMatMul",
        "Gelu",
        "MatMulNBits",
        "QAttention",
        "QuickGelu",
        "SkipLayerNormalization",
    )
)
"""ONNX Runtime's own ops whose last bits depend on the order of a sum or on a library's function."""

ACCUMULATING = ("QLinearConv", "QLinearMatMul", f"{MICROSOFT}QGemm")

FP32 = Rule("float32_half_even", "float32", clamp="half_even")
FLOAT64_FIRST = Rule("float64_zero_point_first", "float32")
FUSED = Rule("float32_fused", "float32")
FLOAT32_FIRST = Rule("float32_zero_point_first", "float32")
SATURATING = replace(FP32, accumulation="saturating_pairs")
TABLE = Rule("float_table")
REFERENCE = Rule("reference")
CLAMPED_BEFORE = Rule("divide_float32", overflow="saturates", clamp="half_even")


FILTER_ZERO_POINTS: Mapping[str, int] = {
    "MatMulInteger": 3,
    f"{MICROSOFT}QAttention": 7,
    f"{MICROSOFT}DynamicQuantizeMatMul": 3,
    f"{MICROSOFT}MatMulIntegerToFloat": 5,
}
"""Products whose factors are not requantized, to the position of the right one's zero point."""


def variant_of(view: LayerView) -> str:
    """The table key of a layer's variant: the element types of the factors where that matters.

    ``uint8_int8`` is uint8 data by an int8 filter; ``…_depthwise`` a convolution with one input and one
    output channel per group, ``…_computed`` a product whose right matrix or its zero point the graph
    computes. A Resize is called by its mode and element type. A ConvTranspose is a
    ``chain`` where its sums are short enough to stay in one piece, and otherwise ``split``. A ReduceMean
    is ``leading`` where nothing lies before the axes it takes away, ``inner`` otherwise. A
    QLinearAveragePool is ``whole_image`` where its one window covers the image, ``windows`` otherwise.
    """
    if view.op == f"{MICROSOFT}QLinearAveragePool":
        return "whole_image" if _averages_whole_image(view) else "windows"
    if view.op == "ReduceMean":
        return "leading" if _reduces_leading_axes(view) else "inner"
    if view.op == "ConvTranspose":
        image = view.input(0).shape
        short = image[1] // max(view.integer("group", 1), 1) <= LONGEST_CHAIN
        return "chain" if short and math.prod(image[2:]) > 1 else "split"
    if view.op in ("QLinearConv", "ConvInteger"):
        data, filter_ = view.input(0), view.input(3 if view.op == "QLinearConv" else 1)
        single = len(filter_.shape) > 1 and filter_.shape[1] == 1
        depthwise = single and filter_.shape[0] == view.integer("group", 1)
        return f"{data.dtype}_{filter_.dtype}" + ("_depthwise" if depthwise else "")
    if view.op in ("QLinearMatMul", f"{MICROSOFT}QGemm"):
        return f"{view.input(0).dtype}_{view.input(3).dtype}"
    if view.op in FILTER_ZERO_POINTS:
        first = "uint8" if view.op.endswith("DynamicQuantizeMatMul") else view.input(0).dtype
        zero_point = view.optional_input(FILTER_ZERO_POINTS[view.op])
        settled = view.input(1).data is not None and (zero_point is None or zero_point.data is not None)
        return f"{first}_{view.input(1).dtype}" + ("" if settled else "_computed")
    if view.op == "Resize":
        return f"{view.text('mode', 'nearest')}_{view.output().dtype}"
    return view.output().dtype if view.outputs else ""


def _averages_whole_image(view: LayerView) -> bool:
    """One window without padding, as large as the image, whose sum ONNX Runtime forms in integers."""
    image, explicit = view.input(0).shape[2:], view.text("auto_pad", "NOTSET") == "NOTSET"
    padded = explicit and any(view.integers("pads", ()))
    return (
        view.integers("kernel_shape", ()) == image and math.prod(view.output().shape[2:]) == 1 and not padded
    )


def _reduces_leading_axes(view: LayerView) -> bool:
    """Axes of one value aside; what is left must have more than one value."""
    shape = view.input(0).shape
    gone = {axis % len(shape) for axis in reduced_axes(view)}
    order = [axis in gone for axis, size in enumerate(shape) if size > 1]
    return not all(order) and order == sorted(order, reverse=True)


def reduced_axes(view: LayerView) -> tuple[int, ...]:
    """The axes a reduction takes away: from input 1 or the attribute, all of them where neither says."""
    given = view.optional_input(1)
    if given is not None and given.data is not None:
        axes = tuple(int(axis) for axis in given.data.reshape(-1))
    else:
        axes = view.integers("axes", ())
    if not axes and not view.integer("noop_with_empty_axes", 0):
        return tuple(range(len(view.input(0).shape)))
    return axes


def _any(rule: Rule) -> Mapping[str, Rule]:
    """The same rule for every variant."""
    return {"*": rule}


_COMMON: RuleTable = {
    **{op: _any(EXACT) for op in COPIES + IEEE + INTEGER_SUMS},
    **{op: _any(Rule("unspecified")) for op in UNSPECIFIED},
    "DequantizeLinear": _any(REFERENCE),
    f"{MICROSOFT}DequantizeLinear": _any(REFERENCE),
    "QuantizeLinear": _any(CLAMPED_BEFORE),
    f"{MICROSOFT}QuantizeLinear": _any(CLAMPED_BEFORE),
    "Resize": {f"nearest_{dtype}": EXACT for dtype in ("int8", "uint8", "float32")},
}

ORT_1_31: RuleTable = {
    **_COMMON,
    **{op: _any(EXACT) for op in IN_STEPS},
    **{op: _any(FP32) for op in ACCUMULATING},
    **{op: _any(Rule("unspecified")) for op in UNSPECIFIED_ONNXRUNTIME},
    "Resize": {
        **_COMMON["Resize"],
        **{f"linear_{dtype}": REFERENCE for dtype in ("int8", "uint8", "float32")},
    },
    "ConvTranspose": {"chain": FUSED, "*": Rule("unspecified")},
    "ReduceMean": {"leading": REFERENCE, "*": Rule("unspecified")},
    "Sigmoid": _any(FUSED),
    "DynamicQuantizeLinear": _any(CLAMPED_BEFORE),
    f"{MICROSOFT}DynamicQuantizeMatMul": _any(REFERENCE),
    f"{MICROSOFT}MatMulIntegerToFloat": _any(REFERENCE),
    f"{MICROSOFT}QLinearAdd": _any(FUSED),
    f"{MICROSOFT}QLinearMul": _any(FLOAT32_FIRST),
    f"{MICROSOFT}QLinearConcat": _any(TABLE),
    f"{MICROSOFT}QLinearLeakyRelu": _any(TABLE),
    f"{MICROSOFT}QLinearSigmoid": _any(TABLE),
    f"{MICROSOFT}QLinearSoftmax": _any(TABLE),
    f"{MICROSOFT}QLinearAveragePool": {"whole_image": FP32, "windows": FLOAT32_FIRST},
    f"{MICROSOFT}QLinearGlobalAveragePool": _any(FP32),
}

NOT_REQUANTIZED: Mapping[str, Rule] = {
    "MatMulInteger": EXACT,
    f"{MICROSOFT}DynamicQuantizeMatMul": REFERENCE,
    f"{MICROSOFT}MatMulIntegerToFloat": REFERENCE,
    f"{MICROSOFT}QAttention": Rule("unspecified"),
}
UNSIGNED_BY_SIGNED = ("uint8_int8", "uint8_int8_computed")

ORT_1_31_AVX2: RuleTable = {
    **ORT_1_31,
    **{op: {**ORT_1_31[op], "uint8_int8": SATURATING} for op in ACCUMULATING},
    **{
        op: {
            **dict.fromkeys(UNSIGNED_BY_SIGNED, replace(rule, accumulation="saturating_pairs")),
            "*": rule,
        }
        for op, rule in NOT_REQUANTIZED.items()
    },
}
"""AVX2 has no exact product of uint8 and int8. ConvInteger multiplies the filter by the image, int8 by uint8,
which is exact; everything else is as with VNNI."""

ORT_1_31_AVX2_PRECISE: RuleTable = {
    **ORT_1_31,
    "QLinearMatMul": {**ORT_1_31["QLinearMatMul"], "uint8_int8": SATURATING},
    **{
        op: {"uint8_int8_computed": replace(rule, accumulation="saturating_pairs"), "*": rule}
        for op, rule in NOT_REQUANTIZED.items()
    },
}
"""With ``session.x64quantprecision`` constant int8 factors become uint8 before they are multiplied, except
here."""

ONNX_SPEC: RuleTable = {
    **_COMMON,
    "Resize": {
        **_COMMON["Resize"],
        **{f"linear_{dtype}": Rule("unspecified") for dtype in ("int8", "uint8", "float32")},
    },
    **{op: _any(EXACT) for op in IN_STEPS},
    **{op: _any(FLOAT64_FIRST) for op in ("QLinearConv", "QLinearMatMul")},
    "DynamicQuantizeLinear": _any(REFERENCE),
}
"""The reference implementation: the zero point is added before rounding."""

TENSORRT: RuleTable = {
    **{op: _any(Rule("unspecified")) for op in ORT_1_31},
    **_COMMON,
    "Resize": {**_COMMON["Resize"], "linear_float32": Rule("unspecified")},
    **{op: ORT_1_31[op] for op in ACCUMULATING},
}
"""Documented only. An exact tie in a fused convolution is decided by the kernel that timing chose."""

ARM64_FUSED = Rule("reference_fused")

ORT_1_31_ARM64: RuleTable = {
    **ORT_1_31,
    **{op: _any(ARM64_FUSED) for op in ("HardSigmoid", "HardSwish", f"{MICROSOFT}MatMulIntegerToFloat")},
    "Resize": {
        **ORT_1_31["Resize"],
        **{f"linear_{dtype}": ARM64_FUSED for dtype in ("int8", "uint8", "float32")},
    },
    "DynamicQuantizeLinear": _any(replace(CLAMPED_BEFORE, overflow="arm_saturates")),
    "Reciprocal": _any(Rule("optimized_fused")),
    f"{MICROSOFT}DynamicQuantizeMatMul": _any(replace(ARM64_FUSED, overflow="arm_saturates")),
    f"{MICROSOFT}QLinearAdd": _any(Rule("int32_half_away", "float32")),
    f"{MICROSOFT}QLinearMul": _any(FUSED),
}
"""64-bit Arm: sums of products as with VNNI. The compiler fused float32 products with sums behind them,
QLinearAdd computes in integers, ranges are found in another order where a value is no number, and a
Reciprocal is refined from an estimate."""
