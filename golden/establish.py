"""Reading off a runtime's arithmetic: which rule of a space of rules gives every value it gives?

For each kind of layer a few models are fed so that the rules of the space part: beside each threshold
that two of them place differently, and with all values or pairs for the ops that are small tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from karat24.delegates.protocol import Delegate
from karat24.export import write_model
from karat24.golden.certify.accumulating import placed_layers
from karat24.golden.certify.certify import Trial
from karat24.golden.certify.tables import table_model
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import DelegateError, KaratError
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, Graph, LayerView, Quantization
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Profile, Rule
from karat24.refimpl.profiles.rules import Method, Multiplier
from karat24.refimpl.profiles.tflite.variants import variant_of
from karat24.refimpl.staircase import reach, requantization, staircase

ROUNDINGS: tuple[Method, ...] = ("gemmlowp", "ruy", "float32_half_even", "float64_half_away")
MULTIPLIERS: tuple[Multiplier, ...] = ("float64", "float32_product", "float32")
SEEDS = 6
"""Sets of scales looked through for one on which two rules part."""

MODELS = 4
"""Models asked about one kind of layer, with scales of their own."""

STEPS = 4
"""Thresholds met per model for each two rules that part there."""


@dataclass(frozen=True)
class Kind:
    """A kind of layer: an op and an element type, and whether its filter has a scale per channel."""

    op: str
    dtype: str
    per_channel: bool = False

    def __str__(self) -> str:
        return f"{self.op} {self.dtype}{' per channel' if self.per_channel else ''}"


WEIGHTED = tuple(
    Kind(op, dtype, per_channel)
    for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
    for dtype, per_channel in (("int8", True), ("int8", False), ("uint8", False))
)
TABLES = tuple(
    Kind(op, dtype)
    for op in ("ADD", "SUB", "MUL", "QUANTIZE", "LEAKY_RELU", "HARD_SWISH", "RELU", "LOGISTIC")
    for dtype in ("int8", "uint8")
)
KINDS = (*WEIGHTED, *TABLES)


@dataclass(frozen=True)
class Finding:
    """What was found for one kind of layer: the rules that give all ``values`` values.

    No rule fits: ``counterexample`` is a value that even the nearest rule does not give. ``refused`` is
    what the runtime says where it runs no such layer.
    """

    kind: Kind
    variant: str
    rules: tuple[Rule, ...] = ()
    values: int = 0
    tried: int = 0
    counterexample: str = ""
    refused: str = ""

    def followed(self) -> list[str]:
        """Profiles whose rule for the kind is one of the rules found."""
        return [
            profile.name
            for profile in PROFILES.values()
            if profile.format == "tflite"
            and not profile.variant_of
            and _rule_of(profile, self.kind) in self.rules
        ]

    def __str__(self) -> str:
        if self.refused:
            return f"{self.kind}: not run: {self.refused}"
        if not self.rules:
            return f"{self.kind}: not in the space of {self.tried} rules: {self.counterexample}"
        names = ", ".join(self.followed()) or "no known profile"
        return f"{self.kind}: {self.rules[0]} ({self.values} values; as {names})"


@dataclass(frozen=True)
class Established:
    """All findings about one runtime."""

    delegate: str
    versions: Mapping[str, str]
    findings: tuple[Finding, ...]

    def nearest(self) -> tuple[str, int]:
        """The known profile that agrees with most kinds of layers, and with how many."""
        names = [p.name for p in PROFILES.values() if p.format == "tflite" and not p.variant_of]
        counts = {name: sum(name in finding.followed() for finding in self.findings) for name in names}
        best = max(counts, key=lambda name: counts[name])
        return best, counts[best]

    def departures(self) -> tuple[Finding, ...]:
        """Kinds that run and do not follow the nearest profile."""
        base, _ = self.nearest()
        return tuple(f for f in self.findings if not f.refused and base not in f.followed())

    @property
    def complete(self) -> bool:
        """Every kind that runs has a rule."""
        return all(finding.rules or finding.refused for finding in self.findings)

    def profile(self, name: str) -> dict[str, Any]:
        """A profile in the form of ``karat24.refimpl.profiles.file``: the nearest one, and what departs."""
        rules: dict[str, dict[str, Any]] = {}
        for finding in self.departures():
            rule = finding.rules[0] if finding.rules else Rule("unspecified")
            rules.setdefault(finding.kind.op, {})[finding.variant] = asdict(rule)
        return {"name": name, "base": self.nearest()[0], "versions": dict(self.versions), "rules": rules}


def establish(delegate: Delegate, kinds: Sequence[Kind] = KINDS) -> Established:
    """Finds the rule of each kind of layer. Raises DelegateUnavailable where there is no runtime."""
    versions = delegate.versions()
    return Established(delegate.name, versions, tuple(_finding(delegate, kind) for kind in kinds))


def _finding(delegate: Delegate, kind: Kind) -> Finding:
    layers = _weighted_layers(kind) if kind in WEIGHTED else [table_layer(kind, n) for n in range(MODELS)]
    variant = variant_of(layers[0].view(0))
    rules = space(kind)
    trials = [
        trial
        for graph in layers
        for trial in (_placed(graph, rules) if kind in WEIGHTED else _whole_table(graph))
    ]
    jobs = [(write_model(trial.graph), list(trial.feeds)) for trial in trials]
    wrong: dict[Rule, tuple[int, str]] = dict.fromkeys(rules, (0, ""))
    values = 0
    for trial, answer in zip(trials, delegate.run_many(jobs), strict=True):
        if isinstance(answer, DelegateError):
            return Finding(kind, variant, refused=str(answer).splitlines()[0])
        for (view, given), found in zip(trial.values(), answer.outputs, strict=True):
            values += found.size
            for rule in rules:
                count, example = _differences(view, given, rule, found)
                before = wrong[rule]
                wrong[rule] = before[0] + count, before[1] or example
    fitting = tuple(rule for rule in rules if wrong[rule][0] == 0)
    nearest = min(rules, key=lambda rule: wrong[rule][0])
    counterexample = "" if fitting else f"{wrong[nearest][0]} of {values} values, nearest {nearest}: "
    return Finding(kind, variant, fitting, values, len(rules), counterexample + wrong[nearest][1])


def _differences(view: LayerView, given: Sequence[Array | None], rule: Rule, found: Array) -> tuple[int, str]:
    try:
        result = OPS[view.op].spec(view, given, rule)
    except KaratError as error:
        return found.size, str(error)
    expected = result.outputs[0]
    differing = expected != found
    if not differing.any():
        return 0, ""
    place = tuple(int(i) for i in np.argwhere(differing)[0])
    of = "" if result.accumulator is None else f"accumulator {int(result.accumulator[place])}: "
    return int(differing.sum()), f"{of}{int(found[place])} where it gives {int(expected[place])}"


def space(kind: Kind) -> list[Rule]:
    """The rules tried: known ones first, then for sums of products every combination of rounding, multiplier
    and blocks."""
    known = [rule for profile in PROFILES.values() if (rule := _rule_of(profile, kind)) is not None]
    built: list[Rule] = []
    if kind in WEIGHTED or kind.op == "MUL":
        for method, multiplier in itertools.product(ROUNDINGS, MULTIPLIERS):
            clamp = "half_even" if method == "float32_half_even" else "half_away"
            built.append(Rule(method, multiplier, clamp=clamp))  # type: ignore[arg-type]
    if kind in WEIGHTED:
        for multiplier in MULTIPLIERS:
            built.append(Rule("ruy", multiplier, tail="gemmlowp", block=8, block_axis="channel"))
            built.append(Rule("ruy", multiplier, tail="gemmlowp", block=16, block_axis="flat"))
    return [rule for rule in dict.fromkeys([*known, *built]) if rule.method not in ("unspecified", "given")]


def _rule_of(profile: Profile, kind: Kind) -> Rule | None:
    if profile.format != "tflite":
        return None
    graph = weighted_layer(kind, 0) if kind in WEIGHTED else table_layer(kind, 0)
    try:
        return profile.rule(graph.view(0))
    except KaratError:
        return None


def _weighted_layers(kind: Kind) -> list[Graph]:
    """Layers that together tell every two rules apart that some layer of ``SEEDS`` tells apart."""
    rules = space(kind)
    pairs = set(itertools.combinations(range(len(rules)), 2))
    found: list[Graph] = []
    for seed in range(SEEDS):
        graph = weighted_layer(kind, seed)
        steps = [_steps(graph.view(0), rule) for rule in rules]
        parted = {
            (a, b) for a, b in pairs if any((x != y).any() for x, y in zip(steps[a], steps[b], strict=True))
        }
        if parted or seed == 0:
            found.append(graph)
            pairs -= parted
        if not pairs or len(found) == MODELS:
            break
    return found


def _steps(view: LayerView, rule: Rule) -> tuple[Array, Array]:
    """Thresholds of the body and of the tail (the body's where there is none), ``[step, channel]``."""
    rounding, within = requantization(view, rule), reach(view)
    assert rounding is not None
    assert within is not None
    body, tail = (
        staircase(rounding, method, within.first, within.last).thresholds
        for method in (rule.method, rule.tail or rule.method)
    )
    return body, tail


def _placed(graph: Graph, rules: Sequence[Rule]) -> Iterator[Trial]:
    """Models beside the thresholds that not all rules share, and some that they do; every window is once
    the last, where the elements behind the last block lie."""
    view = graph.view(0)
    within = reach(view)
    assert within is not None
    every = np.stack([steps for rule in rules for steps in _steps(view, rule)])
    chosen = np.zeros(every.shape[1:], bool)
    chosen[np.linspace(0, every.shape[1] - 1, 3).astype(int)] = True
    for first, second in itertools.combinations(range(len(every)), 2):
        apart = np.flatnonzero(every[first] != every[second])
        chosen.reshape(-1)[apart[np.linspace(0, apart.size - 1, min(STEPS, apart.size)).astype(int)]] = True
    thresholds = []
    for channel in range(every.shape[2]):
        steps = np.unique(every[:, chosen[:, channel], channel])
        inside = (steps > within.first[channel]) & (steps <= within.last[channel])
        thresholds.append(steps[inside])
    for model in placed_layers(graph, 0, thresholds, with_bias=True):
        turns = range(len(model.feed)) if view.op == "TRANSPOSE_CONV" else range(1)
        for turn in turns:
            yield Trial(model.graph, (np.roll(model.feed, turn, axis=0),))


def _whole_table(graph: Graph) -> Iterator[Trial]:
    """In whole blocks, and behind the last block of 8 and of 16."""
    for tail in (0, 7, 15):
        model = table_model(graph, 0, tail)
        yield Trial(model.graph, model.feeds)


CHANNELS = 19
"""Output channels: whole blocks of 8 and 16, and a tail behind each."""


def weighted_layer(kind: Kind, seed: int) -> Graph:
    """A layer of a filter: scales of a power of two for every second seed, where roundings meet ties."""
    rng = np.random.default_rng(seed)
    channels, low = CHANNELS, QUANTIZED_RANGE[kind.dtype][0]
    count = channels if kind.per_channel else 1
    scales = np.exp2(rng.integers(-9, -5, count)) if seed % 2 == 0 else rng.uniform(0.002, 0.02, count)
    ratio = 2.0**-4 if seed % 2 == 0 else float(rng.uniform(0.03, 0.09))
    builder = GraphBuilder(str(kind))

    def parameters(scale: float, zero_point: int) -> Quantization:
        return Quantization.per_tensor(float(np.float32(scale)), zero_point)

    shapes = {
        "CONV_2D": ((1, 3, 3, 8), (channels, 3, 3, 8), (1, 1, 1, channels)),
        "DEPTHWISE_CONV_2D": ((1, 3, 3, channels), (1, 3, 3, channels), (1, 1, 1, channels)),
        "FULLY_CONNECTED": ((1, 40), (channels, 40), (1, channels)),
        "TRANSPOSE_CONV": ((1, 1, 1, 40), (channels, 1, 1, 40), (1, 1, 1, channels)),
    }
    given, filters, result = shapes[kind.op]
    data = builder.input("data", given, kind.dtype, parameters(ratio, low + 128 + 3))
    middle = 0 if kind.dtype == "int8" else 125
    weights = rng.integers(low + 1, low + 256, filters)
    axis = 3 if kind.op == "DEPTHWISE_CONV_2D" else 0
    filter_ = builder.constant(
        "filter",
        weights.astype(kind.dtype),
        Quantization(tuple(map(float, scales.astype(np.float32))), (middle,) * count, axis),
    )
    bias = builder.constant("bias", np.zeros(channels, np.int32))
    inputs = [data, filter_, bias]
    attributes: dict[str, Any] = {"fused_activation_function": "NONE"}
    if kind.op == "TRANSPOSE_CONV":
        inputs = [builder.constant("shape", np.array(result, np.int32)), filter_, data, bias]
    if kind.op != "FULLY_CONNECTED":
        attributes |= {"padding": "VALID", "stride_h": 1, "stride_w": 1}
    if kind.op == "DEPTHWISE_CONV_2D":
        attributes["depth_multiplier"] = 1
    scale = 2.0**-3 if seed % 2 == 0 else float(rng.uniform(0.1, 0.4))
    output = builder.tensor("output", result, kind.dtype, parameters(scale, low + 128 - 7))
    builder.layer(kind.op, inputs, [output], 3, **attributes)
    return builder.build([output])


def table_layer(kind: Kind, seed: int) -> Graph:
    """A layer of one or two bytes, on scales whose ratios are no powers of two."""
    scales = [float(scale) for scale in np.random.default_rng(seed).uniform(0.02, 0.08, 3)]
    builder = GraphBuilder(str(kind))
    low = QUANTIZED_RANGE[kind.dtype][0]

    def parameters(scale: float, zero_point: int) -> Quantization:
        return Quantization.per_tensor(float(np.float32(scale)), low + zero_point)

    shape = (1, 41)
    left = builder.input("left", shape, kind.dtype, parameters(scales[0], 131))
    inputs = [left]
    attributes: dict[str, Any] = {}
    if kind.op in ("ADD", "SUB", "MUL"):
        inputs.append(builder.input("right", shape, kind.dtype, parameters(scales[1], 122)))
        attributes["fused_activation_function"] = "NONE"
    if kind.op == "LEAKY_RELU":
        attributes["alpha"] = 0.3
    result = parameters(1 / 256, 0) if kind.op == "LOGISTIC" else parameters(scales[2], 119)
    output = builder.tensor("output", shape, kind.dtype, result)
    builder.layer(kind.op, inputs, [output], 2 if kind.dtype == "int8" else 1, **attributes)
    return builder.build([output])
