"""Remarks on ONNX files: what a user should know although it is not an error."""

from __future__ import annotations

from typing import NamedTuple

from karat24.refimpl.graph import Graph, LayerView

PER_AXIS = frozenset({"DequantizeLinear", "QuantizeLinear"})


class Remark(NamedTuple):
    """A layer of the graph read, and a sentence about it that names it."""

    layer: int
    text: str


def remarks_on(graph: Graph) -> list[Remark]:
    """Scales per channel without an ``axis``, where more than one axis would fit.

    ONNX then takes axis 1. Axis 1 of a square filter OIHW is the input channel, which is hardly what the
    author meant; yet the model runs everywhere.
    """
    return [
        Remark(view.layer.index, text)
        for view in graph.views()
        if view.op in PER_AXIS and (text := _axis_left_out(view))
    ]


def _axis_left_out(view: LayerView) -> str:
    count, shape = view.input(1).shape, view.input(0).shape
    if "axis" in view.layer.attributes or len(count) != 1 or count == (1,):
        return ""
    fitting = [axis for axis, size in enumerate(shape) if (size,) == count]
    if len(fitting) < 2 or 1 not in fitting:
        return ""
    others = " and ".join(str(axis) for axis in fitting if axis != 1)
    return (
        f"{view} has {count[0]} scales and no axis, so they belong to axis 1 of {shape}; axis {others} would "
        "fit as well: write the attribute if another one is meant"
    )
