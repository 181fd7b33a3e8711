"""LOG_SOFTMAX of int8 and uint8 over the last dimension: in fixed point, or by a table of exponentials."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import (
    multiply_gemmlowp,
    quantize_multiplier,
    round_half_away,
    rounding_divide_by_pot,
    wrap32,
)
from karat24.refimpl.spec.shared.requirements import operand, require, require_elements, require_rank
from karat24.refimpl.spec.tflite.expf import expf, logf
from karat24.refimpl.spec.tflite.float_table import check_table
from karat24.refimpl.spec.tflite.log_of_sum import log_of_sum
from karat24.refimpl.spec.tflite.softmax import (
    INPUT_INTEGER_BITS,
    SUM_INTEGER_BITS,
    exp_on_negative_values,
)

OUTPUT_SCALE = 16 / 256
OUTPUT_INTEGER_BITS = 4
MAX_DEPTH = 2**12
"""A Q12.19 sum of fewer exponentials cannot overflow."""


def check_log_softmax(view: LayerView) -> None:
    """An input of 1 to 4 dimensions; the output has scale 16/256 and the type's maximum as zero point."""
    check_table(view)
    data, output = view.input(0), view.output()
    require_rank(view, data, 1, 4)
    require_elements(view, data)
    require(
        view, data.shape[-1] < MAX_DEPTH, f"rows of {data.shape[-1]}; at most {MAX_DEPTH - 1} are handled"
    )
    if not 2.0**-26 < data.scale <= 16:
        raise UnsupportedOp(f"{view}: an input scale of {data.scale:.6g}; 2^-26 to 16 are handled")
    high = QUANTIZED_RANGE[output.dtype][1]
    require(
        view,
        output.scale == OUTPUT_SCALE and output.zero_point == high,
        f"output scale {output.scale} and zero point {output.zero_point}; the op's are 0.0625 and {high}",
    )


def log_softmax(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """LOG_SOFTMAX by the rule's method."""
    data = operand(values, 0)
    rows = data.reshape(-1, data.shape[-1]).astype(np.int64)
    if rule.method == "fixed_point":
        results = [_fixed_point_row(view, row) for row in rows]
    elif rule.method == "float_table":
        scale = np.float32(view.input(0).scale)
        powers = [expf(-(scale * np.float32(step))) for step in range(256)]
        results = [_float_row(view, scale, np.array(powers), row) for row in rows]
    else:
        raise ModelError(f"{view}: LOG_SOFTMAX by {rule.method!r} is not defined")
    return SpecResult((np.array(results).astype(data.dtype).reshape(data.shape),))


def _fixed_point_row(view: LayerView, row: Array) -> Array:
    """Exponentials are Q5.26 numbers, their sum Q12.19, its logarithm Q5.26.

    Source: TFLite ``reference_integer_ops::LogSoftmax``; scales: ``PreprocessLogSoftmaxScalingExp``.
    """
    low, high = QUANTIZED_RANGE[view.output().dtype]
    real = view.input(0).scale * 2.0 ** (31 - INPUT_INTEGER_BITS)
    multiplier, shift = quantize_multiplier(min(real, 2.0**31 - 1.0))
    inverse, inverse_shift = quantize_multiplier(2.0 ** (31 - shift) / multiplier)
    least = -math.floor((2**INPUT_INTEGER_BITS - 1) * 2.0 ** (31 - INPUT_INTEGER_BITS) / 2.0**shift)
    difference = row - row.max()
    scaled = multiply_gemmlowp(np.maximum(difference, least), multiplier, shift)
    terms = rounding_divide_by_pot(exp_on_negative_values(scaled), SUM_INTEGER_BITS)
    logarithm = log_of_sum(int(np.where(difference >= least, terms, 0).sum()))
    reached = int(multiply_gemmlowp(wrap32(logarithm - 2**31), inverse, inverse_shift))
    quotient = rounding_divide_by_pot(
        wrap32(scaled - logarithm), 31 - INPUT_INTEGER_BITS - OUTPUT_INTEGER_BITS
    )
    return np.where(difference > max(least - 1, reached), np.clip(quotient + high, low, high), low)


def _float_row(view: LayerView, scale: np.float32, exponentials: Array, row: Array) -> Array:
    """``s*q - (s*max + log(sum of exp(s*(q - max))))`` in float32, summed in order, over 16/256.

    Source: TFLite ``optimized_ops::LogSoftmax``.
    """
    largest = int(row.max())
    total = np.float32(0.0)
    for term in exponentials[largest - row]:
        total = total + term
    subtracted = scale * np.float32(largest) + logf(total)
    steps = (scale * row.astype(np.float32) - subtracted) / np.float32(OUTPUT_SCALE)
    low, high = QUANTIZED_RANGE[view.output().dtype]
    return np.asarray(np.clip(round_half_away(steps) + np.float32(high), low, high), np.int64)
