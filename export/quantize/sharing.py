"""Which tensors must have the same quantization parameters.

A max-pool or a bilinear resize gives values in the parameters of its input, and the inputs of a
concatenation must have those of its output, or the runtime would have to requantize. Tensors bound so
form a group, through whole chains of such layers; a group has one range.
"""

from __future__ import annotations

from collections.abc import Mapping

from karat24.export.quantize.affine import Range
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Graph, LayerView

KEEPING = frozenset({"MAX_POOL_2D", "RESIZE_BILINEAR"})
"""Ops whose output keeps the parameters of input 0."""

SHARING = frozenset({"CONCATENATION"})
"""Ops whose inputs all share the output's parameters."""


def bound_tensors(view: LayerView) -> tuple[int, ...]:
    """Indices of the layer's tensors that must share parameters; none for an op that computes."""
    if view.op in KEEPING:
        return view.input(0).index, view.output().index
    if view.op in SHARING:
        return *(view.input(i).index for i in range(len(view.inputs))), view.output().index
    return ()


def share_ranges(graph: Graph, ranges: Mapping[int, Range]) -> dict[int, Range]:
    """One range per activation, the same for all tensors of a group.

    A group's range is the hull of the ranges of the tensors computed into it; tensors that only move or
    mix values of the group (a pool's output, a concatenation) add nothing. Raises ModelError for an
    activation without a range.
    """
    group_of, moved = _groups(graph)
    group_range: dict[int, Range] = {}
    for index, group in group_of.items():
        if index in moved:
            continue
        if index not in ranges:
            raise ModelError(f"no range for {graph.label(index)}: it was not calibrated")
        group_range[group] = ranges[index].hull(group_range.get(group, ranges[index]))
    return {index: group_range[group] for index, group in group_of.items()}


def spread_ranges(graph: Graph, named: Mapping[str, Range]) -> dict[int, Range]:
    """A range for every activation, from ranges of some by name: each group has that of its members named,
    or the hull of several. Raises ModelError for a name that is not an activation, or a group without one."""
    group_of, _ = _groups(graph)
    by_name = {graph.tensors[index].name: index for index in group_of}
    group_range: dict[int, Range] = {}
    for name, values in named.items():
        if name not in by_name:
            raise ModelError(f"graph {graph.name!r} has no activation {name!r}, for which a range is given")
        group = group_of[by_name[name]]
        group_range[group] = values.hull(group_range.get(group, values))
    for index, group in group_of.items():
        if group not in group_range:
            raise ModelError(
                f"no range for {graph.label(index)}, nor for a tensor that shares its parameters"
            )
    return {index: group_range[group] for index, group in group_of.items()}


def _groups(graph: Graph) -> tuple[dict[int, int], set[int]]:
    """Each activation's group, and the activations whose values are moved or mixed, not computed."""
    leader = {tensor.index: tensor.index for tensor in graph.tensors if not tensor.is_constant}

    def lead(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    moved: set[int] = set()
    for view in graph.views():
        bound = bound_tensors(view)
        for index in bound:
            if index not in leader:
                raise ModelError(f"{view} reads the constant {graph.label(index)}, which cannot be quantized")
            leader[lead(index)] = lead(view.output().index)
            moved.add(view.output().index)
    return {index: lead(index) for index in leader}, moved
