"""The models one kind of layer is asked about, and what they are fed, so that rules differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from karat24.delegates.fitting import LIBM_ARGUMENTS, layers_near_ties
from karat24.golden.certify.accumulating import placed_layers
from karat24.golden.certify.certify import Trial
from karat24.golden.certify.tables import table_model
from karat24.golden.establish import onnx_layers, tflite_layers
from karat24.golden.establish.kinds import TABLES, WEIGHTED, Kind
from karat24.refimpl.errors import CannotCompare, KaratError
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Graph, LayerView, Tensor
from karat24.refimpl.profiles import Rule
from karat24.refimpl.staircase import reach, requantization, staircase, table

SEEDS = 6
"""Sets of scales looked through for one on which two rules differ."""

TABLE_SEEDS = 24
"""Sets of scales looked through for tables, which are quick to compute."""

MODELS = 4
"""Models asked about one kind of layer, with scales of their own."""

SHORT_MODELS = 40
"""Models asked about for ops of float32 data in blocks; most of these models have no whole block."""

WIDE = 2**23
"""Accumulators are placed up to here by the models' biases."""

STEPS = 2
"""Thresholds met per model for each two rules that differ there, in each of PARTS."""

PARTS = (slice(0, 16), slice(16, 24), slice(24, None))
"""Channels in whole blocks of 16, of 8 only, and of none."""


def layer_of(kind: Kind, seed: int) -> Graph:
    """A layer of the kind; with each seed on scales of its own."""
    module: Any = tflite_layers if kind.format == "tflite" else onnx_layers
    make: Callable[[Kind, int], Graph] = (
        module.weighted_layer
        if kind in WEIGHTED
        else module.table_layer
        if kind in TABLES
        else module.sampled_layer
    )
    return make(kind, seed)


def trials_of(kind: Kind) -> list[Trial]:
    """Everything asked about one kind."""
    near_ties = []
    if kind.format == "tflite" and kind.op in LIBM_ARGUMENTS:
        question = layers_near_ties((kind.op,))
        near_ties = [Trial(question.graph, question.feeds)]
    if kind.op == "TANH":
        return near_ties
    if kind in WEIGHTED:
        rules = kind.space.plain
        layers = _parting_layers(kind, rules, SEEDS, _steps)
        found = [trial for graph in layers for trial in _placed(graph, rules)]
        return [*found, *map(_drawn, layers), *_clamped(kind), *_shifted_left(kind)]
    if kind in TABLES:
        layers = _parting_layers(kind, kind.space.plain, TABLE_SEEDS, _tables)
        layers += [trial.graph for trial in _clamped(kind)]
        return [*near_ties, *(trial for graph in layers for trial in _whole_table(graph))]
    models = SHORT_MODELS if kind.form == "from float" else MODELS
    return [*near_ties, *(_drawn(layer_of(kind, seed)) for seed in range(models))]


def _clamped(kind: Kind) -> Iterator[Trial]:
    """A layer whose fused activation's bound is a tie, for ops of .tflite files that have one."""
    if kind in WEIGHTED and kind.format == "tflite":
        yield _drawn(tflite_layers.weighted_layer(kind, 0, clamped=True))
    elif kind.op in ("ADD", "SUB", "MUL", "RELU6") and kind.form != "same scale":
        yield _drawn(tflite_layers.table_layer(kind, 0, clamped=True))


def _shifted_left(kind: Kind) -> Iterator[Trial]:
    """Sums that a shift to the left carries out of int32: gemmlowp's own products of uint8 saturate there."""
    if kind.format == "tflite" and kind.op in ("CONV_2D", "FULLY_CONNECTED") and kind.dtype == "uint8":
        yield _drawn(tflite_layers.weighted_layer(kind, 0, beyond=True))


Described = Callable[[LayerView, Sequence[Rule]], list[Array]]
"""A function that describes a layer under each rule."""


def _parting_layers(kind: Kind, rules: Sequence[Rule], seeds: int, described: Described) -> list[Graph]:
    """Layers that together tell every two rules apart that some layer of ``seeds`` tells apart."""
    pairs = set(itertools.combinations(range(len(rules)), 2))
    found: list[Graph] = []
    for seed in range(seeds):
        graph = layer_of(kind, seed)
        whole = described(graph.view(0), rules)
        parted = {
            (a, b) for a, b in pairs
            if whole[a] is not whole[b] and not np.array_equal(whole[a], whole[b])
        }  # fmt: skip
        if parted or seed < 2:
            found.append(graph)
            pairs -= parted
        if not pairs or len(found) == MODELS:
            break
    return found


def _tables(view: LayerView, rules: Sequence[Rule]) -> list[Array]:
    """What each rule makes of every value or pair; clamps aside, which show in a layer of their own."""
    found: dict[Rule, Array] = {}
    for rule in rules:
        key = replace(rule, clamp="half_away")
        if key in found:
            continue
        try:
            made = table(view, key, key.method)
        except KaratError:  # not defined for these scales
            made = None
        found[key] = np.zeros(0) if made is None else made.outputs
    return [found[replace(rule, clamp="half_away")] for rule in rules]


def _within(view: LayerView) -> tuple[Array, Array]:
    """The accumulators of each channel that models reach: with biases of their own more than the layer."""
    within = reach(view)
    assert within is not None
    if view.op == "QLinearMatMul":
        return within.first, within.last
    return np.full_like(within.first, -WIDE), np.full_like(within.last, WIDE)


def _steps(view: LayerView, rules: Sequence[Rule]) -> list[Array]:
    """Thresholds under each rule without blocks, int64 ``[step, channel]``; one array for one rounding."""
    first, last = _within(view)
    found: dict[tuple[str, str], Array] = {}
    for rule in rules:
        rounding = requantization(view, rule)
        assert rounding is not None
        key = rule.method, rule.multiplier
        if key not in found:
            found[key] = staircase(rounding, rule.method, first, last).thresholds
    return [found[rule.method, rule.multiplier] for rule in rules]


def _placed(graph: Graph, rules: Sequence[Rule]) -> Iterator[Trial]:
    """Models beside the thresholds that not all rules share, and some that they do; every window is once
    the last, where the elements behind the last block lie."""
    view = graph.view(0)
    first, last = _within(view)
    every = np.stack(list({id(steps): steps for steps in _steps(view, rules)}.values()))
    chosen = np.zeros(every.shape[1:], bool)
    chosen[np.linspace(0, every.shape[1] - 1, 3).astype(int)] = True
    for one, other in itertools.combinations(range(len(every)), 2):
        apart = every[one] != every[other]
        for channels in PARTS:
            steps, columns = np.nonzero(apart[:, channels])
            some = np.linspace(0, steps.size - 1, min(STEPS, steps.size)).astype(int)
            chosen[:, channels][steps[some], columns[some]] = True
    thresholds = []
    for channel in range(every.shape[2]):
        steps = np.unique(every[:, chosen[:, channel], channel])
        inside = (steps > first[channel]) & (steps <= last[channel])
        thresholds.append(steps[inside])
    try:
        models = list(placed_layers(graph, 0, thresholds, with_bias=view.op != "QLinearMatMul"))
    except CannotCompare:
        return
    for model in models:
        turns = range(len(model.feed)) if view.op == "TRANSPOSE_CONV" else range(1)
        for turn in turns:
            yield Trial(model.graph, (np.roll(model.feed, turn, axis=0),))


def _whole_table(graph: Graph) -> Iterator[Trial]:
    """The whole table in whole blocks, and behind the last block of 8 and of 16."""
    for tail in (0, 7, 15) if graph.format == "tflite" else (0,):
        model = table_model(graph, 0, tail)
        yield Trial(model.graph, model.feeds)


def _drawn(graph: Graph) -> Trial:
    """The graph on inputs drawn: every byte where there is room, float32 values on and beside ties."""
    rng, view = np.random.default_rng(1), graph.view(0)
    feeds = []
    for tensor in (graph.tensors[index] for index in graph.inputs):
        if tensor.dtype == "float32":
            reals = _reals(rng, tensor, _step(view))
            if view.op == "QUANTIZE" and reals.size > 256:
                reals.reshape(-1)[4] = np.nan
            feeds.append(reals)
            continue
        low, size = QUANTIZED_RANGE[tensor.dtype][0], int(np.prod(tensor.shape))
        cases = np.resize(rng.permutation(256), size) if size >= 256 else rng.integers(0, 256, size)
        feeds.append((low + rng.permutation(cases)).reshape(tensor.shape).astype(DTYPES[tensor.dtype]))
    return Trial(graph, tuple(feeds))


def _step(view: LayerView) -> float:
    """The scale that float32 inputs are quantized with, or 1 / 16."""
    if view.op == "QUANTIZE":
        return view.output().scale
    scale = view.optional_input(1)
    return 1 / 16 if scale is None or scale.data is None else float(scale.data.reshape(-1)[0])


def _reals(rng: np.random.Generator, tensor: Tensor, step: float) -> Array:
    """Half steps and the float32 values next to them, and some far out."""
    size = int(np.prod(tensor.shape))
    halves = (np.float32(step) * (rng.integers(-300, 300, size) + 0.5)).astype(np.float32)
    beside = np.nextafter(halves, np.float32(np.inf) * rng.choice([-1, 1], size).astype(np.float32))
    values = np.where(rng.random(size) < 0.5, halves, beside)
    if size > 256:
        values[:4] = [1e30, -1e30, 0.0, -0.0]
    return values.reshape(tensor.shape).astype(np.float32)
