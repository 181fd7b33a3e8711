"""Parameters of an LSTM: each gate lies as a layer of its own over input and state side by side.

Measured on the one public pair with an LSTM (32 units, 12 tensors): the gates input, forget, cell and output,
each ``[bias, int32 × n][input's weights][state's weights]``, laid out as convolutions are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.golden.edgetpu.layout import Weights
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView, Tensor

LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"

GATES = ("input", "forget", "cell", "output")
OF_INPUT, OF_STATE, OF_BIAS = 1, 5, 12
"""Positions of the first gate's tensors among the op's inputs; the others' follow. Source: TFLite
``unidirectional_sequence_lstm.cc``."""


@dataclass(frozen=True)
class Gate:
    """One gate; ``size`` counts its weights without what fills up groups of 4."""

    name: str
    weights: Weights
    size: int


def gates(view: LayerView) -> list[Gate]:
    """The four gates. Raises UnsupportedOp for a gate whose weights are not constants of one int8 scale."""
    return [_gate(view, number, name) for number, name in enumerate(GATES)]


def _gate(view: LayerView, number: int, name: str) -> Gate:
    of_input, of_state = view.optional_input(OF_INPUT + number), view.optional_input(OF_STATE + number)
    bias = view.optional_input(OF_BIAS + number)
    if of_input is None or of_state is None or bias is None or bias.data is None:
        raise UnsupportedOp(f"{view}: its {name} gate lacks weights or a bias, which no pair shows")
    parts = [_unsigned(view, tensor) for tensor in (of_input, of_state)]
    empty = np.empty(0, "<i4")
    filter_ = np.concatenate([_filled_up(part) for part in parts], axis=1)[:, np.newaxis, np.newaxis, :]
    biases = np.asarray(bias.data).astype("<i4")
    size = sum(part.size for part in parts)
    return Gate(name, Weights(filter_, 128, biases, np.empty(0, "<f4"), empty, False), size)


def _unsigned(view: LayerView, tensor: Tensor) -> Array:
    """The tensor's values ``[unit, input]`` as unsigned bytes; their zero point is then 128."""
    numbers = tensor.quantization
    if tensor.data is None or tensor.dtype != "int8" or numbers is None or len(numbers.scale) != 1:
        raise UnsupportedOp(f"{view}: {tensor.name!r} must be a constant of one int8 scale")
    unsigned: Array = np.asarray(tensor.data).view(np.uint8) ^ np.uint8(0x80)
    return unsigned


def _filled_up(values: Array) -> Array:
    """``[unit, input]`` with the zero point up to a multiple of 4 inputs."""
    return np.pad(values, ((0, 0), (0, -values.shape[1] % 4)), constant_values=128)
