"""Damaged float layers: nothing but a KaratError comes out, or an interval of the output's shape."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from karat24.refimpl.bounds import BOUNDS, bound_for
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import LayerView
from tests.cases.float_layers import FloatLayer, float_layers
from tests.refimpl.test_checks_mutated import SMALL, _damaged, _values

DAMAGES = 150


def _layers() -> dict[str, list[FloatLayer]]:
    by_op: dict[str, list[FloatLayer]] = {}
    for layer in float_layers("damaged"):
        by_op.setdefault(layer.graph.layers[0].op, []).append(layer)
    return by_op


LAYERS = _layers()


def _bound(view: LayerView, rng: np.random.Generator) -> None:
    interval = bound_for(view)
    tensors = [tensor for tensor in (*view.inputs, *view.outputs) if tensor is not None]
    if sum(math.prod(tensor.shape) for tensor in tensors) <= SMALL:
        found = interval(_values(view, rng))
        output = view.output()
        assert (found.low.shape, found.low.dtype.name) == (output.shape, output.dtype)
        assert found.high.shape == output.shape


@pytest.mark.parametrize("op", sorted(BOUNDS))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_layers_are_refused_or_bounded(op: str) -> None:
    rng = np.random.default_rng(len(op))
    small = [
        layer.graph
        for layer in LAYERS[op]
        if sum(math.prod(tensor.shape) for tensor in layer.graph.tensors) <= SMALL
    ]
    refused = 0
    for attempt in range(DAMAGES):
        graph = small[attempt % len(small)]
        attributes = {name: value for name, value in graph.layers[0].attributes.items() if value is not None}
        sound = dataclasses.replace(graph.layers[0], attributes=attributes)
        try:
            _bound(_damaged(dataclasses.replace(graph, layers=(sound,)), rng).view(0), rng)
        except KaratError:
            refused += 1
    assert 0 < refused < DAMAGES, "every damage was refused, or none: the damage is of no use"
