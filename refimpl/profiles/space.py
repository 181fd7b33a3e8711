"""The space of rules: for each op that rounds, every rule whose words its spec defines.

``karat24 establish`` looks here for the rule of a runtime, whatever profiles say. An op that is missing moves
or compares values, or has one arithmetic everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from karat24.refimpl.profiles.rules import BlockAxis, Clamp, Libm, Method, Multiplier, Overflow, Rule

MULTIPLIERS: tuple[Multiplier, ...] = ("float64", "float32_product", "float32")
CLAMPS: tuple[Clamp, ...] = ("half_away", "half_even")
OVERFLOWS: tuple[Overflow, ...] = ("wraps", "saturates", "arm_wraps", "arm_saturates")

WHOLE: frozenset[Method] = frozenset(
    {"single_rounding", "rndnu", "xnnpack_fused", "float64_saturating", "gemmlowp_saturating"}
)
"""Methods of kernels that compute the last block as the others."""

Blocks = tuple[tuple[int, BlockAxis], ...]
"""Sizes of blocks and what they are counted along."""


@dataclass(frozen=True)
class Space:
    """``plain`` rules, and with ``blocks`` every pair of them that differs in the method only and has none of
    ``WHOLE``."""

    plain: tuple[Rule, ...]
    blocks: Blocks = ()

    def rules(self) -> Iterator[Rule]:
        """All of them, those without blocks first."""
        yield from self.plain
        for (size, axis), body, tail in itertools.product(self.blocks, self.plain, self.plain):
            if not {body.method, tail.method} & WHOLE and body != tail == replace(body, method=tail.method):
                yield replace(body, tail=tail.method, block=size, block_axis=axis)

    def __len__(self) -> int:
        return sum(1 for _ in self.rules())


def _multiplied(methods: Iterable[Method], clamps: tuple[Clamp, ...] = CLAMPS[:1]) -> tuple[Rule, ...]:
    """Each method with each way to evaluate its multiplier, and to quantize a fused activation's bounds.

    A float32 method rounds its multiplier to float32 anyway. That of ``float32_product``, a quotient of two
    float32 numbers, is then the one of ``float32``: 53 bits are enough for both roundings to agree.
    """
    return tuple(
        Rule(method, multiplier, clamp=clamp)
        for clamp, method, multiplier in itertools.product(clamps, methods, MULTIPLIERS)
        if not (method.startswith("float32") and multiplier == "float32_product")
    )


def _divided(methods: Iterable[Method], clamps: tuple[Clamp, ...] = CLAMPS[:1]) -> tuple[Rule, ...]:
    """As :func:`_multiplied`, for a multiplier of two scales: ``float32_product`` has nothing to round."""
    return tuple(rule for rule in _multiplied(methods, clamps) if rule.multiplier != "float32_product")


def _plain(
    *methods: Method, multiplier: Multiplier = "none", clamps: tuple[Clamp, ...] = CLAMPS[:1]
) -> tuple[Rule, ...]:
    return tuple(
        Rule(method, multiplier, clamp=clamp) for clamp, method in itertools.product(clamps, methods)
    )


_REQUANTIZED: tuple[Method, ...] = ("gemmlowp", "ruy", "float64_half_away", "float32_half_even")
_BY_CHANNEL: Blocks = ((8, "channel"), (16, "channel"))
_FLAT: Blocks = ((8, "flat"), (16, "flat"))

_BY_RECIPROCAL = (Rule("float32_half_even", "float32_reciprocal", clamp="reciprocal"),)
"""The rule of a device that multiplies by the reciprocal of its output's scale, see ``tflite/edgetpu.py``."""

_ONCE_IN_XNNPACK = (Rule("rndnu", "float32", clamp="half_even"),)
_ROUNDED_ONCE = (*_multiplied(("single_rounding",)), *_ONCE_IN_XNNPACK)
"""The rules of 64-bit Arm, see ``tflite/arm64.py``."""

_SATURATING = (Rule("gemmlowp_saturating", "float32_product"),)
"""Of gemmlowp's own matrix products."""

_WEIGHTED = Space(
    (*_multiplied(_REQUANTIZED, CLAMPS), *_BY_RECIPROCAL, *_ROUNDED_ONCE, *_SATURATING), _BY_CHANNEL
)
_SUM = Space(
    (
        *_plain("gemmlowp", "sse", multiplier="float64", clamps=CLAMPS),
        *_plain("xnnpack", clamps=CLAMPS),
        Rule("rational", "float32_reciprocal", clamp="reciprocal"),
    ),
    _FLAT,
)
_RELU = Space((*_plain("exact", clamps=CLAMPS), *_divided(("gemmlowp",), CLAMPS)))
_TABLE = Space(_plain("float_table", "xnnpack"))
_LIBMS: tuple[Libm, ...] = ("fdlibm", "correctly_rounded")


def _with_libm(space: Space) -> Space:
    """The rules of a space by each C library, for ops whose function differs between libraries."""
    return Space(tuple(replace(rule, libm=libm) for rule in space.plain for libm in _LIBMS))


_FUNCTION = Space(tuple(replace(rule, overflow=o) for rule in _TABLE.plain for o in ("wraps", "saturates")))

_TFLITE: Mapping[str, Space] = {
    "CONV_2D": _WEIGHTED,
    "DEPTHWISE_CONV_2D": _WEIGHTED,
    "FULLY_CONNECTED": replace(_WEIGHTED, plain=(*_WEIGHTED.plain, Rule("float64_saturating", "float64"))),
    "TRANSPOSE_CONV": replace(_WEIGHTED, blocks=(*_BY_CHANNEL, *_FLAT)),
    "BATCH_MATMUL": Space(_multiplied(_REQUANTIZED)),
    "ADD": _SUM,
    "SUB": _SUM,
    "MUL": Space((*_multiplied((*_REQUANTIZED, "sse"), CLAMPS), *_BY_RECIPROCAL, *_ONCE_IN_XNNPACK), _FLAT),
    "QUANTIZE": Space((*_divided(_REQUANTIZED), *_plain("xnnpack"), *_BY_RECIPROCAL), _FLAT),
    "DEQUANTIZE": Space(_plain("reference", "affine_float32", "affine_fused"), _FLAT),
    "LEAKY_RELU": Space((*_multiplied(("gemmlowp", "gemmlowp_signed")), *_plain("xnnpack"))),
    "RELU": _RELU,
    "RELU6": _RELU,
    "RELU_N1_TO_1": _RELU,
    "PRELU": Space(_multiplied(("gemmlowp",))),
    "HARD_SWISH": Space(_plain("fixed_point", "fixed_point_neon")),
    "L2_NORMALIZATION": Space(_plain("fixed_point")),
    "LOGISTIC": _TABLE,
    "TANH": _with_libm(_TABLE),
    "EXP": _FUNCTION,
    "ELU": _with_libm(_FUNCTION),
    "SOFTMAX": Space(_plain("fixed_point", "float_table", "uint16_table")),
    "LOG_SOFTMAX": Space(_plain("fixed_point", "float_table")),
    "MEAN": Space(
        (*_plain("reference", "spatial", "spatial_ruy", "xnnpack", "xnnpack_fused"), *_BY_RECIPROCAL),
        _BY_CHANNEL,
    ),
    "RESIZE_BILINEAR": Space(
        _plain("reference", "optimized", "xnnpack", "reference_fused", "optimized_fused")
    ),
    "CONCATENATION": Space((*_plain("reference"), *_BY_RECIPROCAL)),
    "AVERAGE_POOL_2D": Space((*_plain("reference", clamps=CLAMPS), *_BY_RECIPROCAL)),
    "MAX_POOL_2D": Space(_plain("exact", clamps=CLAMPS)),
}

FROM_FLOAT: Mapping[str, Space] = MappingProxyType(
    {
        "QUANTIZE": Space(
            tuple(
                replace(rule, overflow=overflow)
                for rule in _plain("divide_float32", "divide_float64", "reciprocal_half_even")
                for overflow in OVERFLOWS
            ),
            _FLAT,
        ),
    }
)
"""The spaces of ops of float32 data that have another one for 8-bit data."""

_SUMS_OF_PRODUCTS = Space(
    tuple(
        replace(rule, accumulation=accumulation)
        for accumulation in ("exact", "saturating_pairs")
        for rule in _multiplied((*_REQUANTIZED, "float32_zero_point_first", "float64_zero_point_first"))
    )
)
_INTEGERS = Space((Rule("exact"), Rule("exact", accumulation="saturating_pairs")))
MICROSOFT = "com.microsoft:"

_ONNX: Mapping[str, Space] = {
    "QLinearConv": _SUMS_OF_PRODUCTS,
    "QLinearMatMul": _SUMS_OF_PRODUCTS,
    f"{MICROSOFT}QGemm": _SUMS_OF_PRODUCTS,
    "ConvInteger": _INTEGERS,
    "MatMulInteger": _INTEGERS,
    f"{MICROSOFT}MatMulIntegerToFloat": Space(
        (
            *_plain("reference", "reference_fused"),
            Rule("reference", accumulation="saturating_pairs"),
        )
    ),
    "QuantizeLinear": Space(
        tuple(
            replace(rule, overflow="saturates")
            for rule in _plain("divide_float32", "divide_float64", "reciprocal_half_even")
        )
    ),
    "DequantizeLinear": Space(_plain("reference")),
    f"{MICROSOFT}QLinearAdd": Space(
        _plain("float32_fused", "float32_zero_point_first", "int32_half_away", multiplier="float32")
    ),
    f"{MICROSOFT}QLinearMul": Space(
        (
            *_multiplied((*_REQUANTIZED, "float32_zero_point_first", "float64_zero_point_first")),
            Rule("float32_fused", "float32"),
        )
    ),
    f"{MICROSOFT}QLinearGlobalAveragePool": Space(
        _plain(*_REQUANTIZED, "float32_zero_point_first", "float64_zero_point_first", multiplier="float32")
    ),
    f"{MICROSOFT}QLinearAveragePool": Space(
        _plain("float32_half_even", "float32_zero_point_first", multiplier="float32")
    ),
    f"{MICROSOFT}QLinearConcat": Space(_plain("float_table")),
    f"{MICROSOFT}QLinearLeakyRelu": Space(_plain("float_table")),
    f"{MICROSOFT}QLinearSigmoid": Space(_plain("float_table", "reference")),
    f"{MICROSOFT}QLinearSoftmax": Space(_plain("float_table")),
    "Resize": Space(_plain("reference", "reference_fused")),
    "Sigmoid": Space(_plain("float32_fused", multiplier="float32")),
    "MaxPool": Space(_plain("exact")),
}

SPACES: Mapping[str, Space] = MappingProxyType({**_TFLITE, **_ONNX})
"""Op to its space; of QUANTIZE the one for 8-bit data."""
