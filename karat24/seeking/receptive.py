"""Receptive fields: how much of the input an element of each layer depends on."""

from __future__ import annotations

import math

from karat24.refimpl.graph import Graph, LayerView
from karat24.refimpl.staircase.requantization import ACCUMULATING

POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "MaxPool", "com.microsoft:QLinearAveragePool")


def height_of(graph: Graph, shape: tuple[int, ...]) -> int:
    """Rows of an image's shape; 0 of other shapes."""
    return (shape[1] if graph.format == "tflite" else shape[2]) if len(shape) == 4 else 0


def receptive_fields(graph: Graph) -> dict[int, float]:
    """For each layer the height, in rows of the first input, of what one element of its output depends on.

    Infinite where that is the whole input, or is not known.
    """
    rows = height_of(graph, graph.tensors[graph.inputs[0]].shape)
    of_tensor: dict[int, float] = dict.fromkeys(graph.inputs, 1.0)
    found = {}
    for view in graph.views():
        data = [t for t in view.inputs if t is not None and not t.is_constant]
        own = max((of_tensor.get(t.index, math.inf) for t in data), default=math.inf)
        height = height_of(graph, view.output().shape) if view.outputs else 0
        from_height = max((height_of(graph, t.shape) for t in data), default=0)
        taps = _taps(view, graph.format == "tflite")
        if not (rows and height and from_height) or (taps == 1 and height < from_height):
            own = math.inf
        else:
            own += (taps - 1 + 2 * (height > from_height)) * rows / from_height
        found[view.layer.index] = own
        of_tensor.update(dict.fromkeys(view.layer.outputs, own))
    return found


def _taps(view: LayerView, last: bool) -> int:
    """Rows of the input that one row of the output is made of, dilation included."""
    if view.op in POOLS:
        return view.integer("filter_height", 1) if last else (view.integers("kernel_shape", (1,)))[0]
    if view.op not in ACCUMULATING:
        return 1
    shape = view.input(ACCUMULATING[view.op].filter).shape
    dilation = view.integer("dilation_h_factor", 1) if last else view.integers("dilations", (1,))[0]
    return ((shape[1] if last else shape[2]) - 1) * dilation + 1 if len(shape) == 4 else 1
