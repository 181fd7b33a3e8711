"""Rule tables of the TFLite family. Normative, with source and version.

Verified value by value against LiteRT (``ai-edge-litert``) 2.3.0 and
``tflite-runtime`` 2.14.0 on x86-64; ``tflm`` against its published vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from karat24.refimpl.profiles.rules import EXACT, Libm, Rule, RuleTable
from karat24.refimpl.profiles.tflite import hybrid_rules as hybrid
from karat24.refimpl.profiles.tflite.lstm_variants import LSTMS
from karat24.refimpl.profiles.tflite.variants import COMPARISONS

COPIES = (
    "RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "SPLIT", "SPLIT_V", "PACK", "UNPACK", "SQUEEZE",
    "EXPAND_DIMS", "PAD", "PADV2", "MIRROR_PAD", "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE",
    "SPACE_TO_DEPTH", "MINIMUM", "MAXIMUM", "ARG_MAX", "ARG_MIN", "SHAPE", "GATHER", "TILE", "CAST",
    "REVERSE_V2", "BROADCAST_TO", "FILL", "RANK", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND",
    "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "LOGICAL_AND", "LOGICAL_OR",
    "LOGICAL_NOT", "SELECT", "SELECT_V2", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN",
    "FLOOR_DIV", "FLOOR_MOD", "GATHER_ND", "TOPK_V2",
)  # fmt: skip
"""Ops that move or compare values, or compute on integers: the same bits in every runtime."""

IEEE = ("CEIL", "FLOOR", "SQUARE")
"""float32 ops that are one correctly rounded operation."""

GEMMLOWP_64 = Rule("gemmlowp", "float64")
GEMMLOWP_32P = Rule("gemmlowp", "float32_product")
GEMMLOWP_32 = Rule("gemmlowp", "float32")
GEMMLOWP_SATURATING_32P = Rule("gemmlowp_saturating", "float32_product")
GEMMLOWP_SIGNED_32 = Rule("gemmlowp_signed", "float32")
Q15 = Rule("q15", "float64")
FLOAT64 = Rule("float64_half_away", "float64")
RUY_64 = Rule("ruy", "float64")
RUY_32P = Rule("ruy", "float32_product")
FP32 = Rule("float32_half_even", "float32", clamp="half_even")
XNNPACK = Rule("xnnpack", clamp="half_even")
RUY_THEN_GEMMLOWP_8 = Rule("ruy", "float64", tail="gemmlowp", block=8, block_axis="channel")
RUY_THEN_GEMMLOWP_16 = Rule("ruy", "float32_product", tail="gemmlowp", block=16, block_axis="flat")
REFERENCE = Rule("reference")
OPTIMIZED = Rule("optimized")
FIXED_POINT = Rule("fixed_point")
FLOAT_TABLE = Rule("float_table")
SATURATING_TABLE = Rule("float_table", overflow="saturates")


def _any(rule: Rule) -> Mapping[str, Rule]:
    """The same rule for every variant."""
    return {"*": rule}


_SUM_OF_INTEGERS: Mapping[str, Rule] = {"int32": EXACT, "int64": EXACT}

_COMMON: RuleTable = {
    **{op: _any(EXACT) for op in COPIES + IEEE},
    **{op: {"bool_scale_from_1": Rule("sign_only"), "*": EXACT} for op in COMPARISONS},
    "ABS": {"float32": EXACT, "int8": GEMMLOWP_32},
    "CUSTOM:TFLite_Detection_PostProcess": _any(REFERENCE),
    "DIV": {"float32": EXACT, "int32": EXACT, **dict.fromkeys(("int8", "uint8", "int16"), GEMMLOWP_32)},
    "NEG": {"float32": EXACT},
    "REDUCE_PROD": {"int32": EXACT, "int64": EXACT, "*": Q15},
    "SQRT": {"float32": EXACT},
    "RSQRT": {"int8": GEMMLOWP_32P},
    "SUM": {**_SUM_OF_INTEGERS, "int8": Rule("reads_uint8", "float64"), "uint8": GEMMLOWP_64},
    "SQUARED_DIFFERENCE": {"int8": GEMMLOWP_64},
    "SVDF": {"int8": GEMMLOWP_32},
    **{op: {"int8": GEMMLOWP_32, "int8_peephole": GEMMLOWP_32} for op in LSTMS},
    "BATCH_MATMUL": {"int8": GEMMLOWP_32P},
    "LOG_SOFTMAX": {"int8": FIXED_POINT, "uint8": FIXED_POINT},
    "EXP": {"int8": FLOAT_TABLE},
    "GELU": {dtype: replace(FLOAT_TABLE, libm="fdlibm") for dtype in ("int8", "uint8")},
    "ROUND": _any(REFERENCE),
    "MAX_POOL_2D": _any(EXACT),
    "AVERAGE_POOL_2D": _any(REFERENCE),
    "CONCATENATION": _any(REFERENCE),
    "MUL": _any(GEMMLOWP_32),
    "ADD": _any(GEMMLOWP_64),
    "SUB": _any(GEMMLOWP_64),
    "LOGISTIC": {"int8": FLOAT_TABLE, "uint8": FLOAT_TABLE, "int16": REFERENCE, "int16_shifted": REFERENCE},
    "TANH": {
        **{dtype: replace(FLOAT_TABLE, libm="fdlibm") for dtype in ("int8", "uint8")},
        **dict.fromkeys(("int16", "int16_shifted"), REFERENCE),
    },
    "RELU": _any(GEMMLOWP_32),
    "RELU6": _any(GEMMLOWP_32),
    "RELU_N1_TO_1": _any(GEMMLOWP_32),
    "LEAKY_RELU": _any(GEMMLOWP_32),
    "PRELU": {"int16_slopes16": Rule("reads_int8", "float32"), "*": GEMMLOWP_32},
    "HARD_SWISH": _any(FIXED_POINT),
    "L2_NORMALIZATION": _any(FIXED_POINT),
    "DEQUANTIZE": _any(REFERENCE),
    "SOFTMAX": _any(FIXED_POINT),
    "RESIZE_BILINEAR": {"int8": REFERENCE, "uint8": REFERENCE, "int16": REFERENCE},
    "MEAN": _any(REFERENCE),
    "QUANTIZE": {
        "int8_from_float": Rule("divide_float32"),
        "uint8_from_float": Rule("divide_float32"),
        "int16_from_float": Rule("divide_float32"),
        "*": GEMMLOWP_64,
    },
}

_GEMMLOWP_CONVOLUTIONS: RuleTable = {
    op: {
        "int16_bias64": Q15,
        "int16_bias32": GEMMLOWP_64,
        "int16_unbiased": Q15,
        "int8": GEMMLOWP_64,
        "int8_grouped": GEMMLOWP_64,
        "uint8": GEMMLOWP_32P,
        "uint8_grouped": GEMMLOWP_32P,
    }
    for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
}


def _fully_connected_16(wide: Rule, narrow: Rule) -> Mapping[str, Rule]:
    """FULLY_CONNECTED of int16: ``wide`` with an int64 bias, ``narrow`` with an int32 bias or none.

    Per tensor the two evaluate their multiplier in float32, as for 8 bits.
    """
    kinds = {"int16_bias64": wide, "int16_bias32": narrow, "int16_unbiased": narrow}
    return {
        **{kind: replace(rule, multiplier="float32_product") for kind, rule in kinds.items()},
        **{f"{kind}_per_channel": rule for kind, rule in kinds.items()},
    }


TFLITE_2_14_REF: RuleTable = {
    **_COMMON,
    "SUM": {**_COMMON["SUM"], "int16": EXACT},
    "REVERSE_V2": {"one_axis": EXACT},
    "BATCH_MATMUL": {**_COMMON["BATCH_MATMUL"], **hybrid.TFLITE_2_14_REF["BATCH_MATMUL"]},
    **_GEMMLOWP_CONVOLUTIONS,
    **{
        op: {**_GEMMLOWP_CONVOLUTIONS[op], **hybrid.TFLITE_2_14_REF[op]}
        for op in ("CONV_2D", "DEPTHWISE_CONV_2D")
    },
    "CUSTOM:TFLite_Detection_PostProcess": _any(Rule("later_class_first")),
    "LEAKY_RELU": {
        "int8_negative": GEMMLOWP_SIGNED_32,
        "uint8_negative": GEMMLOWP_SIGNED_32,
        "int16_negative": GEMMLOWP_SIGNED_32,
        "*": GEMMLOWP_32,
    },
    "TRANSPOSE_CONV": {**_GEMMLOWP_CONVOLUTIONS["TRANSPOSE_CONV"], "int16_unbiased": GEMMLOWP_64},
    "FULLY_CONNECTED": {
        **hybrid.TFLITE_2_14_REF["FULLY_CONNECTED"],
        **_fully_connected_16(Q15, GEMMLOWP_64),
        "int8_per_channel": GEMMLOWP_64,
        "int8": GEMMLOWP_32P,
        "uint8": GEMMLOWP_32P,
    },
}

_SINCE_LITERT: RuleTable = {
    "EXP": {"int8": SATURATING_TABLE},
    "GELU": {**_COMMON["GELU"], "int8": replace(SATURATING_TABLE, libm="fdlibm")},
    "LOG": {"int8": SATURATING_TABLE},
    "NEG": {"float32": EXACT, "int8": Rule("ignores_parameters")},
    "SQRT": {"float32": EXACT, "int8": Rule("truncates")},
    "TANH": {**_COMMON["TANH"], "int8": replace(SATURATING_TABLE, libm="fdlibm")},
    **{
        op: {
            "int8": replace(GEMMLOWP_32, overflow="widens"),
            "int8_peephole": Rule(
                "ruy", "float32", tail="gemmlowp", block=16, block_axis="channel", overflow="widens"
            ),
        }
        for op in LSTMS
    },
}
"""What LiteRT 2.3 computes otherwise than tflite-runtime 2.14 or what only LiteRT computes, in both lanes."""

LITERT_2_3_REF: RuleTable = {
    **_COMMON,
    **_GEMMLOWP_CONVOLUTIONS,
    **_SINCE_LITERT,
    "CAST": _any(Rule("saturating")),
    "BATCH_MATMUL": {**_COMMON["BATCH_MATMUL"], **hybrid.LITERT_REF["BATCH_MATMUL"]},
    **{
        op: {**_GEMMLOWP_CONVOLUTIONS[op], **hybrid.LITERT_REF[op]}
        for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
    },
    "FULLY_CONNECTED": {**hybrid.LITERT_REF["FULLY_CONNECTED"], "*": FLOAT64},
}

TFLITE_2_14_BUILTIN: RuleTable = {
    **TFLITE_2_14_REF,
    "RESIZE_NEAREST_NEIGHBOR": {"uint8": OPTIMIZED, "*": EXACT},
    "REDUCE_PROD": {"int32": EXACT, "int64": EXACT, "int8": Q15, "int16": Q15},
    "CEIL": _any(OPTIMIZED),
    "FLOOR": _any(OPTIMIZED),
    "SUM": {**_SUM_OF_INTEGERS, "int8": OPTIMIZED, "uint8": OPTIMIZED, "int16": EXACT},
    "BATCH_MATMUL": {**TFLITE_2_14_REF["BATCH_MATMUL"], "int8": RUY_32P},
    "LOG_SOFTMAX": {"int8": FLOAT_TABLE, "uint8": FLOAT_TABLE},
    "ELU": {"int8": replace(FLOAT_TABLE, libm="fdlibm")},
    "CONV_2D": {
        **TFLITE_2_14_REF["CONV_2D"],
        **hybrid.TFLITE_2_14_BUILTIN["CONV_2D"],
        "int8": RUY_64,
        "uint8": GEMMLOWP_SATURATING_32P,
        "int16_bias32": RUY_64,
    },
    "DEPTHWISE_CONV_2D": {
        **TFLITE_2_14_REF["DEPTHWISE_CONV_2D"],
        **hybrid.TFLITE_2_14_BUILTIN["DEPTHWISE_CONV_2D"],
    },
    "FULLY_CONNECTED": {
        **hybrid.TFLITE_2_14_REF["FULLY_CONNECTED"],
        **_fully_connected_16(Q15, RUY_64),
        "int8_per_channel": RUY_64,
        "int8": RUY_32P,
        "uint8": GEMMLOWP_SATURATING_32P,
    },
    "QUANTIZE": {
        "int8_from_float": Rule("divide_float64"),
        "uint8_from_float": Rule("divide_float64"),
        "int16_from_float": Rule("divide_float64"),
        "*": GEMMLOWP_64,
    },
    "MEAN": {"spatial": Rule("spatial"), "*": REFERENCE},
    "LOGISTIC": {**_COMMON["LOGISTIC"], "int16_shifted": FIXED_POINT},
    "TANH": {**_COMMON["TANH"], "int16_shifted": FIXED_POINT},
    "RESIZE_BILINEAR": {"int8": REFERENCE, "uint8": OPTIMIZED, "int16": REFERENCE},
    "SOFTMAX": _any(FLOAT_TABLE),
}

_QUANTIZE_IN_BLOCKS = Rule("reciprocal_half_even", tail="divide_float64", block=8, block_axis="flat")
_SPATIAL_MEAN_IN_BLOCKS = Rule("spatial_ruy", tail="spatial", block=16, block_axis="channel")

LITERT_2_3_BUILTIN: RuleTable = {
    **TFLITE_2_14_BUILTIN,
    **_SINCE_LITERT,
    "CUSTOM:TFLite_Detection_PostProcess": _any(REFERENCE),
    "TANH": {**_SINCE_LITERT["TANH"], "int16_shifted": FIXED_POINT},
    "REDUCE_PROD": {
        **TFLITE_2_14_BUILTIN["REDUCE_PROD"],
        **dict.fromkeys(("int8_of_one", "int16_of_one"), Rule("ignores_parameters")),
    },
    "SUM": {**TFLITE_2_14_BUILTIN["SUM"], "int16": OPTIMIZED},
    "ELU": {"int8": replace(SATURATING_TABLE, libm="fdlibm")},
    "BATCH_MATMUL": LITERT_2_3_REF["BATCH_MATMUL"],
    "RESIZE_NEAREST_NEIGHBOR": {"int8": OPTIMIZED, "uint8": OPTIMIZED, "*": EXACT},
    "CEIL": _any(EXACT),
    "FLOOR": _any(EXACT),
    "REVERSE_V2": _any(EXACT),
    "CAST": _any(Rule("saturating")),
    "CONV_2D": {
        **TFLITE_2_14_BUILTIN["CONV_2D"],
        **hybrid.LITERT_BUILTIN["CONV_2D"],
        "uint8": RUY_32P,
    },
    "DEPTHWISE_CONV_2D": {
        **hybrid.LITERT_BUILTIN["DEPTHWISE_CONV_2D"],
        "int8": RUY_THEN_GEMMLOWP_8,
        "uint8": GEMMLOWP_32P,
        "int16_bias64": Q15,
        "int16_unbiased": Q15,
    },
    "FULLY_CONNECTED": {
        **hybrid.LITERT_BUILTIN["FULLY_CONNECTED"],
        **_fully_connected_16(FLOAT64, RUY_64),
        "int16_bias64": FLOAT64,
        "int8_per_channel": RUY_64,
        "int4_per_channel": RUY_64,
        "*": RUY_32P,
    },
    "TRANSPOSE_CONV": {
        **hybrid.LITERT_BUILTIN["TRANSPOSE_CONV"],
        "int8": RUY_THEN_GEMMLOWP_8,
        "uint8": RUY_THEN_GEMMLOWP_16,
        "int16_bias64": Q15,
        "int16_bias32": RUY_THEN_GEMMLOWP_8,
        "int16_unbiased": Q15,
    },
    "ADD": {
        "int8": Rule("sse", "float64", tail="gemmlowp", block=16, block_axis="flat"),
        "int8_scalar": Rule("sse", "float64", tail="gemmlowp", block=8, block_axis="flat"),
        "uint8": Rule("sse", "float64", tail="gemmlowp", block=8, block_axis="flat"),
        "uint8_scalar": Rule("sse", "float64", tail="gemmlowp", block=8, block_axis="flat"),
        "int16": Rule("sse", "float64", tail="gemmlowp", block=16, block_axis="flat"),
        "*": GEMMLOWP_64,
    },
    "MUL": {
        "int8": Rule("sse", "float32", tail="gemmlowp", block=16, block_axis="flat"),
        "int8_scalar": Rule("sse", "float32", tail="gemmlowp", block=16, block_axis="flat"),
        "uint8": Rule("sse", "float32", tail="gemmlowp", block=8, block_axis="flat"),
        "uint8_scalar": Rule("sse", "float32", tail="gemmlowp", block=8, block_axis="flat"),
        "*": GEMMLOWP_32,
    },
    "LEAKY_RELU": {"int16_negative": GEMMLOWP_SIGNED_32, "*": GEMMLOWP_32},
    "QUANTIZE": {
        "int8_from_float": _QUANTIZE_IN_BLOCKS,
        "uint8_from_float": _QUANTIZE_IN_BLOCKS,
        "int16_from_float": _QUANTIZE_IN_BLOCKS,
        **dict.fromkeys(("int16_to_int16", "int16_to_int8", "int8_to_int16", "uint8_to_int16"), GEMMLOWP_64),
        "*": Rule("ruy", "float64", tail="gemmlowp", block=16, block_axis="flat"),
    },
    "DEQUANTIZE": _any(Rule("affine_float32", tail="reference", block=8, block_axis="flat")),
    "MEAN": {
        "spatial": _SPATIAL_MEAN_IN_BLOCKS,
        "spatial_repeated": _SPATIAL_MEAN_IN_BLOCKS,
        "*": REFERENCE,
    },
}

_FILTERED = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")

LITERT_2_3_XNNPACK: RuleTable = {
    **{op: _any(EXACT) for op in COPIES + IEEE},
    "ROUND": _any(EXACT),
    "DIV": {"float32": EXACT},
    "SUM": {"int32": EXACT, "int8": XNNPACK, "uint8": XNNPACK},
    "ABS": {"float32": EXACT},
    "NEG": {"float32": XNNPACK},
    "ELU": {"int8": replace(XNNPACK, libm="fdlibm")},
    "CONCATENATION": _any(REFERENCE),
    **{op: _any(FP32) for op in ("DEPTHWISE_CONV_2D", "MUL")},
    **{op: {**hybrid.XNNPACK[op], "*": FP32} for op in ("BATCH_MATMUL", "CONV_2D", "TRANSPOSE_CONV")},
    "FULLY_CONNECTED": {
        **hybrid.XNNPACK["FULLY_CONNECTED"],
        "int8": FP32,
        "int8_per_channel": FP32,
        "uint8": FP32,
    },
    **{op: _any(XNNPACK) for op in ("ADD", "SUB", "MEAN", "RESIZE_BILINEAR", "LEAKY_RELU")},
    "MAX_POOL_2D": _any(Rule("exact", clamp="half_even")),
    "QUANTIZE": {
        "int8_from_float": Rule("reciprocal_half_even", overflow="saturates"),
        "uint8_from_float": Rule("reciprocal_half_even", overflow="saturates"),
        "*": XNNPACK,
    },
    "DEQUANTIZE": _any(REFERENCE),
    "LOGISTIC": _any(XNNPACK),
    "TANH": _any(replace(XNNPACK, libm="fdlibm")),
    "RELU": _any(Rule("exact", clamp="half_even")),
    "RELU6": _any(Rule("exact", clamp="half_even")),
    "RELU_N1_TO_1": _any(Rule("exact", clamp="half_even")),
}
"""What XNNPACK does with the layers it takes; it takes none that is missing here."""

TFLM_OTHERWISE = ("ELU", "EXP", "GELU", "LOGISTIC", "LSTM", "RELU6", "SPACE_TO_BATCH_ND", "TANH")
"""Ops that TensorFlow Lite Micro lacks, or computes in ways of its own, which no rule here describes."""

TFLM: RuleTable = MappingProxyType(
    {
        **{op: rules for op, rules in TFLITE_2_14_REF.items() if op not in TFLM_OTHERWISE},
        "CAST": _any(Rule("saturating_or_0")),
        "CUSTOM:TFLite_Detection_PostProcess": LITERT_2_3_REF["CUSTOM:TFLite_Detection_PostProcess"],
        **{op: _any(GEMMLOWP_64) for op in ("LEAKY_RELU", "MUL", "PRELU", "RELU")},
        "TRANSPOSE_CONV": _GEMMLOWP_CONVOLUTIONS["TRANSPOSE_CONV"],
        "FULLY_CONNECTED": {
            **dict.fromkeys(("int16_bias64", "int16_bias64_per_channel"), Q15),
            **dict.fromkeys(("int16_unbiased", "int16_unbiased_per_channel"), Q15),
            "*": GEMMLOWP_64,
        },
        "BATCH_MATMUL": {"int8": GEMMLOWP_64},
        "DIV": {"float32": EXACT, "int32": EXACT, "int8": GEMMLOWP_64},
        "SUM": {"int8": GEMMLOWP_64, "int16": GEMMLOWP_64},
        "UNIDIRECTIONAL_SEQUENCE_LSTM": {"int8": Rule("reference", "float64")},
    }
)
"""TensorFlow Lite Micro: gemmlowp throughout, multipliers in float64."""


def with_libm(table: RuleTable, libm: Libm) -> RuleTable:
    """The table on a machine with another C library; ``none`` is an unknown one."""

    def elsewhere(rule: Rule) -> Rule:
        if rule.libm == "none":
            return rule
        return Rule("unspecified") if libm == "none" else replace(rule, libm=libm)

    return MappingProxyType(
        {op: {variant: elsewhere(rule) for variant, rule in rules.items()} for op, rules in table.items()}
    )
