"""Mistakes in the order of weights and channels, and filters of another model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from karat24.golden.attribution.hypothesis import Cut, Hypothesis
from karat24.golden.attribution.suspect import Suspect, with_data
from karat24.refimpl.graph import Array, Graph, LayerView

MOST_PAIRS = 128
"""Most pairs of input channels that are tried."""


def _filter(suspect: Suspect) -> Array | None:
    weighted = suspect.weighted
    if weighted is None or len(suspect.view.inputs) <= weighted.filter:
        return None
    return suspect.view.input(weighted.filter).data


def channels_swapped(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """Two output channels' weights, or whole channels, or two input channels, are in each other's place."""
    weighted, data = suspect.weighted, _filter(suspect)
    if weighted is None or data is None:
        return
    if len(suspect.differing_channels) == 2:
        pair = list(suspect.differing_channels)
        moved = np.array(np.moveaxis(data, weighted.out_axis, 0))
        moved[pair] = moved[pair[::-1]]
        changed = with_data(suspect.view, weighted.filter, np.moveaxis(moved, 0, weighted.out_axis))
        yield Hypothesis(f"the weights of output channels {pair[0]} and {pair[1]}", changed)
        outputs = np.array(np.moveaxis(suspect.own.outputs[0], weighted.channel_axis, 0))
        outputs[pair] = outputs[pair[::-1]]
        whole = np.ascontiguousarray(np.moveaxis(outputs, 0, weighted.channel_axis))
        yield Hypothesis(f"output channels {pair[0]} and {pair[1]} as a whole", outputs=(whole,))
    axis = weighted.in_axis
    if axis is None:
        return
    pairs = list(combinations(range(data.shape[axis]), 2))
    for first, second in pairs[:MOST_PAIRS]:
        order = np.arange(data.shape[axis])
        order[[first, second]] = second, first
        changed = with_data(suspect.view, weighted.filter, np.take(data, order, axis))
        yield Hypothesis(f"input channels {first} and {second}", changed)
    if len(pairs) > MOST_PAIRS:
        yield Cut(f"{MOST_PAIRS} of {len(pairs)} pairs of input channels were tried")


def transposed(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """Two axes of the filter change places, or its values were taken in another order of axes."""
    weighted, data = suspect.weighted, _filter(suspect)
    if weighted is None or data is None:
        return
    if weighted.taps and data.shape[weighted.taps[0]] == data.shape[weighted.taps[1]] > 1:
        changed = with_data(suspect.view, weighted.filter, np.swapaxes(data, *weighted.taps))
        yield Hypothesis("y and x of the filter", changed)
    if weighted.in_axis is None:
        return
    if data.shape[weighted.out_axis] == data.shape[weighted.in_axis] > 1:
        changed = with_data(
            suspect.view, weighted.filter, np.swapaxes(data, weighted.out_axis, weighted.in_axis)
        )
        yield Hypothesis("input and output channels of the filter", changed)
    if weighted.out_axis == 0:
        order = np.moveaxis(data, 0, -1)
        stored = np.moveaxis(data.reshape(order.shape), -1, 0)
        yield Hypothesis(
            "the filter's values taken as if the output channel came last",
            with_data(suspect.view, weighted.filter, stored),
        )
    if weighted.in_axis == 1 and weighted.taps:
        order = np.moveaxis(data, 1, -1)
        stored = np.moveaxis(data.reshape(order.shape), -1, 1)
        yield Hypothesis(
            "the filter's values taken as if the input channel came last",
            with_data(suspect.view, weighted.filter, stored),
        )


def flipped(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """The taps run backwards: a convolution in place of a correlation, or the reverse."""
    weighted, data = suspect.weighted, _filter(suspect)
    if weighted is None or data is None or not weighted.taps:
        return
    y, x = weighted.taps
    for axes, place in (((y, x), "in y and x"), ((y,), "in y"), ((x,), "in x")):
        if all(data.shape[axis] > 1 for axis in axes):
            yield Hypothesis(place, with_data(suspect.view, weighted.filter, np.flip(data, axes)))


def of_another_model(suspect: Suspect, others: Sequence[tuple[str, Graph]]) -> Iterator[Hypothesis | Cut]:
    """The layer as another version of the model has it: constants, quantization and attributes."""
    own = suspect.view
    for name, graph in others:
        for view in graph.views():
            if view.op == own.op and _shapes(view) == _shapes(own):
                changed = replace(own, layer=replace(own.layer, attributes=view.layer.attributes))
                changed = replace(changed, inputs=view.inputs, outputs=view.outputs)
                yield Hypothesis(f"{view} of {name}", changed)


def _shapes(view: LayerView) -> list[tuple[int, ...] | None]:
    return [None if tensor is None else tensor.shape for tensor in (*view.inputs, *view.outputs)]
