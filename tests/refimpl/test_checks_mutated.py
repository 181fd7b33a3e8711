"""What a check lets through, its spec can run: sound layers are damaged at random, one place at a time.

Kernels index memory on the strength of these checks, so an output must have exactly the
shape and type the file says, and nothing but a KaratError may come out of a damaged layer.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any

import numpy as np
import pytest

from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import DTYPES, Graph, Layer, LayerView, Quantization, Tensor
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Rule
from tests.cases import (
    activations,
    copies,
    detections,
    elementwise,
    glue,
    hybrid,
    hybrid_products,
    lstm,
    matrices,
    pooling,
    quantization,
    quotients,
    recurrent,
    resize_bilinear,
    slicing,
    sums,
    tables,
    unary,
)
from tests.cases.case import Case

MODULES = (
    activations, copies, detections, elementwise, glue, hybrid, hybrid_products, lstm, matrices, pooling,
    quantization, quotients, recurrent, resize_bilinear, slicing, sums, tables, unary,
)  # fmt: skip
PER_OP = 200
SMALL = 40_000
"""Elements: damaged layers with larger tensors are only checked."""

NUMBERS = (-(2**31), -300, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 16, 300, 2**24, 2**31 - 1)
SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 33, 2**20, 2**30)


@cache
def _cases() -> dict[str, list[Case]]:
    """Cases by op, at most 40 of each."""
    by_op: dict[str, list[Case]] = {}
    for module in MODULES:
        for case in module.cases():
            by_op.setdefault(case.graph.layers[0].op, []).append(case)
    return {op: cases[:: math.ceil(len(cases) / 40)] for op, cases in sorted(by_op.items())}


def _other_attribute(layer: Layer, rng: np.random.Generator) -> Layer:
    names = sorted(layer.attributes)
    if not names:
        return layer
    name = names[rng.integers(len(names))]
    old = layer.attributes[name]
    choices: dict[type, Any] = {
        bool: [not old, 1],
        int: [*NUMBERS, "x"],
        float: [-1.0, 0.0, 1e-30, 1e30, math.inf, math.nan],
        str: ["SAME", "VALID", "NONE", "RELU6", "TANH", "int64", "int32", "", "REFLECT"],
        bytes: [b"", bytes(old)[1:], bytes(old)[:-4]] if isinstance(old, bytes) else [],
        tuple: [(), (0,), (-1,), (0, 0), (9,), (-1, -1), (2, 3, 4)],
    }
    options = choices[type(old)]
    return dataclasses.replace(
        layer, attributes={**layer.attributes, name: options[rng.integers(len(options))]}
    )


def _other_wiring(layer: Layer, rng: np.random.Generator) -> Layer:
    inputs, kind = list(layer.inputs), rng.integers(5)
    if kind == 0 and inputs:
        del inputs[rng.integers(len(inputs))]
    elif kind == 1 and inputs:
        inputs.append(inputs[rng.integers(len(inputs))])
    elif kind == 2 and inputs:
        inputs[rng.integers(len(inputs))] = -1
    elif kind == 3:
        return dataclasses.replace(layer, outputs=layer.outputs[:-1])
    else:
        inputs.reverse()
    return dataclasses.replace(layer, inputs=tuple(inputs))


def _other_tensor(tensor: Tensor, rng: np.random.Generator) -> Tensor:
    """Another size, rank, element type or quantization, other constant values, or none."""
    kind = rng.integers(6)
    data, shape, dtype, quantization = tensor.data, list(tensor.shape), tensor.dtype, tensor.quantization
    if kind == 0 and shape:
        shape[rng.integers(len(shape))] = int(SIZES[rng.integers(len(SIZES))])
    elif kind == 1:
        shape = shape[:-1] if shape and rng.integers(2) else [*shape, 1]
    elif kind == 2:
        dtype = sorted(DTYPES)[rng.integers(len(DTYPES))]
    elif kind == 3:
        scales = (1e-38, 1e-7, 0.003, 1 / 256, 0.5, 1.0, 3e38)
        zero_point = int(rng.integers(-128, 256))
        choice = rng.integers(len(scales) + 2)
        if choice >= len(scales):
            quantization = None if choice == len(scales) else Quantization((0.5, 0.25), (0, 0), 0)
        else:
            quantization = Quantization.per_tensor(scales[choice], zero_point)
    elif kind == 4 and data is not None and data.size and data.dtype.kind == "i":
        data = data.copy()
        limits = np.iinfo(data.dtype)
        data.reshape(-1)[rng.integers(data.size)] = np.clip(
            NUMBERS[rng.integers(len(NUMBERS))], limits.min, limits.max
        )
    else:
        data = None
    if data is not None and (tuple(shape) != tensor.shape or dtype != tensor.dtype):
        fits = math.prod(shape) <= SMALL
        data = np.resize(data, shape).astype(DTYPES.get(dtype, np.uint8)) if fits else None
    return dataclasses.replace(tensor, shape=tuple(shape), dtype=dtype, quantization=quantization, data=data)


def _damaged(graph: Graph, rng: np.random.Generator) -> Graph:
    layer, tensors = graph.layers[0], list(graph.tensors)
    kind = rng.integers(5)
    if kind == 0:
        layer = _other_attribute(layer, rng)
    elif kind == 1:
        layer = _other_wiring(layer, rng)
    else:
        position = rng.integers(len(tensors))
        tensors[position] = _other_tensor(tensors[position], rng)
    fed = tuple(t.index for t in tensors if t.data is None and t.index not in layer.outputs)
    return Graph(tuple(tensors), (layer,), fed, layer.outputs)


def _values(view: LayerView, rng: np.random.Generator) -> list[np.ndarray | None]:
    def value(tensor: Tensor | None) -> np.ndarray | None:
        if tensor is None or tensor.data is not None:
            return None if tensor is None else tensor.data
        return rng.integers(0, 3, tensor.shape).astype(DTYPES.get(tensor.dtype, np.uint8))

    return [value(tensor) for tensor in view.inputs]


def _run(view: LayerView, rng: np.random.Generator) -> None:
    """Every step a program takes; whatever passes must give what the file promises."""
    op = OPS[view.op]
    op.check(view)
    tensors = [t for t in (*view.inputs, *view.outputs) if t is not None]
    rules: set[Rule] = set()
    for profile in PROFILES.values():
        if profile.format == "tflite":
            try:
                rules.add(profile.rule(view))
            except KaratError:
                continue
    if sum(math.prod(t.shape) for t in tensors) > SMALL:
        return
    for rule in sorted(rules, key=str):
        outputs = op.spec(view, _values(view, rng), rule).outputs
        assert [(o.shape, o.dtype.name) for o in outputs] == [(t.shape, t.dtype) for t in view.outputs]


@pytest.mark.parametrize("op", sorted(_cases()))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_layers_are_refused_or_run(op: str) -> None:
    rng = np.random.default_rng(len(op))
    cases, refused = _cases()[op], 0
    for attempt in range(PER_OP):
        try:
            _run(_damaged(cases[attempt % len(cases)].graph, rng).view(0), rng)
        except KaratError:
            refused += 1
    assert 0 < refused < PER_OP, "every damage was refused, or none: the damage is of no use"


def test_every_op_is_damaged() -> None:
    """TFLite's ops, which are upper case. Those with filters are damaged as whole files, too."""
    judged_elsewhere = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
    assert {op for op in OPS if op == op.upper()} - judged_elsewhere <= set(_cases())
