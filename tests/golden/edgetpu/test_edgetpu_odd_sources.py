"""Sources at random, malformed in every way a graph may be: the proof judges each or refuses it, and proves
no layer that was changed into another op."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import numpy as np

from karat24.export.edgetpu import read_compiled
from karat24.export.edgetpu.check import check_graph
from karat24.golden.edgetpu import lines, prove
from karat24.golden.edgetpu.consistency import FIXED_OUTPUT, SAME_NUMBERS
from karat24.golden.edgetpu.expected import STAGES, UNDESCRIBED
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import DTYPES, Graph, Layer, Quantization, Tensor
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_standin import compiled

DRAWS = 600
OPS = sorted({*STAGES, *UNDESCRIBED, *SAME_NUMBERS, *FIXED_OUTPUT, "SUB", "PRELU", "RELU", "CUSTOM:own"})
SHAPES = ((), (0,), (1,), (5,), (1, 4, 4), (1, 0, 4, 6), (2, 2, 2, 2, 2), (1, 1, 1, 70))
NUMBERS = (
    None,
    Quantization.per_tensor(1e-38, 3),
    Quantization.per_tensor(3e38, -3),
    Quantization((0.5, 0.25), (0, 0), 3),
    Quantization((0.5,) * 5, (0,) * 5),
)
ATTRIBUTES = ({}, {"padding": 3}, {"fused_activation_function": "SIGN_BIT"}, {"filter_height": 0, "axis": 99})


def odd_tensor(rng: random.Random, tensor: Tensor) -> Tensor:
    kind = rng.choice(("shape", "type", "numbers"))
    if kind == "numbers":
        return replace(tensor, quantization=rng.choice(NUMBERS))
    shape = rng.choice(SHAPES) if kind == "shape" else tensor.shape
    dtype = rng.choice(("float32", "int16", "int32", "uint8")) if kind == "type" else tensor.dtype
    data = None if tensor.data is None else np.resize(tensor.data, shape).astype(DTYPES[dtype])
    return replace(tensor, shape=shape, dtype=dtype, data=data, quantization=rng.choice(NUMBERS))


def odd_layer(rng: random.Random, layer: Layer) -> Layer:
    kind = rng.choice(("op", "fewer", "left out", "twice", "attributes"))
    inputs = list(layer.inputs)
    if kind == "op" or not inputs:
        return replace(layer, op=rng.choice(OPS))
    if kind == "attributes":
        return replace(layer, attributes=rng.choice(ATTRIBUTES))
    if kind == "fewer":
        inputs = inputs[: rng.randrange(len(inputs))]
    elif kind == "left out":
        inputs[rng.randrange(len(inputs))] = -1
    else:
        inputs = [rng.choice(inputs) for _ in inputs]
    return replace(layer, inputs=tuple(inputs))


def odd(rng: random.Random, graph: Graph) -> Graph:
    """The graph with one to three things changed. Raises ModelError where it is no graph any more."""
    tensors, layers = list(graph.tensors), list(graph.layers)
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            place = rng.randrange(len(tensors))
            tensors[place] = odd_tensor(rng, tensors[place])
        else:
            place = rng.randrange(len(layers))
            layers[place] = odd_layer(rng, layers[place])
    return replace(graph, tensors=tuple(tensors), layers=tuple(layers), signatures=())


def test_odd_sources_are_judged_or_refused() -> None:
    rng = random.Random(20)
    whole = chain(channels=(6, 5, 10))
    model = read_compiled(compiled(whole))
    outcomes: Counter[str] = Counter()
    for _ in range(DRAWS):
        try:
            source = odd(rng, whole)
        except ModelError:
            continue
        proof = prove(source, [model])
        assert list(lines(proof))
        assert proof.as_dict()["layers"]
        outcomes[proof.verdict] += 1
        for layer in proof.layers:
            assert layer.verdict != "proved" or layer.op == whole.layers[layer.layer].op, source.layers
        with suppress(ModelError):
            check_graph(source)
    assert outcomes["differs"] > DRAWS // 4
    assert outcomes["not_provable"] > DRAWS // 20
