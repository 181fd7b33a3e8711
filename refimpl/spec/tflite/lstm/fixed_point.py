"""A step of LSTM as LiteRT and tflite-runtime compute it: gates in gemmlowp's 16-bit fixed point.

Source: LiteRT 2.3.0 ``kernels/lstm_eval.cc`` ``LstmStepInteger8x8_16``,
``kernels/unidirectional_sequence_lstm.cc`` ``PopulateQuantizedLstmParams8x8_16`` and
``kernels/internal/reference/portable_tensor_utils.cc``, which every lane of x86-64 runs.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import (
    INT32_MAX,
    INT32_MIN,
    effective_multiplier,
    multiply_gemmlowp,
    quantize_multiplier,
    requantize,
    rounding_divide_by_pot,
    wrap16,
    wrap32,
)
from karat24.refimpl.spec.shared.requirements import operand
from karat24.refimpl.spec.tflite.int16 import fixed_point
from karat24.refimpl.spec.tflite.lstm.layer_norm import normalized
from karat24.refimpl.spec.tflite.lstm.layout import (
    CELL,
    CELL_STATE,
    DATA,
    FORGET,
    INPUT,
    OUTPUT,
    OUTPUT_STATE,
    PEEPHOLE,
    PROJECTION,
    PROJECTION_BIAS,
    Gate,
    cell_exponent,
    gate_scale,
    gates,
    hidden,
    is_normalized,
)
from karat24.refimpl.spec.tflite.lstm.state import State

INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1


def step_in_fixed_point(view: LayerView, values: Values, rule: Rule, data: Array, state: State) -> State:
    """``c = f * c + i * g`` and ``h = o * tanh(c)``, or its projection; ``o`` sees the new ``c``.

    ``data`` is ``[batch, depth]``, stored values held in int64.
    """
    forget = _gate(view, values, rule, FORGET, data, state)
    opened = _gate(view, values, rule, INPUT, data, state) if INPUT in gates(view) else INT16_MAX - forget
    candidate = _gate(view, values, rule, CELL, data, state)
    exponent = cell_exponent(view)
    kept = wrap16(rounding_divide_by_pot(forget * state.cell, 15))
    added = wrap16(rounding_divide_by_pot(opened * candidate, 30 + exponent))
    cell = _clipped(np.clip(kept + added, INT16_MIN, INT16_MAX), cell_clip(view))
    shown = _gate(view, values, rule, OUTPUT, data, State(state.output, cell))
    return State(_output(view, values, shown * fixed_point.tanh(cell, 15 + exponent)), cell)


def _gate(view: LayerView, values: Values, rule: Rule, gate: Gate, data: Array, state: State) -> Array:
    """The gate of Q0.15, ``[batch, cell]``: sums of its terms, each multiplied and added with saturation, and
    the sigmoid of them, or tanh for the cell."""
    scale, is_norm = gate_scale(view, gate), is_normalized(view)
    bias = np.int64(0) if is_norm else operand(values, gate.bias).astype(np.int64)
    total = _accumulated(np.int64(0), _weighted(view, values, DATA, gate.from_data, scale, data, bias))
    seen = _weighted(view, values, OUTPUT_STATE, gate.from_output, scale, state.output, np.int64(0))
    total = _accumulated(total, seen)
    if gate.from_cell is not None and view.optional_input(PEEPHOLE) is not None:
        total = _accumulated(total, _seen_by_peephole(view, values, rule, gate.from_cell, scale, state.cell))
    if is_norm:
        total = normalized(view, values, rule, gate, total)
    return fixed_point.tanh(total) if gate is CELL else fixed_point.logistic(total)


def _weighted(
    view: LayerView,
    values: Values,
    source: int,
    place: int,
    scale: float,
    stored: Array,
    bias: Array | np.int64,
) -> Array:
    """Sums of products of the values at ``source`` with the weights at ``place``, in steps of ``scale``."""
    tensor, weights = view.input(source), operand(values, place).astype(np.int64)
    sums = wrap32((stored - tensor.zero_point) @ weights.T + bias)
    effective = effective_multiplier("float32", tensor.scale, view.input(place).scale, scale)
    return multiply_gemmlowp(sums, *quantize_multiplier(float(effective)))


def _accumulated(total: Array | np.int64, term: Array) -> Array:
    """The int32 sum of both, which wraps, saturated to int16."""
    return np.clip(wrap32(total + term), INT16_MIN, INT16_MAX)


def _seen_by_peephole(
    view: LayerView, values: Values, rule: Rule, place: int, scale: float, cell: Array
) -> Array:
    """The cells times their weights, in steps of the gate: the one product that runtimes round in blocks."""
    weights = operand(values, place).astype(np.int64)
    real = view.input(CELL_STATE).scale * view.input(place).scale / scale
    return requantize(cell * weights, float(np.float32(real)), rule, 0, INT32_MIN, INT32_MAX)


def _output(view: LayerView, values: Values, product: Array) -> Array:
    """The int8 output from ``o * tanh(c)`` of Q0.30: as the hidden tensor, or projected from there."""
    inner, projection, state = hidden(view), view.optional_input(PROJECTION), view.input(OUTPUT_STATE)
    to_hidden = quantize_multiplier(float(np.float32(2.0**-15 / inner.scale * 2.0**-15)))
    scaled = multiply_gemmlowp(product, *to_hidden)
    if projection is None:
        return _int8(wrap32(scaled + inner.zero_point))
    return _projected(view, values, _int8(wrap32(scaled - inner.zero_point)), projection, inner, state)


def _projected(
    view: LayerView, values: Values, shifted: Array, projection: Tensor, inner: Tensor, state: Tensor
) -> Array:
    """The projection. ``shifted`` is the hidden tensor with *minus* its zero point, as runtimes keep it."""
    weights = operand(values, PROJECTION).astype(np.int64)
    bias = values[PROJECTION_BIAS]
    sums = (shifted + inner.zero_point) @ weights.T + (0 if bias is None else bias.astype(np.int64))
    effective = effective_multiplier("float32", projection.scale, inner.scale, state.scale)
    scaled = multiply_gemmlowp(wrap32(sums), *quantize_multiplier(float(effective)))
    return _clipped(_int8(wrap32(scaled + state.zero_point)), projection_clip(view))


def _int8(x: Array) -> Array:
    return np.clip(x, -128, 127)


def _clipped(x: Array, bound: int) -> Array:
    """Values between plus and minus ``bound``; 0 bounds nothing."""
    return np.clip(x, -bound, bound) if bound > 0 else x


def cell_clip(view: LayerView) -> int:
    """The bound of the cell state in its steps; 0 where it has none, or one below a step."""
    return _in_steps(view.real("cell_clip", 0.0), view.input(CELL_STATE).scale, INT16_MAX)


def projection_clip(view: LayerView) -> int:
    """The bound of a projection in steps of the output, which runtimes apply to the *stored* values."""
    return _in_steps(view.real("proj_clip", 0.0), view.output().scale, 127)


def _in_steps(clip: float, scale: float, largest: int) -> int:
    with np.errstate(over="ignore"):
        return int(min(np.float32(clip) / np.float32(scale), np.float32(largest)))
