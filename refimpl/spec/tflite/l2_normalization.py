"""L2_NORMALIZATION: each innermost row is divided by its Euclidean length.

Source: TensorFlow Lite ``reference_integer_ops::L2Normalization`` and
``GetInvSqrtQuantizedMultiplierExp``.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import multiply_gemmlowp
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_activation,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_rank,
    require_same_dtype,
    require_shape,
)

OUTPUT_SCALE = 1 / 128
MAX_DEPTH = 2**31 // 255**2
"""The longest rows; the int32 sum of squares of longer ones could overflow."""


def check_l2_normalization(view: LayerView) -> None:
    """One int8 or uint8 input of rank 1 to 4; the output has scale 1/128 and zero point 0 or 128."""
    require_arity(view, 1)
    input_, output = view.input(0), view.output()
    require_dtype(view, input_, QUANTIZED_8)
    require_same_dtype(view, input_, output)
    require_rank(view, input_, 1, 4)
    require_elements(view, input_)
    require_shape(view, output, input_.shape)
    require_quantized(view, input_, output)
    require_activation(view, ("NONE",))
    require(view, input_.shape[-1] <= MAX_DEPTH, f"rows of {input_.shape[-1]}; at most {MAX_DEPTH} fit int32")
    zero_point = 128 if output.dtype == "uint8" else 0
    require(
        view,
        output.scale == OUTPUT_SCALE and output.zero_point == zero_point,
        f"output scale {output.scale:.6g} and zero point {output.zero_point}; "
        f"the op gives 1/128 and {zero_point}",
    )


def l2_normalization(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - one form
    """``128 * x / sqrt(sum of x^2)``, with the reciprocal root by Newton's method."""
    input_, output = view.input(0), view.output()
    centred = operand(values, 0).astype(np.int64) - input_.zero_point
    rows = centred.reshape(-1, input_.shape[-1])
    scaled = np.empty_like(rows)
    for index, row in enumerate(rows):
        multiplier, shift = inverse_square_root(int(np.sum(row * row)))
        if output.dtype == "int8":
            scaled[index] = multiply_gemmlowp(row, multiplier, shift + 7)
        else:
            scaled[index] = multiply_gemmlowp(row * 128, multiplier, shift)
    low, high = QUANTIZED_RANGE[output.dtype]
    result = np.clip(scaled + output.zero_point, low, high).reshape(output.shape)
    return SpecResult((result.astype(DTYPES[output.dtype]),))


def inverse_square_root(value: int) -> tuple[int, int]:
    """``1 / sqrt(value)`` as ``(multiplier, shift)``, by five Newton steps in Q3.28.

    ``x <- 1.5 x - 0.5 value x^3``. ``value <= 1`` gives the largest multiplier.
    """
    if value <= 1:
        return 2**31 - 1, 0
    halvings = 11
    while value >= 2**29:
        value //= 4
        halvings += 1
    leading_zeros = 32 - value.bit_length()
    pairs = (leading_zeros - 1) // 2 - 1
    halvings -= pairs
    value <<= 2 * pairs

    half_value = _times_power_of_two(value >> 1, -1)
    x = 2**28
    for _ in range(5):
        cube = _times_power_of_two(_high_mul(_high_mul(x, x), x), 6)
        x = _times_power_of_two(_high_mul(3 * 2**27, x) - _high_mul(half_value, cube), 3)
    x = _high_mul(x, 1518500250)  # sqrt(1/2) in Q0.31
    if halvings < 0:
        return x << -halvings, 0
    return x, -halvings


def _high_mul(a: int, b: int) -> int:
    """``a * b / 2^31`` rounded half up, saturated."""
    return min((a * b + 2**30) >> 31, 2**31 - 1)


def _times_power_of_two(x: int, exponent: int) -> int:
    """``x * 2^exponent``; a left shift saturates, a right shift rounds half away from zero."""
    if exponent >= 0:
        return max(-(2**31), min(x << exponent, 2**31 - 1))
    half = 1 << (-exponent - 1)
    return (abs(x) + half >> -exponent) * (1 if x >= 0 else -1)
