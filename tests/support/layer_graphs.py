"""Graphs of one layer, written in a line or two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, AttributeValue, Graph, Quantization

Named = Iterator[tuple[str, Graph]]


@dataclass(frozen=True)
class Value:
    """A tensor some layer or the caller gives."""

    shape: Sequence[int]
    dtype: str
    quantization: Quantization | None = None


def q8(
    shape: Sequence[int], dtype: str, scale: float = 0.1, zero_point: int | None = None, axis: int = 0
) -> Value:
    middle = {"int8": 3, "uint8": 130}.get(dtype, 0) if zero_point is None else zero_point
    return Value(shape, dtype, Quantization((float(np.float32(scale)),), (middle,), axis))


@dataclass(frozen=True)
class Constant:
    """A tensor the file stores."""

    values: Array
    quantization: Quantization | None = None


def ints(*values: int, dtype: str = "int32") -> Constant:
    return Constant(np.array(values, dtype))


def layer(
    op: str,
    inputs: Sequence[Value | Constant | None],
    *outputs: Value,
    version: int = 1,
    **attributes: AttributeValue,
) -> Graph:
    """A graph of one layer; None leaves an optional input out."""
    b = GraphBuilder(op)
    indices = []
    for position, tensor in enumerate(inputs):
        if tensor is None:
            indices.append(-1)
        elif isinstance(tensor, Constant):
            indices.append(b.constant(f"constant{position}", tensor.values, tensor.quantization))
        else:
            indices.append(b.input(f"input{position}", tensor.shape, tensor.dtype, tensor.quantization))
    results = [b.tensor(f"output{i}", o.shape, o.dtype, o.quantization) for i, o in enumerate(outputs)]
    b.layer(op, indices, results, version, **attributes)
    return b.build(results)


def filled(shape: Sequence[int], dtype: str) -> Array:
    low, high = (-100, 100) if dtype == "int8" else (0, 200)
    return np.random.default_rng(7).integers(low, high, tuple(shape)).astype(dtype)
