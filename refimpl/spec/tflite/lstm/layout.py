"""The positions of an LSTM's tensors, and the check of them.

Source: LiteRT 2.3.0 ``kernels/lstm_shared.h``, and ``Prepare`` of ``kernels/lstm.cc`` and
``kernels/unidirectional_sequence_lstm.cc``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView, Tensor
from karat24.refimpl.spec.shared.requirements import (
    require,
    require_dtype,
    require_elements,
    require_quantized,
    require_rank,
    require_shape,
)
from karat24.refimpl.spec.shared.scales import require_multiplier
from karat24.refimpl.spec.shared.variables import require_variable


class Gate(NamedTuple):
    """Positions of one gate's tensors among the layer's inputs, and of its scale among the intermediates.

    Weights of the data, of the last output and, diagonal, of the cell; ``from_cell`` is None where there can
    be none. ``norm`` are the coefficients of a layer normalization.
    """

    from_data: int
    from_output: int
    from_cell: int | None
    bias: int
    norm: int
    scale: int


INPUT, FORGET = Gate(1, 5, 9, 12, 20, 0), Gate(2, 6, 10, 13, 21, 1)
CELL, OUTPUT = Gate(3, 7, None, 14, 22, 2), Gate(4, 8, 11, 15, 23, 3)

DATA, PEEPHOLE, PROJECTION, PROJECTION_BIAS, OUTPUT_STATE, CELL_STATE = 0, 11, 16, 17, 18, 19
HIDDEN = 4
"""The intermediate with the scale and zero point of the hidden tensor: the output, without a projection."""

GATE_SCALE = 2.0**-12
"""Steps of a gate's sum, of Q3.12, unless it is normalized."""

CELL_EXPONENTS = range(-15, -8)
"""The exponents that the scale of a cell state may have: tanh is defined for 0 to 6 integer bits."""

MAX_DEPTH = 2**15
"""An int32 sum of fewer products of 8-bit values cannot overflow."""


class Sizes(NamedTuple):
    """Sequences, time steps, values per step, cells, and values per output."""

    batch: int
    steps: int
    depth: int
    cells: int
    outputs: int


def sizes(view: LayerView) -> Sizes:
    """The layer's sizes; LSTM is one step of UNIDIRECTIONAL_SEQUENCE_LSTM."""
    *leading, depth = view.input(DATA).shape
    if view.op == "LSTM":
        batch, steps = leading[0], 1
    else:
        batch, steps = reversed(leading) if is_time_major(view) else leading
    cells, outputs = view.input(OUTPUT.from_output).shape
    return Sizes(batch, steps, depth, cells, outputs)


def gates(view: LayerView) -> tuple[Gate, ...]:
    """The gates in the order they are computed; where the input gate is left out it is 1 minus the forget
    gate (CIFG)."""
    own = () if view.optional_input(INPUT.from_data) is None else (INPUT,)
    return (*own, FORGET, CELL, OUTPUT)


def is_time_major(view: LayerView) -> bool:
    """Whether time comes before the batch."""
    return view.op != "LSTM" and view.flag("time_major")


def is_normalized(view: LayerView) -> bool:
    """Whether gates are normalized before their function is taken."""
    return view.optional_input(FORGET.norm) is not None


def check_lstm(view: LayerView) -> None:
    """int8 data ``[batch, time, depth]``, ``time_major`` ``[time, batch, depth]``, LSTM ``[batch, depth]``;
    int8 weights ``[cell, depth]`` and ``[cell, output]``, int32 biases ``[cell]``, an int8 output state
    ``[batch, output]`` and an int16 cell state ``[batch, cell]``, both variables. Peephole weights and
    coefficients are int16 ``[cell]``, a projection is int8 ``[output, cell]``. All but data and states are
    constants; of five intermediates the last is quantized, and the first four where gates are normalized."""
    if view.op == "LSTM" and view.text("kernel_type", "FULL") != "FULL":
        raise UnsupportedOp(f"{view}: the basic LSTM kernel, of uint8; karat24 computes the full one of int8")
    require(view, len(view.inputs) in (20, 24), f"{len(view.inputs)} inputs; the op takes 24, or 20")
    require(view, len(view.outputs) == 1, f"{len(view.outputs)} outputs; the op gives one")
    _check_kind(view)
    _check_shapes(view)
    _check_parameters(view)
    _check_multipliers(view)


def _check_kind(view: LayerView) -> None:
    """Raises UnsupportedOp unless the layer is an LSTM of int8 whose gates have 16 bits."""
    data, weights = view.input(DATA), view.input(OUTPUT.from_data)
    if data.dtype == "float32":
        kind = "float32" if weights.dtype == "float32" else f"float32 data and {weights.dtype} weights"
        raise UnsupportedOp(f"{view}: an LSTM of {kind} is not computed, only one quantized to int8")
    for tensor in (data, view.output()):
        require_dtype(view, tensor, ("int8",))
    if len(view.intermediates) == 12:
        raise UnsupportedOp(f"{view}: an LSTM whose gates have 8 bits (12 intermediates) is not computed")
    require(
        view,
        len(view.intermediates) == 5,
        f"{len(view.intermediates)} intermediates; an LSTM of int8 has five, which say the scales inside it",
    )
    activation = view.text("fused_activation_function", "NONE")
    if activation != "TANH":
        raise UnsupportedOp(f"{view}: LSTM with activation {activation}; of int8, runtimes compute TANH only")
    if view.op != "LSTM" and view.flag("diagonal_recurrent_tensors"):
        raise UnsupportedOp(f"{view}: diagonal recurrent weights are for float32 only")
    for clip in ("cell_clip", "proj_clip"):
        require(view, view.real(clip, 0.0) >= 0, f"{clip} is {view.real(clip, 0.0)}, below 0")


def _check_shapes(view: LayerView) -> None:
    data, recurrent = view.input(DATA), view.input(OUTPUT.from_output)
    require_rank(view, data, 2 if view.op == "LSTM" else 3)
    require_rank(view, recurrent, 2)
    require_elements(view, data)
    require_elements(view, recurrent)
    batch, _, depth, cells, outputs = sizes(view)
    require(
        view,
        max(depth, cells, outputs) < MAX_DEPTH,
        f"sums of {max(depth, cells, outputs)} products; at most {MAX_DEPTH - 1} are handled",
    )
    own_input, normalized = INPUT in gates(view), is_normalized(view)
    peephole = view.optional_input(PEEPHOLE) is not None
    for gate in (INPUT, FORGET, CELL, OUTPUT):
        there = gate is not INPUT or own_input
        _check_constant(view, gate.from_data, "int8", (cells, depth), there)
        _check_constant(view, gate.from_output, "int8", (cells, outputs), there)
        _check_constant(view, gate.bias, "int32", (cells,), there)
        _check_constant(view, gate.norm, "int16", (cells,), there and normalized)
        if gate.from_cell is not None:
            _check_constant(view, gate.from_cell, "int16", (cells,), there and peephole)
    projected = view.optional_input(PROJECTION) is not None
    _check_constant(view, PROJECTION, "int8", (outputs, cells), projected)
    bias = view.optional_input(PROJECTION_BIAS) is not None
    _check_constant(view, PROJECTION_BIAS, "int32", (outputs,), bias)
    require(view, projected or not bias, "a bias of a projection that is not there")
    require(view, projected or cells == outputs, f"{cells} cells give {outputs} outputs without a projection")
    if peephole and cells != outputs:
        raise UnsupportedOp(
            f"{view}: runtimes take the number of outputs for that of the cells when they apply peephole "
            f"weights; there are {outputs} and {cells}"
        )
    for position, dtype, width in ((OUTPUT_STATE, "int8", outputs), (CELL_STATE, "int16", cells)):
        require_variable(view, view.input(position), dtype)
        require_shape(view, view.input(position), (batch, width))
    require_shape(view, view.output(), (*data.shape[:-1], outputs))


def _check_constant(view: LayerView, position: int, dtype: str, shape: tuple[int, ...], there: bool) -> None:
    """Requires that input ``position`` is a constant of that type and shape, or left out."""
    if not there:
        require(view, view.optional_input(position) is None, f"input {position}, which this LSTM cannot have")
        return
    tensor = view.input(position)
    require_dtype(view, tensor, (dtype,))
    require_shape(view, tensor, shape)
    if not tensor.is_constant:
        raise UnsupportedOp(
            f"{view}: input {position} ({tensor.name!r}) is computed; runtimes want a constant"
        )


def _scaled(view: LayerView) -> list[Tensor]:
    """The constants that have a scale: all but biases."""
    places = [place for gate in gates(view) for place in (*gate[:2], gate.from_cell, gate.norm)]
    found = (view.optional_input(place) for place in (*places, PROJECTION) if place is not None)
    return [tensor for tensor in found if tensor is not None]


def _check_parameters(view: LayerView) -> None:
    state, cell = view.input(OUTPUT_STATE), view.input(CELL_STATE)
    weights = _scaled(view)
    require_quantized(view, view.input(DATA), *weights, state, cell, view.output())
    needed = range(5) if is_normalized(view) else (HIDDEN,)
    for place in needed:
        tensor = view.intermediates[place]
        require(
            view, tensor is not None, f"intermediate {place} is left out; it says a scale inside the LSTM"
        )
        assert tensor is not None
        require_quantized(view, tensor)
    for tensor in (*weights, cell):
        if tensor.zero_point != 0:
            raise UnsupportedOp(
                f"{view}: tensor {tensor.index} ({tensor.name!r}) has zero point {tensor.zero_point}, which "
                "runtimes take for 0"
            )
    if 2.0 ** cell_exponent(view) != cell.scale or cell_exponent(view) not in CELL_EXPONENTS:
        raise UnsupportedOp(
            f"{view}: a cell state of scale {cell.scale:.6g}; runtimes compute with a power of two, 2^-15 to "
            "2^-9"
        )


def cell_exponent(view: LayerView) -> int:
    """The power of two that the scale of the cell state is, or lies above."""
    return math.frexp(view.input(CELL_STATE).scale)[1] - 1


def hidden(view: LayerView) -> Tensor:
    """The tensor whose parameters are those of what is projected, or of the output without a projection."""
    tensor = view.intermediates[HIDDEN]
    assert tensor is not None
    return tensor


def gate_scale(view: LayerView, gate: Gate) -> float:
    """Steps of the gate's sum: the intermediate's where the gate is normalized."""
    tensor = view.intermediates[gate.scale]
    return tensor.scale if is_normalized(view) and tensor is not None else GATE_SCALE


def _check_multipliers(view: LayerView) -> None:
    data, state, cell = view.input(DATA), view.input(OUTPUT_STATE), view.input(CELL_STATE)
    for gate in gates(view):
        scale = gate_scale(view, gate)
        sources = [(data, gate.from_data, "s_in"), (state, gate.from_output, "s_state")]
        if gate.from_cell is not None and view.optional_input(gate.from_cell) is not None:
            sources.append((cell, gate.from_cell, "s_cell"))
        for source, place, name in sources:
            real = source.scale * view.input(place).scale / scale
            require_multiplier(view, real, f"{name} * s_weights / s_gate")
        if is_normalized(view):
            real = view.input(gate.norm).scale * 2.0**12
            require_multiplier(view, real, "s_coefficients / 2^-12")
    require_multiplier(view, 2.0**-30 / hidden(view).scale, "2^-30 / s_hidden")
    projection = view.optional_input(PROJECTION)
    if projection is not None:
        real = projection.scale * hidden(view).scale / state.scale
        require_multiplier(view, real, "s_projection * s_hidden / s_state")
