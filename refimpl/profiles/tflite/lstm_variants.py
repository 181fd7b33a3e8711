"""Which variants of LSTM runtimes tell apart, by the inputs that a layer has."""

from __future__ import annotations

from karat24.refimpl.graph import LayerView

LSTMS = ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM")

_OF_INPUT_GATE = (1, 5, 12)
_OF_VARIANTS = (9, 10, 11, 16, 17, 20, 21, 22, 23)
"""Positions of peephole weights, a projection with its bias, and coefficients of a layer normalization."""

ALL_GATES_AND_NO_MORE = (
    "its LSTM has four gates, no peephole weights, projection or layer normalization, and 24 inputs, -1 for "
    "those left out"
)


def has_peephole(view: LayerView) -> bool:
    """Whether gates see the cells, by diagonal weights."""
    return view.optional_input(11) is not None


def is_varied(view: LayerView) -> bool:
    """Whether the layer is anything but an LSTM of four gates with 24 inputs and nothing besides."""
    return (
        len(view.inputs) != 24
        or any(view.optional_input(position) is None for position in _OF_INPUT_GATE)
        or any(view.optional_input(position) is not None for position in _OF_VARIANTS)
    )
