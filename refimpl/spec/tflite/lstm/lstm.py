"""LSTM of int8, run step by step; the rule chooses the runtime's form of a step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import operand
from karat24.refimpl.spec.shared.variables import state_of
from karat24.refimpl.spec.tflite.lstm.by_table import step_by_table
from karat24.refimpl.spec.tflite.lstm.fixed_point import step_in_fixed_point
from karat24.refimpl.spec.tflite.lstm.layout import CELL_STATE, DATA, OUTPUT_STATE, is_time_major, sizes
from karat24.refimpl.spec.tflite.lstm.state import State

Step = Callable[[LayerView, Values, Rule, Array, State], State]


def lstm(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """LSTM, from the states given, or from zeros. ``reference``: gates by tables; else in fixed point, and
    the rule is that of products with peephole weights."""
    return SpecResult((lstm_run(view, values, rule)[0],))


def lstm_states(view: LayerView, values: Values, rule: Rule) -> tuple[Array, Array]:
    """The output state and the cell state that a run leaves."""
    _, output, cell = lstm_run(view, values, rule)
    return output, cell


def lstm_run(view: LayerView, values: Values, rule: Rule) -> tuple[Array, Array, Array]:
    """One run: its output, and the output state and the cell state it leaves."""
    batch, steps, depth, _, outputs = sizes(view)
    data = operand(values, DATA).astype(np.int64)
    in_time = data if is_time_major(view) else np.swapaxes(data.reshape(batch, steps, depth), 0, 1)
    state = State(
        state_of(view, values, OUTPUT_STATE).astype(np.int64),
        state_of(view, values, CELL_STATE).astype(np.int64),
    )
    step: Step = step_by_table if rule.method == "reference" else step_in_fixed_point
    made = np.empty((steps, batch, outputs), np.int8)
    for time, values_now in enumerate(in_time):
        state = step(view, values, rule, values_now, state)
        made[time] = state.output
    in_order = made if is_time_major(view) else np.swapaxes(made, 0, 1)
    output = np.ascontiguousarray(in_order).reshape(view.output().shape)
    return output, state.output.astype(np.int8), state.cell.astype(np.int16)
