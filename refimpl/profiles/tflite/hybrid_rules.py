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
_ROWS_OF_XNNPACK = Rule("row_step_first_fused", rows="affine_half_even")

_EITHER = ("hybrid", "hybrid_per_channel")
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
