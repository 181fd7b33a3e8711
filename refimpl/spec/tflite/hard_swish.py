"""HARD_SWISH: ``x * relu6(x + 3) / 6`` in 16-bit fixed point.

Source: TensorFlow Lite ``reference_ops::HardSwish``; int16 operations throughout.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.shared.primitives import (
    half_up_shift,
    in_blocks,
    quantize_multiplier,
    rounding_divide_by_pot,
)
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require_arity,
    require_dtype,
    require_quantized,
    require_same_dtype,
    require_shape,
)

INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1
SHIFT_LIMIT = 15
"""The most bits an int16 is shifted by; shifts by more are undefined in C."""


def check_hard_swish(view: LayerView) -> None:
    """One int8 or uint8 input; an output of the same type and shape; scales an int16 can hold."""
    require_arity(view, 1)
    input_, output = view.input(0), view.output()
    require_dtype(view, input_, QUANTIZED_8)
    require_same_dtype(view, input_, output)
    require_shape(view, output, input_.shape)
    require_quantized(view, input_, output)
    (_, output_shift), (_, gate_shift) = _multipliers(view)
    if not -SHIFT_LIMIT <= output_shift <= 0:
        raise UnsupportedOp(
            f"{view}: input scale {input_.scale:.6g} over 128 times output scale {output.scale:.6g} "
            f"needs a shift of {output_shift}; the runtimes define -{SHIFT_LIMIT} to 0"
        )
    if not -SHIFT_LIMIT <= gate_shift <= SHIFT_LIMIT:
        raise UnsupportedOp(
            f"{view}: input scale {input_.scale:.6g} needs a shift of {gate_shift}; "
            f"the runtimes define -{SHIFT_LIMIT} to {SHIFT_LIMIT}"
        )


def _multipliers(view: LayerView) -> tuple[tuple[int, int], tuple[int, int]]:
    """Q0.15 ``(multiplier, shift)`` of the output and of the gate ``relu6(x + 3) / 6``.

    Both follow from ``s_in / 128``, the scale of the input shifted left by 7; the gate's unit is
    ``3 / 2^15``.
    """
    fine = np.float32(1 / 128) * np.float32(view.input(0).scale)
    with np.errstate(over="ignore"):
        to_output = float(fine / np.float32(view.output().scale))
    to_gate = float(fine / (np.float32(3) / np.float32(32768)))
    return _narrow(*quantize_multiplier(to_output)), _narrow(*quantize_multiplier(to_gate))


def _narrow(multiplier: int, shift: int) -> tuple[int, int]:
    """A Q0.31 multiplier rounded half up to Q0.15, saturated."""
    return min((multiplier + 2**15) >> 16, INT16_MAX), shift


def hard_swish(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """HARD_SWISH by the rule's methods."""
    low, high = QUANTIZED_RANGE[view.output().dtype]
    result = in_blocks(rule, view.output().shape, lambda method: _by(view, values, method))
    return SpecResult((np.clip(result, low, high).astype(DTYPES[view.output().dtype]),))


def _by(view: LayerView, values: Values, method: Method) -> Array:
    """HARD_SWISH in fixed point; ``gate`` rises from 0 to 2^15 as x rises from -3 to 3.

    ``fixed_point_neon`` is the optimised kernel on Arm: its last high multiply rounds down, and its shifts
    round half up.
    """
    neon = method == "fixed_point_neon"
    divide = half_up_shift if neon else rounding_divide_by_pot
    input_, output = view.input(0), view.output()
    (output_multiplier, output_shift), (gate_multiplier, gate_shift) = _multipliers(view)
    fine = _wrap16((operand(values, 0).astype(np.int64) - input_.zero_point) << 7)
    scaled = _rounding_high_mul(fine, output_multiplier)

    gate = fine
    if gate_shift > 0:
        gate = _saturate(gate << (gate_shift - 1))
    gate = _rounding_high_mul(gate, gate_multiplier)
    if gate_shift > 0:
        gate = _saturate(gate << 1)
    if gate_shift < 0:
        gate = divide(gate, -gate_shift)
    gate = (gate + 2**15) >> 1

    product = gate * scaled >> 15 if neon else _truncating_high_mul(gate, scaled)
    return _wrap16(divide(product, -output_shift) + output.zero_point)


def _wrap16(x: Array) -> Array:
    return ((x + 2**15) & 0xFFFF) - 2**15


def _saturate(x: Array) -> Array:
    return np.asarray(np.clip(x, INT16_MIN, INT16_MAX), np.int64)


def _rounding_high_mul(a: Array, b: int) -> Array:
    """``a * b / 2^15`` rounded half up, saturated (gemmlowp, int16)."""
    return np.asarray(np.minimum((a * b + 2**14) >> 15, INT16_MAX), np.int64)


def _truncating_high_mul(a: Array, b: Array) -> Array:
    """``a * b / 2^15`` truncated toward zero."""
    product = a * b
    return np.asarray(np.sign(product) * (np.abs(product) >> 15), np.int64)
