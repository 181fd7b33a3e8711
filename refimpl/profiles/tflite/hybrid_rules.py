"""Rules of float32 data with int8 filters. Normative, held against the runtimes as the tables of ``table``.

LiteRT's NEON functions, compiled through SSE, quantize the rows; tflite-runtime 2.14 has the portable ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from karat24.refimpl.profiles.rules import Rows, Rule, RuleTable

_SYMMETRIC = Rule("row_product", rows="symmetric_half_added")
_AFFINE = Rule("row_product", rows="affine_half_added")
_FILTER_FIRST = Rule("row_filter_first", rows="affine_half_added")
_IN_TERMS = Rule("row_terms", rows="affine_half_added")
_ROWS_OF_XNNPACK = Rule("row_step_first_fused", rows="xnnpack_half_even")

_EITHER = ("hybrid", "hybrid_per_channel")
_OF_MATRICES = ("BATCH_MATMUL", "FULLY_CONNECTED")
_MATRICES: Mapping[str, Rule] = {
    **dict.fromkeys(_EITHER, _SYMMETRIC),
    **{f"{variant}_asymmetric": _AFFINE for variant in _EITHER},
}

LITERT_REF: RuleTable = {
    "BATCH_MATMUL": _MATRICES,
    "CONV_2D": {
        "hybrid": _SYMMETRIC,
        **dict.fromkeys(("hybrid_per_channel", "hybrid_per_channel_grouped"), _FILTER_FIRST),
    },
    "DEPTHWISE_CONV_2D": {"hybrid_per_channel": _AFFINE},
    "FULLY_CONNECTED": _MATRICES,
    "TRANSPOSE_CONV": dict.fromkeys(_EITHER, _IN_TERMS),
}
"""LiteRT 2.3's reference kernels."""

LITERT_BUILTIN: RuleTable = {
    **LITERT_REF,
    "CONV_2D": {**LITERT_REF["CONV_2D"], "hybrid_per_channel": _AFFINE},
    "DEPTHWISE_CONV_2D": {
        "hybrid_per_channel": replace(_FILTER_FIRST, tail="row_step_first", block=4, block_axis="channel")
    },
}
"""LiteRT 2.3's optimised kernels."""

XNNPACK: RuleTable = {
    op: dict.fromkeys(LITERT_REF[op], _ROWS_OF_XNNPACK)
    for op in ("BATCH_MATMUL", "CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
}
"""What LiteRT 2.3's XNNPACK delegate takes."""

DOT_PRODUCTS = "_by_dot_products"
"""Behind the variant of a FULLY_CONNECTED that Arm computes by a kernel in assembler."""


ONE_TAP = "_one_tap"
"""Behind the variant of a CONV_2D that XNNPACK takes for a product of matrices on Arm."""


def _on_arm(rules: RuleTable) -> RuleTable:
    """Vectors of 64-bit Arm are rounded exactly, and compilers fuse what is written as ``a + b * c``."""
    rows: Mapping[Rows, Rows] = {"symmetric_half_added": "symmetric", "affine_half_added": "affine"}
    table = {
        op: {variant: replace(rule, rows=rows[rule.rows]) for variant, rule in variants.items()}
        for op, variants in rules.items()
    }
    matrices, transposed = table["FULLY_CONNECTED"], table["TRANSPOSE_CONV"]
    return {
        **table,
        "FULLY_CONNECTED": {
            **{variant: replace(rule, method="row_product_fused") for variant, rule in matrices.items()},
            **{f"{variant}{DOT_PRODUCTS}": rule for variant, rule in matrices.items()},
        },
        "TRANSPOSE_CONV": {
            variant: replace(rule, method="row_terms_fused") for variant, rule in transposed.items()
        },
    }


LITERT_REF_ARM64 = _on_arm(LITERT_REF)
"""LiteRT 2.3's reference kernels on 64-bit Arm."""

_BUILTIN_ARM64 = _on_arm(LITERT_BUILTIN)

LITERT_BUILTIN_ARM64: RuleTable = {
    **_BUILTIN_ARM64,
    "CONV_2D": {
        variant + tap: rule for variant, rule in _BUILTIN_ARM64["CONV_2D"].items() for tap in ("", ONE_TAP)
    },
    "DEPTHWISE_CONV_2D": {
        **_BUILTIN_ARM64["DEPTHWISE_CONV_2D"],
        "hybrid_per_channel_3x3": LITERT_REF_ARM64["DEPTHWISE_CONV_2D"]["hybrid_per_channel"],
    },
}
"""LiteRT 2.3's optimised kernels on 64-bit Arm."""

_IMAGES = Rule("row_product", rows="xnnpack_half_even")
_MATRICES_ON_ARM = Rule("row_product", rows="xnnpack_half_away")

XNNPACK_ARM64: RuleTable = {
    op: {
        variant: _MATRICES_ON_ARM if op in _OF_MATRICES or variant.endswith(ONE_TAP) else _IMAGES
        for variant in LITERT_BUILTIN_ARM64[op]
    }
    for op in XNNPACK
}
"""What LiteRT 2.3's XNNPACK delegate takes on 64-bit Arm, with dot products."""

_PORTABLE: Mapping[Rows, Rows] = {
    "symmetric_half_added": "symmetric",
    "affine_half_added": "affine_zero_point_first",
}


def _portable(op: str) -> Mapping[str, Rule]:
    """An op's rules with rows quantized by the portable functions; 2.14 has no matrix products with a scale
    per channel."""
    return {
        variant: replace(rule, rows=_PORTABLE[rule.rows])
        for variant, rule in LITERT_REF[op].items()
        if op in ("CONV_2D", "DEPTHWISE_CONV_2D") or "per_channel" not in variant
    }


TFLITE_2_14_REF: RuleTable = {op: _portable(op) for op in LITERT_REF if op != "TRANSPOSE_CONV"}
"""tflite-runtime 2.14's reference kernels."""

TFLITE_2_14_BUILTIN: RuleTable = {
    **TFLITE_2_14_REF,
    "CONV_2D": {
        **TFLITE_2_14_REF["CONV_2D"],
        "hybrid_per_channel": replace(_AFFINE, rows="affine_zero_point_first"),
    },
    "DEPTHWISE_CONV_2D": {"hybrid_per_channel": Rule("row_step_first", rows="affine_zero_point_first")},
}
"""Its optimised ones."""
