"""What two profiles are said to differ in, against brute force: every accumulator, value and pair."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from karat24.export.onnx import read_onnx
from karat24.golden.diverge import Divergence, LayerDivergence, diverge
from karat24.golden.establish.kinds import Kind
from karat24.golden.establish.trials import layer_of
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, LayerView, Quantization
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Profile, Rule
from karat24.refimpl.staircase import reach, requantization
from karat24.refimpl.staircase.requantization import ACCUMULATING
from tests.cases.onnx_models import node, onnx_model
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.support.few_taps import fully_connected, graph_of

TFLITE = [name for name, profile in PROFILES.items() if profile.format == "tflite"]
PAIRS = list(itertools.combinations(TFLITE, 2))


def layer(view: LayerView, first: str, second: str) -> LayerDivergence:
    (found,) = diverge(graph_of(view), PROFILES[first], PROFILES[second]).layers
    return found


def all_accumulators(view: LayerView, profile: Profile) -> tuple[Array, Array]:
    """Every accumulator within reach, and the outputs ``[accumulator, channel]`` by the op's own spec.

    A filter of one weight that is 1 is put in place of the layer's: with all 256 values of the input,
    a bias gives 256 accumulators in a row.
    """
    within = reach(view)
    assert within is not None
    channels = view.output().shape[-1]
    data, filter_, output = view.input(0), view.input(1), view.output()
    zero = filter_.quantization.zero_point[0]  # type: ignore[union-attr]
    weights = np.full(filter_.shape, zero, filter_.dtype)
    weights[:, 0] += 1
    every = np.arange(256) + np.iinfo(data.dtype).min
    rows = np.stack([every, np.full(256, data.zero_point)], axis=1).astype(data.dtype)
    wide = replace(
        view, inputs=(replace(data, shape=rows.shape), *view.inputs[1:]),
        outputs=(replace(output, shape=(256, channels)),),
    )  # fmt: skip
    acc, outputs = [], []
    for start in range(int(within.first.min()), int(within.last.max()) + 1, 256):
        bias = np.full(channels, start - (every[0] - data.zero_point), np.int32)
        result = OPS[view.op].spec(wide, [rows, weights, bias], profile.rule(view))
        assert result.accumulator is not None
        acc.append(result.accumulator[:, 0].astype(np.int64))
        outputs.append(result.outputs[0].astype(np.int64))
    return np.concatenate(acc), np.concatenate(outputs)


@pytest.mark.parametrize(("dtype", "seed"), [("int8", 0), ("int8", 1), ("uint8", 2)])
def test_accumulators_are_counted_as_by_brute_force(dtype: str, seed: int) -> None:
    view = fully_connected(seed, dtype)
    within = reach(view)
    assert within is not None
    tried = {name: all_accumulators(view, PROFILES[name]) for name in TFLITE}
    outcomes = set()
    for first, second in PAIRS:
        (acc, left), (_, right) = tried[first], tried[second]
        inside = (acc[:, np.newaxis] >= within.first) & (acc[:, np.newaxis] <= within.last)
        apart = np.where(inside, np.abs(left - right), 0)
        found = layer(view, first, second)
        if found.how == "rule":
            assert not apart.any()
            continue
        assert found.examined == int(inside.sum())
        assert found.differing == np.count_nonzero(apart)
        assert found.max_abs_diff_lsb == apart.max(initial=0)
        assert found.channels == np.count_nonzero(apart.any(axis=0))
        assert found.verdict == ("diverges" if apart.any() else "equal")
        outcomes.add(found.verdict)
    assert "diverges" in outcomes


@pytest.mark.parametrize(
    "kind",
    [
        Kind("QLinearMatMul", "uint8", filter="uint8"),
        Kind("QLinearConv", "uint8", False, "uint8", "depthwise"),
    ],
    ids=str,
)
def test_onnx_accumulators_are_counted_as_by_brute_force(kind: Kind) -> None:
    """Every pair of ONNX profiles, on products that saturate nowhere."""
    graph = layer_of(kind, 0)
    view = graph.view(0)
    within = reach(view)
    assert within is not None
    acc = np.arange(within.first.min(), within.last.max() + 1)[:, np.newaxis]
    inside = (acc >= within.first) & (acc <= within.last)
    profiles = [profile for profile in PROFILES.values() if profile.format == "onnx"]
    differing, outputs = [], dict[Rule, Array]()
    for rule in {profile.rule(view) for profile in profiles}:
        rounding = requantization(view, rule)
        assert rounding is not None
        outputs[rule] = rounding(np.broadcast_to(acc, inside.shape), rule.method)
    for first, second in itertools.combinations(profiles, 2):
        unequal = outputs[first.rule(view)] != outputs[second.rule(view)]
        (found,) = diverge(graph, first, second).layers
        differing.append(found.differing)
        assert found.differing == np.count_nonzero(unequal & inside), (first, second)
    assert 0 in differing
    assert max(differing) > 0


@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"])
def test_an_example_makes_the_difference_happen(op: str) -> None:
    """The inputs, fed to both specs, give the two outputs that were promised."""
    for seed in range(6):
        view, _ = weighted_layer(WeightedShape(op, channels=9, filters=19), seed)
        found = layer(view, "litert-2.3-ref", "litert-2.3-xnnpack")
        example = found.example
        if found.verdict != "diverges" or example is None:
            continue
        values = [example.inputs.get(t.index, t.data) if t is not None else None for t in view.inputs]
        results = [
            OPS[op].spec(view, values, PROFILES[name].rule(view))
            for name in ("litert-2.3-ref", "litert-2.3-xnnpack")
        ]
        assert tuple(int(r.outputs[0][example.element]) for r in results) == example.outputs
        assert results[0].accumulator is not None
        assert results[0].accumulator[example.element] == example.accumulator
        assert example.outputs[0] != example.outputs[1]
        return
    pytest.fail("no layer of six had an example")


def binary(op: str, dtype: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> LayerView:
    builder = GraphBuilder()
    parameters = [Quantization.per_tensor(scale, zero) for scale, zero in ((0.04, 3), (0.031, 7), (0.06, 1))]
    left = builder.input("left", shapes[0], dtype, parameters[0])
    right = builder.input("right", shapes[1], dtype, parameters[1])
    output = builder.tensor("y", np.broadcast_shapes(*shapes), dtype, parameters[2])
    builder.layer(op, [left, right], [output], fused_activation_function="NONE")
    return builder.build([output]).view(0)


@pytest.mark.parametrize("op", ["ADD", "MUL"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_pairs_are_counted_as_by_brute_force(op: str, dtype: str) -> None:
    """65,536 pairs in one tensor of a whole number of blocks, so that no tail takes part."""
    view = binary(op, dtype, ((65536,), (65536,)))
    low = np.iinfo(dtype).min
    every = np.arange(low, low + 256).astype(dtype)
    values = [np.repeat(every, 256), np.tile(every, 256)]
    for first, second in PAIRS:
        found = layer(view, first, second)
        results = [
            OPS[op].spec(view, values, PROFILES[name].rule(view)).outputs[0] for name in (first, second)
        ]
        differing = np.count_nonzero(results[0] != results[1])
        assert found.differing == differing, (first, second)
        assert (found.verdict == "diverges") == (differing > 0)


MICROSOFT = "com.microsoft:"
PAIR_KINDS = [
    Kind(f"{MICROSOFT}{op}", dtype, form=form)
    for op, form in (("QLinearAdd", ""), ("QLinearAdd", "scalar"), ("QLinearMul", ""))
    for dtype in ("uint8", "int8")
]


def with_rule(profile: Profile, op: str, rule: Rule) -> Profile:
    """The profile, rounding ``op`` by ``rule``."""
    return replace(profile, table={**profile.table, op: {"*": rule}})


def outputs_of_all_pairs(view: LayerView, rule: Rule) -> Array:
    """``[256, 256]`` (left, right), by the spec; a single value on the right where the layer has one."""
    low = np.iinfo(view.output().dtype).min
    every = np.arange(low, low + 256).astype(view.output().dtype)
    scalar = view.input(3).shape == (1, 1)
    left, right = (every, every[:1]) if scalar else (np.repeat(every, 256), np.tile(every, 256))
    inputs = list(view.inputs)
    inputs[0], inputs[3] = (
        replace(view.input(position), shape=values.shape) for position, values in ((0, left), (3, right))
    )
    wide = replace(view, inputs=tuple(inputs), outputs=(replace(view.output(), shape=left.shape),))
    values: list[Array | None] = [None if t is None else t.data for t in inputs]
    found = []
    for turn in every if scalar else right[:1]:
        values[0], values[3] = left, np.full(1, turn) if scalar else right
        found.append(OPS[view.op].spec(wide, values, rule).outputs[0])
    return np.stack(found, 1) if scalar else found[0].reshape(256, 256)


@pytest.mark.parametrize("kind", PAIR_KINDS, ids=str)
def test_onnx_pairs_are_counted_as_by_brute_force(kind: Kind) -> None:
    """Every pair of ONNX profiles, and every pair of rules of the space under ONNX Runtime's profile."""
    known = [profile for profile in PROFILES.values() if profile.format == "onnx"]
    others = [with_rule(PROFILES["ort-1.31"], kind.op, rule) for rule in kind.space.rules()]
    graph = layer_of(kind, 0)  # scales on which the space's rules part
    view = graph.view(0)
    outputs: dict[Rule, Array] = {}
    differing = []
    for first, second in (*itertools.combinations(known, 2), *itertools.combinations(others, 2)):
        (found,) = diverge(graph, first, second).layers
        rules = [profile.known_rule(view) for profile in (first, second)]
        if None in rules or "unspecified" in {rule.method for rule in rules if rule is not None}:
            assert found.verdict == "undecided", (first.name, second.name)
            continue
        for rule in rules:
            if rule is not None and rule not in outputs:
                outputs[rule] = outputs_of_all_pairs(view, rule)
        left, right = (outputs[rule].astype(np.int64) for rule in rules if rule is not None)
        assert found.differing == np.count_nonzero(left != right), rules
        assert found.max_abs_diff_lsb == np.abs(left - right).max(), rules
        assert found.verdict == ("diverges" if found.differing else "equal")
        differing.append(found.differing)
        if found.how == "pairs":
            assert found.examined == 65536
        if found.example is not None:
            given = [found.example.inputs.get(t.index, t.data) if t else None for t in view.inputs]
            results = [OPS[kind.op].spec(view, given, rule).outputs[0] for rule in rules if rule is not None]
            assert tuple(result[found.example.element] for result in results) == found.example.outputs
        assert (found.example is None) == (found.differing == 0)
    assert 0 in differing, "ONNX Runtime's profiles on machines of one family agree"
    assert max(differing) > 0


def test_a_constant_operand_takes_only_its_own_values() -> None:
    """A pair that the constant never makes is no difference."""
    view = binary("ADD", "int8", ((1, 40), (1, 40)))
    free = layer(view, "litert-2.3-ref", "litert-2.3-xnnpack")
    assert free.differing > 0
    constant = replace(view.input(1), data=np.full((1, 40), 7, np.int8))
    fixed = layer(replace(view, inputs=(view.input(0), constant)), "litert-2.3-ref", "litert-2.3-xnnpack")
    assert fixed.examined == 256
    assert fixed.differing < free.differing


def test_the_worst_layer_decides() -> None:
    view = fully_connected(0, "int8")
    equal, differs = (
        layer(view, "litert-2.3-ref", second) for second in ("litert-2.3-ref", "litert-2.3-xnnpack")
    )
    assert (equal.verdict, equal.how, differs.verdict) == ("equal", "rule", "diverges")
    open_ = replace(equal, verdict="undecided")
    for layers, code in (((equal,), 0), ((equal, open_), 3), ((equal, open_, differs), 1)):
        assert Divergence(("a", "b"), layers).exit_code() == code


def test_saturating_pairs_are_not_called_equal() -> None:
    """Equal staircases prove nothing where the accumulators themselves differ; small weights do."""
    for weight, verdict in ((127, "undecided"), (60, "equal")):
        x = np.zeros((1, 2, 3, 3), np.uint8)
        constants: dict[str, Array] = {
            "sx": np.float32(0.1), "zx": np.uint8(3), "w": np.full((4, 2, 1, 1), weight, np.int8),
            "sw": np.float32(0.01), "zw": np.int8(0), "sy": np.float32(0.1), "zy": np.uint8(9),
        }  # fmt: skip
        nodes = [node("QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"])]
        constants = {name: np.asarray(value) for name, value in constants.items()}
        graph = read_onnx(onnx_model(nodes, {"x": x}, {"y": "uint8"}, constants))
        (found,) = diverge(graph, PROFILES["ort-1.31"], PROFILES["ort-1.31-avx2"]).layers
        assert found.verdict == verdict, found.reason
        assert ACCUMULATING[found.op]
