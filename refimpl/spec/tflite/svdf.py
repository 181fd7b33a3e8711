"""SVDF of int8: filters of rank one over features and time, with an int16 state that moves by one each run.

Source: LiteRT 2.3.0 and tflite-runtime 2.14.0, ``kernels/internal/reference/svdf.h`` ``EvalIntegerSVDF``,
which every lane runs; scales from ``kernels/svdf.cc`` ``Prepare``.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import effective_multiplier, requantize, wrap32
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_dtype,
    require_elements,
    require_quantized,
    require_rank,
    require_shape,
)
from karat24.refimpl.spec.shared.scales import require_multiplier
from karat24.refimpl.spec.shared.variables import require_variable, state_of

MAX_INPUTS = 2**15
"""An int32 sum of fewer products of 8-bit values cannot overflow."""


def check_svdf(view: LayerView) -> None:
    """Inputs: data ``[batch, input]`` int8, feature weights ``[filter, input]`` int8, time weights
    ``[filter, memory]`` int16, bias ``[unit]`` int32 or left out, state ``[batch, filter * memory]``, a
    variable of int16. There are ``rank`` filters for each unit; the fused activation is RELU."""
    require(view, len(view.inputs) == 5, f"{len(view.inputs)} inputs; the op takes 5, -1 for no bias")
    require(view, len(view.outputs) == 1, f"{len(view.outputs)} outputs; the op gives one")
    data, features, times, state = (view.input(position) for position in (0, 1, 2, 4))
    output, bias, rank = view.output(), view.optional_input(3), view.integer("rank")
    for tensor, dtype in ((data, "int8"), (features, "int8"), (times, "int16"), (output, "int8")):
        require_dtype(view, tensor, (dtype,))
        require_rank(view, tensor, 2)
        require_elements(view, tensor)
    require_variable(view, state, "int16")
    require_quantized(view, data, features, times, state, output)
    symmetric = features.zero_point == times.zero_point == state.zero_point == 0
    if not symmetric:
        raise UnsupportedOp(f"{view}: weights or a state with a zero point, which the runtimes ignore")
    batch, depth = data.shape
    filters, memory = times.shape
    require(view, rank > 0 and filters % rank == 0, f"{filters} filters of rank {rank}")
    require(view, depth < MAX_INPUTS, f"sums of {depth} products; at most {MAX_INPUTS - 1} are handled")
    require_shape(view, features, (filters, depth))
    require_shape(view, state, (batch, filters * memory))
    require_shape(view, output, (batch, filters // rank))
    if bias is not None:
        require_dtype(view, bias, ("int32",))
        require_shape(view, bias, (filters // rank,))
    activation = view.text("fused_activation_function", "NONE")
    if activation != "RELU":
        raise UnsupportedOp(f"{view}: int8 SVDF with activation {activation}; every runtime demands RELU")
    require_multiplier(view, data.scale * features.scale / state.scale, "s_in * s_feature / s_state")
    require_multiplier(view, state.scale * times.scale / output.scale, "s_state * s_time / s_out")


def svdf(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """SVDF, from the state given, or from zeros."""
    return SpecResult((svdf_step(view, values, rule)[0],))


def svdf_state(view: LayerView, values: Values, rule: Rule) -> tuple[Array]:
    """The state that a run leaves."""
    return (svdf_step(view, values, rule)[1],)


def svdf_step(view: LayerView, values: Values, rule: Rule) -> tuple[Array, Array]:
    """The output of one run, and the new state. RELU changes nothing that the clamp to int8 leaves."""
    data, output, rank = view.input(0), view.output(), view.integer("rank")
    centred = operand(values, 0).astype(np.int64) - data.zero_point
    features, times = operand(values, 1).astype(np.int64), operand(values, 2).astype(np.int64)
    filters, memory = times.shape
    to_state = effective_multiplier(rule.multiplier, data.scale, view.input(1).scale, view.input(4).scale)
    newest = requantize(wrap32(centred @ features.T), float(to_state), rule, 0, -32768, 32767)
    state = state_of(view, values, 4).reshape(-1, filters, memory)
    state = np.concatenate([state[:, :, 1:], newest.astype(np.int16)[:, :, np.newaxis]], axis=2)
    sums = (state.astype(np.int64) * times).sum(axis=2).reshape(len(state), -1, rank).sum(axis=2)
    if values[3] is not None:
        sums = sums + operand(values, 3).astype(np.int64)
    to_output = effective_multiplier(rule.multiplier, view.input(4).scale, view.input(2).scale, output.scale)
    result = requantize(wrap32(sums), float(to_output), rule, output.zero_point, -128, 127)
    return result.astype(np.int8), state.reshape(view.input(4).shape)
