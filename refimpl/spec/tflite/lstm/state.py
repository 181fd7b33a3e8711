"""The state of an LSTM between two time steps."""

from __future__ import annotations

from typing import NamedTuple

from karat24.refimpl.graph import Array


class State(NamedTuple):
    """``output`` ``[batch, output]`` and ``cell`` ``[batch, cell]``, stored values held in int64."""

    output: Array
    cell: Array
