"""Builds a case of one layer from arrays and descriptions of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, AttributeValue, Quantization
from tests.cases.case import Case


@dataclass(frozen=True)
class Feed:
    """An input fed at run time, quantized when ``scale`` is given."""

    values: Array
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class Constant:
    """An input stored in the model, quantized when ``scale`` is given."""

    values: Array
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class State:
    """A variable, which keeps its values from run to run."""

    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class Result:
    """An output."""

    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0


def _quantization(what: Feed | Constant | State | Result) -> Quantization | None:
    return None if what.scale is None else Quantization.per_tensor(what.scale, what.zero_point)


def single_layer(
    name: str,
    edge: str,
    op: str,
    inputs: Sequence[Feed | Constant | State | None],
    results: Sequence[Result],
    version: int | None = None,
    intermediates: Sequence[Constant] = (),
    broken_in: Mapping[str, str] | None = None,
    **attributes: AttributeValue,
) -> Case:
    """A case of one ``op`` layer, in the lowest version that expresses it.

    ``version`` overrides that: LiteRT's reference resolver lists fewer versions of some
    ops than its kernels, which never look at the version, can run.
    """
    builder = GraphBuilder()
    indices, feeds = [], []
    for position, given in enumerate(inputs):
        if isinstance(given, Feed):
            feeds.append(np.asarray(given.values))
            indices.append(
                builder.input(
                    f"in{position}", given.values.shape, given.values.dtype.name, _quantization(given)
                )
            )
        elif isinstance(given, State):
            indices.append(builder.variable(f"in{position}", given.shape, given.dtype, _quantization(given)))
        elif given is None:
            indices.append(-1)
        else:
            indices.append(builder.constant(f"in{position}", given.values, _quantization(given)))
    outputs = [
        builder.tensor(f"out{position}", result.shape, result.dtype, _quantization(result))
        for position, result in enumerate(results)
    ]
    inside = tuple(
        builder.constant(f"inside{position}", given.values, _quantization(given))
        for position, given in enumerate(intermediates)
    )
    builder.layer(op, indices, outputs, version=version or 1, **attributes)
    graph = builder.build(outputs)
    graph = replace(graph, layers=(replace(graph.layers[0], intermediates=inside),))
    return Case(name, graph if version else with_lowest_versions(graph), tuple(feeds), edge, broken_in or {})


def ramp(shape: Sequence[int], dtype: str, start: int = 0, step: int = 7) -> Array:
    """Every value of an 8-bit type in turn (``step`` is odd), so neighbours differ and extremes occur."""
    count = int(np.prod(shape, dtype=np.int64))
    low = -128 if dtype == "int8" else 0
    return ((start + step * np.arange(count)) % 256 + low).astype(dtype).reshape(shape)


def noise(shape: Sequence[int], dtype: str, seed: int) -> Array:
    """Uniform over the whole 8-bit type."""
    low = -128 if dtype == "int8" else 0
    return np.random.default_rng(seed).integers(low, low + 256, shape).astype(dtype)


def indices(*values: int, dtype: str = "int32") -> Constant:
    """A constant list of integers."""
    return Constant(np.array(values, dtype))
