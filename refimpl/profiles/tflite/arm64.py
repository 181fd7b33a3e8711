"""Rule tables of LiteRT 2.3 on 64-bit Arm: what departs there from the same lane on x86-64.

Established on the aarch64 wheel of ``ai-edge-litert`` 2.3.0 under an emulated processor with dot products
(``tests/emulation/arm.sh``). Compiled code differs in four ways: ruy's kernels round once, the compiler fuses
multiplications and additions of float32, float32 is converted to the nearest int32, and XNNPACK's uint8
kernels multiply in fixed point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.refusal import Refusal, Refusals
from karat24.refimpl.profiles.rules import EXACT, Rule, RuleTable
from karat24.refimpl.profiles.tflite import hybrid_rules as hybrid
from karat24.refimpl.profiles.tflite.hybrid_refusals import loses_a_sign
from karat24.refimpl.profiles.tflite.lstm_variants import LSTMS
from karat24.refimpl.profiles.tflite.table import (
    FLOAT64,
    GEMMLOWP_32P,
    LITERT_2_3_BUILTIN,
    LITERT_2_3_REF,
    LITERT_2_3_XNNPACK,
    RUY_32P,
    RUY_64,
    SATURATING_TABLE,
)
from karat24.refimpl.profiles.tflite.variants import COMPARISONS, has_one_tap
from karat24.refimpl.profiles.tflite.variants import variant_of as family_variant
from karat24.refimpl.profiles.tflite.xnnpack import xnnpack_takes

VECTOR_DEPTH, VECTOR_CHANNELS = 8, 4
"""Products per output and output channels from which on one pixel, or one row, has a kernel of its own.
Source: TFLite ``cpu_backend_gemm_custom_gemv.h``."""

SATURATING_64 = Rule("float64_saturating", "float64")
SINGLE_64 = Rule("single_rounding", "float64")
SINGLE_32P = Rule("single_rounding", "float32_product")
RNDNU = Rule("rndnu", "float32", clamp="half_even")


def variant_of(view: LayerView) -> str:
    """The family's variant, with a word behind it where kernels of Arm's own run: ``_vector``, ``_3x3``, or
    that of :func:`reference_variant_of`."""
    variant = reference_variant_of(view)
    if variant.startswith("hybrid"):
        if view.op == "DEPTHWISE_CONV_2D" and has_3x3_kernel(view):
            return variant + "_3x3"
        return variant + (hybrid.ONE_TAP if view.op == "CONV_2D" and has_one_tap(view) else "")
    if view.op in ("CONV_2D", "FULLY_CONNECTED") and variant in _VECTORS and _multiplies_a_vector(view):
        return variant + "_vector"
    if view.op == "DEPTHWISE_CONV_2D" and variant in ("int8", "uint8") and has_3x3_kernel(view):
        if variant == "uint8":
            return variant if _largest_multiplier(view) >= 1 else "uint8_3x3"
        return "int8_3x3_from_1" if _largest_multiplier(view) >= 1 else variant
    return variant


def reference_variant_of(view: LayerView) -> str:
    """The family's variant, with ``_by_dot_products`` behind it where these multiply float32 data."""
    variant = family_variant(view)
    if variant.startswith("hybrid") and view.op == "FULLY_CONNECTED" and _takes_dot_products(view):
        return variant + hybrid.DOT_PRODUCTS
    return variant


def _takes_dot_products(view: LayerView) -> bool:
    """Whether four rows at once are multiplied by two columns, on a processor with dot products.

    Source: TFLite ``NeonMatrixBatchVectorMultiplyAccumulate``, which leaves many rows to ruy
    (``UseCpuBackendGemm``) where the channels are multiples of 4.
    """
    channels, depth = view.input(1).shape
    rows = math.prod(view.input(0).shape) // depth
    if depth % 16 or channels % 2 or channels < rows:
        return False
    if rows % 4 and (rows < 2 or channels * depth < 128 * 128):
        return False
    elongation = int(math.log2(max(channels // depth, depth // channels)))
    return rows < 16 or channels % 4 != 0 or int(math.log2(rows)) - elongation <= 2


_VECTORS = ("int8", "int8_per_channel", "uint8")


def _multiplies_a_vector(view: LayerView) -> bool:
    """Whether the layer's matrix product has one column: one pixel, or one row."""
    filter_ = view.input(1)
    channels = filter_.shape[0]
    columns = math.prod(view.output().shape) // max(channels, 1)
    depth = math.prod(filter_.shape[1:])
    return columns == 1 and channels >= VECTOR_CHANNELS and depth >= VECTOR_DEPTH and filter_.is_constant


def has_3x3_kernel(view: LayerView) -> bool:
    """Whether a DEPTHWISE_CONV_2D has the form for which there is a kernel of 3x3 taps in assembler.

    For uint8 it rounds ties up and leaves multipliers of 1 or more to the general kernel; for int8 it takes
    these, too, and what it makes of them is not known. Source: TFLite ``Fast3x3FilterKernelSupported``.
    """
    image, filter_, output = view.input(0), view.input(1), view.output()
    _, height, width, depth = image.shape
    strides = view.integer("stride_h"), view.integer("stride_w")
    dilations = view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1)
    if filter_.shape[1:3] != (3, 3) or view.integer("depth_multiplier", 1) != 1 or depth % 8:
        return False
    if strides not in ((1, 1), (2, 2)) or dilations != (1, 1):
        return False
    reached = [(size - 1) * strides[0] + 3 for size in output.shape[1:3]]
    if view.text("padding") == "VALID":
        before = [0, 0]
    else:
        before = [max(end - size, 0) // 2 for end, size in zip(reached, (height, width), strict=True)]
    if before not in ([0, 0], [1, 1]):
        return False
    behind = [end - pad - size for end, pad, size in zip(reached, before, (height, width), strict=True)]
    if max(behind) > before[0]:
        return False
    return before == [0, 0] or (height == 1) == (width == 1)


def _largest_multiplier(view: LayerView) -> float:
    filter_ = view.input(1)
    assert filter_.quantization is not None
    return view.input(0).scale * max(filter_.quantization.scale) / view.output().scale


_CALLING_LIBM = replace(SATURATING_TABLE, libm="fdlibm")

_ARM_TABLES: RuleTable = {
    **{op: {"bool": LITERT_2_3_REF[op]["*"]} for op in COMPARISONS},
    "GELU": dict.fromkeys(("int8", "uint8"), _CALLING_LIBM),
    "TANH": {**LITERT_2_3_REF["TANH"], "uint8": _CALLING_LIBM},
}
"""Values beyond int32 saturate; comparisons of a scale of 1 or more shift by a negative count, which C leaves
undefined, and are not known."""


def _converted_by_arm(rules: Mapping[str, Rule]) -> Mapping[str, Rule]:
    """Rules of QUANTIZE with Arm's conversion of float32 to int32."""
    return {
        variant: replace(rule, overflow="arm_wraps") if variant.endswith("_from_float") else rule
        for variant, rule in rules.items()
    }


LITERT_2_3_REF_ARM64: RuleTable = {
    **LITERT_2_3_REF,
    **_ARM_TABLES,
    **{op: {**LITERT_2_3_REF[op], **rules} for op, rules in hybrid.LITERT_REF_ARM64.items()},
    "FULLY_CONNECTED": {**hybrid.LITERT_REF_ARM64["FULLY_CONNECTED"], "*": SATURATING_64},
    "QUANTIZE": _converted_by_arm(LITERT_2_3_REF["QUANTIZE"]),
    "RESIZE_BILINEAR": {**LITERT_2_3_REF["RESIZE_BILINEAR"], "uint8": Rule("reference_fused")},
}

_SINGLE: Mapping[Rule, Rule] = {RUY_64: SINGLE_64, RUY_32P: SINGLE_32P, FLOAT64: SATURATING_64}


def _rounded_once(op: str) -> dict[str, Rule]:
    """The op's rules with ruy's kernels of Arm, and float64 converted as Arm does."""
    return {variant: _SINGLE.get(rule, rule) for variant, rule in LITERT_2_3_BUILTIN[op].items()}


LITERT_2_3_BUILTIN_ARM64: RuleTable = {
    **LITERT_2_3_BUILTIN,
    **_ARM_TABLES,
    "TANH": {**_ARM_TABLES["TANH"], "int16_shifted": LITERT_2_3_BUILTIN["TANH"]["int16_shifted"]},
    **{
        op: {**LITERT_2_3_BUILTIN[op], **hybrid.LITERT_BUILTIN_ARM64[op]}
        for op in ("BATCH_MATMUL", "TRANSPOSE_CONV")
    },
    "CONV_2D": {
        **_rounded_once("CONV_2D"),
        **hybrid.LITERT_BUILTIN_ARM64["CONV_2D"],
        "int8_vector": RUY_64,
        "uint8_vector": RUY_32P,
    },
    "DEPTHWISE_CONV_2D": {
        **LITERT_2_3_BUILTIN["DEPTHWISE_CONV_2D"],
        **hybrid.LITERT_BUILTIN_ARM64["DEPTHWISE_CONV_2D"],
        "uint8": GEMMLOWP_32P,
        "uint8_3x3": RUY_32P,
    },
    "FULLY_CONNECTED": {
        **_rounded_once("FULLY_CONNECTED"),
        **hybrid.LITERT_BUILTIN_ARM64["FULLY_CONNECTED"],
        "int8_vector": RUY_32P,
        "int8_per_channel_vector": RUY_64,
        "uint8_vector": RUY_32P,
    },
    "QUANTIZE": _converted_by_arm(LITERT_2_3_BUILTIN["QUANTIZE"]),
    "DEQUANTIZE": {"*": Rule("affine_fused", tail="reference", block=8, block_axis="flat")},
    "HARD_SWISH": {"*": Rule("fixed_point_neon")},
    "SOFTMAX": {**LITERT_2_3_BUILTIN["SOFTMAX"], **dict.fromkeys(("int8", "uint8"), Rule("uint16_table"))},
    "SUM": {
        **dict.fromkeys(("int32", "int64"), EXACT),
        **dict.fromkeys(("int8", "uint8", "int16"), Rule("optimized_fused")),
    },
    "RESIZE_BILINEAR": {**LITERT_2_3_BUILTIN["RESIZE_BILINEAR"], "uint8": Rule("optimized_fused")},
}

_XNNPACK_UINT8 = {"uint8": RNDNU, "uint8_grouped": RNDNU, "uint8_vector": RNDNU, "uint8_3x3": RNDNU}

LITERT_2_3_XNNPACK_ARM64: RuleTable = {
    **LITERT_2_3_XNNPACK,
    **{
        op: {**LITERT_2_3_XNNPACK[op], **hybrid.XNNPACK_ARM64.get(op, {}), **_XNNPACK_UINT8}
        for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
    },
    "BATCH_MATMUL": {**LITERT_2_3_XNNPACK["BATCH_MATMUL"], **hybrid.XNNPACK_ARM64["BATCH_MATMUL"]},
    "FULLY_CONNECTED": {
        **LITERT_2_3_XNNPACK["FULLY_CONNECTED"],
        **{f"{v}_vector": LITERT_2_3_XNNPACK["FULLY_CONNECTED"][v] for v in ("int8", "int8_per_channel")},
        **hybrid.XNNPACK_ARM64["FULLY_CONNECTED"],
        **_XNNPACK_UINT8,
    },
    "MUL": {"*": RNDNU},
    "NEG": {"float32": EXACT},
    **{op: {"float32": Rule("signed_zeros"), "*": EXACT} for op in ("MAXIMUM", "MINIMUM")},
    "MEAN": {"*": Rule("xnnpack_fused", clamp="half_even")},
    "SUM": {**LITERT_2_3_XNNPACK["SUM"], **dict.fromkeys(("int8", "uint8"), Rule("xnnpack_fused"))},
    "QUANTIZE": {
        variant: replace(rule, overflow="arm_saturates") if variant.endswith("_from_float") else rule
        for variant, rule in LITERT_2_3_XNNPACK["QUANTIZE"].items()
    },
}


def _compared_from_1(view: LayerView) -> bool:
    return family_variant(view) == "bool_scale_from_1"


def _3x3_from_1(view: LayerView) -> bool:
    return variant_of(view) == "int8_3x3_from_1"


_COMPARED = Refusal(
    COMPARISONS,
    _compared_from_1,
    "an input scale of 1 or more makes it shift by a negative count, which C leaves undefined, and what Arm "
    "gives is not known; quantize the input with a scale below 1",
)
_FROM_1 = Refusal(
    frozenset({"DEPTHWISE_CONV_2D"}),
    _3x3_from_1,
    "its kernel of 3x3 taps for int8 has its own way with multipliers of 1 or more, which is not known; "
    "check the output's range",
)
_INT4 = Refusal(
    frozenset({"FULLY_CONNECTED"}),
    lambda view: view.input(1).dtype == "int4" and xnnpack_takes(view),
    "XNNPACK takes it, and how it rounds products of int4 filters is not known",
)


def _wraps(view: LayerView) -> bool:
    return reference_variant_of(view).endswith("_asymmetric") and loses_a_sign(view)


_WRAPPED = Refusal(
    frozenset({"FULLY_CONNECTED"}),
    _wraps,
    "behind float32 data with zero points its kernel adds pairs of products in 16 bits, where those of a "
    "weight of -128 can wrap; store it as -127",
)

_RECURRENT = Refusal(
    frozenset(LSTMS), lambda _: True, "on Arm its LSTMs have kernels of their own, which nobody has run"
)

SILENT: Mapping[str, Refusals] = {
    "litert-2.3-ref": (_COMPARED, _RECURRENT, _WRAPPED),
    "litert-2.3-builtin": (_COMPARED, _FROM_1, _RECURRENT, _WRAPPED),
    "litert-2.3-xnnpack": (
        *(_COMPARED, _FROM_1, _INT4, _RECURRENT),
        replace(_WRAPPED, applies=lambda view: not xnnpack_takes(view) and _wraps(view)),
    ),
}
"""What is not known of each lane, and so is not compared, by the lane's profile on x86-64."""
