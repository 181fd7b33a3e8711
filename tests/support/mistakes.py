"""Mistakes put into a layer without the code that looks for them, and the judgement of such a run's dump.

The layer of a changed graph runs, or NumPy computes what a faulty kernel would; the other layers go on with
the wrong values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from karat24.export.cut import single_layer
from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.golden.recordings.judge import verify_recorded
from karat24.golden.report import LayerVerdict, Report
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.graph import Array, Graph, LayerView, Quantization
from karat24.refimpl.spec.tflite.weights import finish
from tests.support.int8_networks import NETWORKS

PROFILE = "litert-2.3-ref"


@dataclass(frozen=True)
class Run:
    """A network, its model file, and one sound run of it."""

    graph: Graph
    model: bytes
    program: Program
    feeds: dict[int, Array]
    tensors: dict[int, Array]


def sound_run(graph: Graph, model: bytes, profile: str, seed: int) -> Run:
    program = compile_graph(graph, profile, 1)
    feeds = random_feeds(graph, seed)
    trace = program.run(feeds, trace=True).trace
    assert trace is not None
    return Run(graph, model, program, feeds, dict(trace.tensors))


def assert_sound_runs_have_no_cause(run: Run, profile: str, seeds: range) -> None:
    """All values of a run on inputs of its own are recorded, a run for each seed."""
    for seed in seeds:
        feeds = random_feeds(run.graph, seed)
        trace = run.program.run(feeds, trace=True).trace
        assert trace is not None
        report = verify_recorded(run.model, run.graph, dict(trace.tensors), feeds, profile=profile, threads=1)
        assert report.verdict == "bit_exact"
        assert all(verdict.attribution is None and not verdict.reason for verdict in report.layers)


@cache
def sound(name: str, ties: bool = False) -> Run:
    graph = NETWORKS[name](ties=ties)
    return sound_run(graph, write_tflite(graph), PROFILE, 5)


Mistake = Callable[[Graph, LayerView, list[Array]], Array]
"""A network, a layer of it and that layer's inputs, constants included, to a faulty runtime's output."""


def changed(change: Callable[[Graph], Graph]) -> Mistake:
    """The layer of a changed graph, which consists of it alone."""

    def run(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        alone = change(single_layer(graph, view.layer.index).graph)
        program = compile_graph(alone, PROFILE, 1, "spec")
        given = [value for value, t in zip(inputs, view.inputs, strict=True) if t and not t.is_constant]
        return program.run(given).outputs[0]

    return run


def tensor(graph: Graph, index: int, **changes: Any) -> Graph:
    tensors = list(graph.tensors)
    tensors[index] = replace(tensors[index], **changes)
    return replace(graph, tensors=tuple(tensors))


def quantized(role: int | str, scale: Callable[[float], float], zero_point: int = 0) -> Mistake:
    """Another scale, and a zero point that is so much off, for input ``role`` or the output."""

    def change(graph: Graph) -> Graph:
        index = graph.layers[0].outputs[0] if role == "output" else graph.layers[0].inputs[int(role)]
        old = graph.tensors[index].quantization
        assert old is not None
        scales = tuple(float(np.float32(scale(value))) for value in old.scale)
        points = tuple(value + zero_point for value in old.zero_point)
        return tensor(graph, index, quantization=Quantization(scales, points, old.axis))

    return changed(change)


def next_above(value: float) -> float:
    """The next float32."""
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


def constant(position: int, change: Callable[[Array], Array]) -> Mistake:
    """Other values in the constant at ``position``."""

    def changed_graph(graph: Graph) -> Graph:
        index = graph.layers[0].inputs[position]
        data = graph.tensors[index].data
        assert data is not None
        return tensor(graph, index, data=np.ascontiguousarray(change(np.array(data))))

    return changed(changed_graph)


def entry(index: tuple[int, ...], change: Callable[[Any], Any]) -> Callable[[Array], Array]:
    def run(data: Array) -> Array:
        data[index] = change(data[index])
        return data

    return run


def attribute(**changes: Any) -> Mistake:
    def change(graph: Graph) -> Graph:
        layer = graph.layers[0]
        return replace(graph, layers=(replace(layer, attributes={**layer.attributes, **changes}),))

    return changed(change)


def swapped(first: int, second: int, axis: int) -> Callable[[Array], Array]:
    def run(data: Array) -> Array:
        order = np.arange(data.shape[axis])
        order[[first, second]] = second, first
        return np.take(data, order, axis)

    return run


def products(
    view: LayerView, inputs: list[Array], border: int, shift: tuple[int, int], weights: int
) -> Array:
    """The terms of every sum of a 3x3 layer with SAME padding and stride 1: ``[y, x, channel, term]``.

    ``border`` is what the border holds, zero point removed; windows lie ``shift`` further; every weight is
    larger by ``weights``.
    """
    data = inputs[0][0].astype(np.int64) - view.input(0).zero_point
    padded = np.pad(data, ((2, 2), (2, 2), (0, 0)), constant_values=border)
    height, width, _ = data.shape
    filter_, terms = inputs[1].astype(np.int64) + weights, []
    for y in range(3):
        for x in range(3):
            top, left = 1 + y + shift[0], 1 + x + shift[1]
            seen = padded[top : top + height, left : left + width]
            if view.op == "CONV_2D":
                terms.append(seen[:, :, None, :] * filter_[:, y, x, :])
            else:
                terms.append((seen * filter_[0, y, x])[..., None])
    return np.concatenate(terms, axis=-1)


def summed(
    total: Callable[[Array], Array] = lambda terms: terms.sum(axis=-1),
    border: Callable[[int], int] = lambda zero_point: 0,
    shift: tuple[int, int] = (0, 0),
    over_bias: bool = False,
    weights: int = 0,
) -> Mistake:
    """What a kernel gives that adds its products otherwise."""

    def run(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        terms = products(view, inputs, border(view.input(0).zero_point), shift, weights)
        sums = total(terms + 0)
        if over_bias:
            sums = np.clip(sums + inputs[2], -(2**15), 2**15 - 1) - inputs[2]
        rule = compile_graph(graph, PROFILE, 1, "spec").steps[view.layer.index].rule
        return finish(view, view.input(0), view.input(1), sums[None], inputs[2], rule).outputs[0]

    return run


def step_by_step(terms: Array) -> Array:
    total = np.zeros(terms.shape[:-1], np.int64)
    for place in range(terms.shape[-1]):
        total = np.clip(total + terms[..., place], -(2**15), 2**15 - 1)
    return total


def judged(name: str, layer: int, mistake: Mistake, ties: bool = False) -> Report:
    run = sound(name, ties)
    view = run.graph.view(layer)
    inputs = [run.tensors[t.index] if t.data is None else t.data for t in view.inputs if t is not None]
    wrong = mistake(run.graph, view, inputs)
    trace = run.program.run(run.feeds, trace=True, given={view.output().index: wrong}).trace
    assert trace is not None
    return verify_recorded(run.model, run.graph, dict(trace.tensors), run.feeds, profile=PROFILE, threads=1)


def causes(verdict: LayerVerdict) -> dict[str, tuple[str, ...]]:
    assert verdict.attribution is not None
    return {cause.kind: cause.places for cause in verdict.attribution.causes}
