"""The vocabulary of arithmetic: what a profile can say about one layer.

A :class:`Rule` is data. What its words mean is implemented twice, on purpose
without shared code: slowly in ``refimpl/spec`` and fast in ``refimpl/kernels``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

Method: TypeAlias = Literal[
    "exact",
    "gemmlowp",
    "gemmlowp_signed",
    "gemmlowp_saturating",
    "ruy",
    "single_rounding",
    "rndnu",
    "q15",
    "float32_half_even",
    "float64_half_away",
    "float64_saturating",
    "sse",
    "xnnpack",
    "divide_float32",
    "divide_float64",
    "reciprocal_half_even",
    "reference",
    "optimized",
    "spatial",
    "spatial_ruy",
    "saturating",
    "saturating_or_0",
    "fixed_point",
    "float_table",
    "affine_float32",
    "affine_fused",
    "reference_fused",
    "optimized_fused",
    "xnnpack_fused",
    "fixed_point_neon",
    "uint16_table",
    "float64_zero_point_first",
    "float32_zero_point_first",
    "float32_fused",
    "int32_half_away",
    "rational",
    "sign_only",
    "ignores_parameters",
    "truncates",
    "reads_uint8",
    "later_class_first",
    "reads_int8",
    "row_product",
    "row_product_fused",
    "row_step_first",
    "row_step_first_fused",
    "row_filter_first",
    "row_terms",
    "row_terms_fused",
    "signed_zeros",
    "unspecified",
    "given",
]
METHODS: Mapping[Method, str] = MappingProxyType(
    {
        "exact": "integer copy or comparison, nothing is rounded",
        "gemmlowp": "Q0.31 multiplier; doubling high multiply rounds half up, the shift half away from zero",
        "gemmlowp_signed": "gemmlowp with a negative multiplier, whose sign is applied after rounding",
        "gemmlowp_saturating": "gemmlowp's rounding; a shift to the left saturates where the other one wraps",
        "ruy": "Q0.31 multiplier; doubling high multiply and shift both round half up",
        "single_rounding": "Q0.31 multiplier; the product is rounded once, half up",
        "rndnu": "a multiplier of 24 bits; the product is rounded once, half up, and saturates",
        "q15": "Q0.15 multiplier of a 64-bit accumulator; one shift rounds half up, 32 bits are kept",
        "float32_half_even": "float32 product, rounded half to even, zero point added after",
        "float64_half_away": "float64 product, rounded half away from zero; beyond int32 it is -2^31, as "
        "x86-64 converts it",
        "float64_saturating": "float64 product, rounded half away from zero; beyond int32 it is the "
        "nearest int32, as Arm converts it",
        "sse": "the NEON body as compiled through SSE, in whole blocks only",
        "xnnpack": "XNNPACK's own integer or float form of the op",
        "divide_float32": "x / scale in float32, rounded half away from zero",
        "divide_float64": "x / scale in float64, rounded half away from zero",
        "reciprocal_half_even": "x * (1 / scale) in float32, rounded half to even",
        "reference": "the op's reference formula",
        "optimized": "the op's optimised formula (other association of the same terms)",
        "spatial": "the special path for a 4-D mean over y and x with keep_dims, rounded as gemmlowp",
        "spatial_ruy": "the special path for a 4-D mean over y and x with keep_dims, rounded as ruy",
        "saturating": "float to integer toward zero, clamped to the integer's range",
        "saturating_or_0": "float to integer toward zero, clamped to the integer's range; 0 for NaN",
        "fixed_point": "gemmlowp fixed-point transcendental functions",
        "float_table": "a 256-entry table computed in float32",
        "affine_float32": "q * scale + (-zero_point * scale) in float32",
        "affine_fused": "q * scale + (-zero_point * scale) as one float32 fused multiply-add",
        "reference_fused": "the reference formula with fused multiply-adds",
        "optimized_fused": "the optimised formula with fused multiply-adds",
        "xnnpack_fused": "XNNPACK's float form of the op with fused multiply-adds",
        "fixed_point_neon": "fixed-point functions; the high multiply rounds down, shifts round half up",
        "uint16_table": "a 256-entry table of 16-bit exponentials, and one Q0.31 multiplier per row",
        "float64_zero_point_first": "float64 product plus zero point, rounded half to even",
        "float32_zero_point_first": "float32 product plus zero point, rounded half to even",
        "float32_fused": "float32 fused multiply-adds, zero point inside, rounded half to even",
        "int32_half_away": "operands times ratios of scales of 22 bits, added in int32 and shifted once, "
        "rounded half away from zero",
        "rational": "operands times the integers below 2^15 whose ratio is nearest to that of their scales, "
        "added, times a float32, rounded half to even",
        "sign_only": "a scale of 1 or more keeps only the sign of 8-bit values: a shift by a negative count, "
        "which C leaves undefined, as x86-64 computes it",
        "ignores_parameters": "computed on the stored integers, whatever scales and zero points are: a fault",
        "reads_int8": "gemmlowp; of an int16 operand the bytes are taken for int8 values: a fault",
        "reads_uint8": "gemmlowp on int8 bytes taken for uint8 ones, in and out: a fault",
        "truncates": "float32 quotient, rounded toward zero",
        "later_class_first": "the reference formula, but of equal scores that of the later class comes first",
        "row_product": "sums of quantized float32 rows times the product of the row's step and the filter's "
        "scale, then the bias",
        "row_product_fused": "row_product, the bias added in one fused multiply-add",
        "row_step_first": "sums of quantized float32 rows times the row's step, then the filter's scale, "
        "then the bias",
        "row_step_first_fused": "row_step_first, the filter's scale and the bias in one fused multiply-add",
        "row_filter_first": "sums of quantized float32 rows times the filter's scale, then the row's step, "
        "then the bias",
        "row_terms": "each product of quantized float32 rows times the filter's scale, then the row's step, "
        "added in float32 in the input's order; then the bias",
        "row_terms_fused": "row_terms, the row's step and the addition in one fused multiply-add",
        "signed_zeros": "float32 compared as IEEE 754-2019 does: -0 is below 0, and a NaN wins",
        "unspecified": "float32 in an order, or by functions, that nobody documents: never compared",
        "given": "the oracle lacks the layer and goes on with values it is given",
    }
)
"""Every rounding method a rule can name, in one line each."""

Multiplier: TypeAlias = Literal["none", "float64", "float32_product", "float32", "float32_reciprocal"]
"""How ``s_in * s_filter / s_out`` is evaluated: all in float64; the product in
float32 and the division in float64; all in float32; the product times ``1 / s_out``, all in float32."""

BlockAxis: TypeAlias = Literal["none", "channel", "flat"]
Clamp: TypeAlias = Literal["half_away", "half_even", "reciprocal"]
Overflow: TypeAlias = Literal["wraps", "saturates", "widens", "arm_wraps", "arm_saturates"]
Accumulation: TypeAlias = Literal["exact", "saturating_pairs"]
Libm: TypeAlias = Literal["none", "fdlibm", "correctly_rounded"]
Rows: TypeAlias = Literal[
    "none",
    "symmetric",
    "symmetric_half_added",
    "affine",
    "affine_half_added",
    "affine_zero_point_first",
    "xnnpack_half_even",
    "xnnpack_half_away",
]
"""How float32 rows become int8: in steps of ``max|x| / 127`` (``symmetric``) or with a zero point, in steps
of ``(max - min) / 255`` (``affine``), rounded half away from zero. ``half_added``: 0.5 is added to the
magnitude in float32 and the fraction cut off, in whole blocks of eight values. ``zero_point_first``:
``max - min`` is not rounded, and the zero point is added in float32 before rounding. ``xnnpack``: affine, but
steps and zero point come from a float32 reciprocal, and values are rounded half to even or away from zero."""


@dataclass(frozen=True)
class Rule:
    """How one layer rounds.

    ``tail`` is the method of the elements behind the last whole block of
    ``block`` elements, counted along the innermost dimension (``channel``) or
    over the flattened tensor (``flat``; an ADD or MUL that broadcasts begins anew with
    each of its inner loops, ``profiles/tflite/broadcast.py``). ``clamp`` says how the bounds of a
    fused activation are quantized: TFLite ``zp + round_half_away(f32(6/s))``,
    XNNPACK ``rint(f32(6/s) + zp)``, the Edge TPU ``zp + rint(f32(6 * f32(1/s)))``. ``overflow`` says what
    QUANTIZE makes of float32 values that no int32 step count holds: x86 converts them to -2^31 and the zero
    point is added modulo 2^32 (``wraps``), or the steps are clamped first, from
    above before from below, a NaN like a large number (``saturates``). Arm converts to the
    nearest int32, and a NaN to 0: the zero point is then added modulo 2^32 (``arm_wraps``), or
    saturates (``arm_saturates``). For an op computed by a table from floats it says this of the table's
    entries, for an LSTM of its layer normalization's products: kept in 32 bits, or in 64 (``widens``).
    ``accumulation`` is ``saturating_pairs`` where the products of two neighbouring uint8 and int8
    values are added in 16 bits that saturate (``vpmaddubsw``), along (tap_y, tap_x, channel). ``libm`` is the
    C library whose float32 tanh, expm1 or erfc a table is made with: ``fdlibm`` is glibc's up to 2.40,
    ``correctly_rounded`` glibc's from 2.41 on. ``rows`` says how float32 data is quantized
    before int8 filters.
    """

    method: Method
    multiplier: Multiplier = "none"
    tail: Method | None = None
    block: int = 0
    block_axis: BlockAxis = "none"
    clamp: Clamp = "half_away"
    overflow: Overflow = "wraps"
    accumulation: Accumulation = "exact"
    libm: Libm = "none"
    rows: Rows = "none"

    def __str__(self) -> str:
        text: str = self.method
        if self.multiplier != "none":
            text += f", {self.multiplier} multiplier"
        if self.tail is not None:
            text += f" in blocks of {self.block} ({self.block_axis}), then {self.tail}"
        if self.accumulation != "exact":
            text += ", pairs of products saturating at 16 bits"
        if self.libm != "none":
            text += f", C library {self.libm.replace('_', ' ')}"
        if self.rows != "none":
            text += f", rows {self.rows}"
        return text


RuleTable: TypeAlias = Mapping[str, Mapping[str, Rule]]
"""Op to variant to rule; the variant ``*`` stands for all that are not named."""


WITHOUT_KERNEL: frozenset[Method] = frozenset(
    {
        "affine_fused",
        "fixed_point_neon",
        "float64_saturating",
        "int32_half_away",
        "optimized_fused",
        "reference_fused",
        "row_product_fused",
        "row_terms",
        "row_terms_fused",
        "signed_zeros",
        "uint16_table",
        "xnnpack_fused",
    }
)
"""Methods that have a slow definition only: those of Arm, and float32 sums of scaled products."""

OF_ARM: frozenset[Overflow] = frozenset({"arm_wraps", "arm_saturates"})
"""Conversions from float32 that have a slow definition only."""

EXACT = Rule("exact")
GIVEN = Rule("given")
