"""A step of LSTM as TensorFlow Lite Micro computes it: gates by the tables of its int16 LOGISTIC and TANH.

Source: TensorFlow Lite Micro ``micro/kernels/lstm_eval.h`` ``LstmStep``, ``lstm_eval.cc`` and
``lstm_eval_common.cc``.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import multiply, wrap32
from karat24.refimpl.spec.shared.requirements import operand
from karat24.refimpl.spec.tflite.int16 import sigmoid
from karat24.refimpl.spec.tflite.lstm.fixed_point import INT16_MAX, INT16_MIN, cell_clip
from karat24.refimpl.spec.tflite.lstm.layout import (
    CELL,
    CELL_STATE,
    DATA,
    FORGET,
    GATE_SCALE,
    INPUT,
    OUTPUT,
    OUTPUT_STATE,
    Gate,
)
from karat24.refimpl.spec.tflite.lstm.state import State

OPENING = 2.0**-15
"""Steps of a gate and of tanh: Q0.15."""


def step_by_table(view: LayerView, values: Values, _rule: Rule, data: Array, state: State) -> State:
    """``c = f * c + i * g`` and ``h = o * tanh(c)``; each product is rounded by gemmlowp's multipliers."""
    cell_scale, output = view.input(CELL_STATE).scale, view.input(OUTPUT_STATE)
    forget, opened = _gate(view, values, FORGET, data, state), _gate(view, values, INPUT, data, state)
    candidate = _gate(view, values, CELL, data, state)
    kept = _to_int16(forget * state.cell, OPENING)
    added = _to_int16(opened * candidate, OPENING * OPENING / cell_scale)
    cell = np.clip(kept + added, INT16_MIN, INT16_MAX)
    if view.real("cell_clip", 0.0) > 0:
        cell = np.clip(cell, -cell_clip(view), cell_clip(view))
    shown = _gate(view, values, OUTPUT, data, state)
    product = shown * sigmoid.tanh_by_table(cell, cell_scale)
    real = OPENING * OPENING / output.scale
    return State(multiply("gemmlowp", product, real, output.zero_point, -128, 127), cell)


def _gate(view: LayerView, values: Values, gate: Gate, data: Array, state: State) -> Array:
    """The gate of Q0.15, ``[batch, cell]``: both sums of products saturate, and so does theirs."""
    bias = operand(values, gate.bias).astype(np.int64)
    from_data = _weighted(view, values, DATA, gate.from_data, data, bias)
    from_output = _weighted(view, values, OUTPUT_STATE, gate.from_output, state.output, np.int64(0))
    total = np.clip(from_data + from_output, INT16_MIN, INT16_MAX)
    if gate is CELL:
        return sigmoid.tanh_by_table(total, GATE_SCALE)
    return sigmoid.logistic_by_table(total, GATE_SCALE)


def _weighted(
    view: LayerView, values: Values, source: int, place: int, stored: Array, bias: Array | np.int64
) -> Array:
    """A fully connected layer of int8 with int16 outputs in steps of a gate."""
    tensor, weights = view.input(source), operand(values, place).astype(np.int64)
    sums = wrap32((stored - tensor.zero_point) @ weights.T + bias)
    return _to_int16(sums, tensor.scale * view.input(place).scale / GATE_SCALE)


def _to_int16(x: Array, real: float) -> Array:
    return multiply("gemmlowp", x, real, 0, INT16_MIN, INT16_MAX)
