"""Staircases against the specs they were derived from: every accumulator, every profile."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from karat24.export.onnx import read_onnx
from karat24.refimpl.errors import CannotCompare, KaratError, UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Profile, Rule
from karat24.refimpl.profiles.rules import Method
from karat24.refimpl.staircase import reach, requantization, staircase, table
from karat24.refimpl.staircase.linear_form import biases, data_range, data_zero_point, inputs_for, window_of
from karat24.refimpl.staircase.regions import regions
from karat24.refimpl.staircase.requantization import ACCUMULATING, Requantization
from karat24.refimpl.staircase.tables import PAIRS
from tests.cases import activations, elementwise, onnx_ops
from tests.cases.weighted_layer import WeightedShape, weighted_layer

TFLITE = [profile for profile in PROFILES.values() if profile.format == "tflite"]
ONNX = [profile for profile in PROFILES.values() if profile.format == "onnx"]

SHAPES = [
    WeightedShape(
        op, dtype, channels=channels, filters=filters, per_channel=per_channel, activation=activation
    )
    for op, (dtype, per_channel), (channels, filters), activation in itertools.product(
        ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"),
        (("int8", True), ("int8", False), ("uint8", False)),
        ((3, 4), (9, 19)),  # no whole block of 8 or 16, and blocks with a tail
        ("NONE", "RELU6"),
    )
]


def outputs_by_staircase(view: LayerView, rule: Rule, accumulator: Array) -> Array:
    """The layer's outputs from its accumulators alone."""
    rounding, within = requantization(view, rule), reach(view)
    assert rounding is not None
    assert within is not None
    axis = ACCUMULATING[view.op].output_axis
    acc = np.moveaxis(accumulator.astype(np.int64), axis, -1)
    result = np.zeros(acc.shape, np.int64)
    for region in regions(view, [rule]):
        stairs = staircase(rounding, region.methods[0], within.first, within.last)
        found = stairs.outputs(acc.reshape(-1, acc.shape[-1])).reshape(acc.shape)
        inside = np.ones(acc.shape, bool)
        if region.elements is not None:
            inside = np.moveaxis(region.elements, axis, -1)
        result[inside] = found[inside]
    return np.moveaxis(result, -1, axis)


@pytest.mark.parametrize("profile", TFLITE, ids=lambda profile: profile.name)
def test_staircases_give_what_the_specs_give(profile: Profile) -> None:
    """Blocks with other rounding than their tails, odd zero points, ties (half the scales are powers of
    two), both saturations, fused activations."""
    judged = 0
    for seed in range(4 * len(SHAPES)):
        view, _ = layer_number(seed)
        try:
            rule = profile.rule(view)
        except UnsupportedOp:
            assert profile.caveat, view
            continue
        assert differing(seed, rule) == 0, f"{SHAPES[seed % len(SHAPES)]}, seed {seed}, {rule}"
        judged += 1
    assert judged >= len(SHAPES)


@cache
def layer_number(seed: int) -> tuple[LayerView, list[Array | None]]:
    return weighted_layer(SHAPES[seed % len(SHAPES)], seed)


@cache  # many profiles have one rule
def differing(seed: int, rule: Rule) -> int:
    """Outputs that the staircases give otherwise than the spec."""
    view, values = layer_number(seed)
    expected = OPS[view.op].spec(view, values, rule)
    assert expected.accumulator is not None
    return int((outputs_by_staircase(view, rule, expected.accumulator) != expected.outputs[0]).sum())


@cache
def onnx_layers() -> tuple[tuple[LayerView, list[Array | None]], ...]:
    return tuple(_onnx_layers())


def _onnx_layers() -> Iterator[tuple[LayerView, list[Array | None]]]:
    for case in onnx_ops.cases():
        graph = read_onnx(case.model)
        (view,) = graph.views()
        if view.op in ACCUMULATING and view.output().dtype in ("int8", "uint8"):
            yield (
                view,
                [
                    None if t is None else t.data if t.data is not None else case.feeds[t.name]
                    for t in view.inputs
                ],
            )


@pytest.mark.parametrize("method", ["gemmlowp", "ruy", "single_rounding", "float32_half_even"])
@pytest.mark.parametrize("seed", range(8))
def test_thresholds_are_those_of_every_accumulator(method: Method, seed: int) -> None:
    """Every accumulator of each channel is rounded: steps none reach, all reach and one skips among them."""
    shape = WeightedShape("FULLY_CONNECTED", channels=2, filters=7, activation=("NONE", "RELU6")[seed % 2])
    view, _ = weighted_layer(shape, seed)
    within = reach(view)
    rounding = requantization(view, Rule(method, "float64" if method != "float32_half_even" else "float32"))
    assert within is not None
    assert rounding is not None
    found = staircase(rounding, method, within.first, within.last)
    every = within.first + np.arange((within.last - within.first).max() + 1)[:, np.newaxis]
    outputs = rounding(np.minimum(every, within.last), method)
    for step, thresholds in enumerate(found.thresholds, rounding.low + 1):
        short = ((outputs < step) & (every <= within.last)).sum(axis=0)
        np.testing.assert_array_equal(thresholds, within.first + short)


def test_a_guess_spares_most_of_the_bisection(monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps of all channels are rounded a few times, however many accumulators there are."""
    view, _ = weighted_layer(WeightedShape("FULLY_CONNECTED", channels=300, filters=19), 1)
    rule, within, passes = Rule("gemmlowp", "float64"), reach(view), []
    assert within is not None
    rounding = requantization(view, rule)
    assert rounding is not None
    whole = Requantization.__call__

    def counted(self: Requantization, acc: Array, method: Method) -> Array:
        passes.append(len(acc))
        return whole(self, acc, method)

    monkeypatch.setattr(Requantization, "__call__", counted)
    staircase(rounding, rule.method, within.first, within.last)
    assert (within.last - within.first).min() > 2**20
    assert passes.count(255) <= 5


@pytest.mark.parametrize("profile", ONNX, ids=lambda profile: profile.name)
def test_onnx_staircases_give_what_the_specs_give(profile: Profile) -> None:
    seen = set()
    for number, (view, _) in enumerate(onnx_layers()):
        try:
            rule = profile.rule(view)
        except KaratError:
            continue
        if reach(view) is None:
            continue
        assert onnx_differing(number, rule) == 0, f"{view}, {rule}"
        seen.add(view.op)
    assert {"QLinearConv", "QLinearMatMul"} <= seen


@cache  # many profiles have one rule
def onnx_differing(number: int, rule: Rule) -> int:
    """Outputs that the staircases give otherwise than the spec."""
    view, values = onnx_layers()[number]
    expected = OPS[view.op].spec(view, values, rule)
    assert expected.accumulator is not None
    return int((outputs_by_staircase(view, rule, expected.accumulator) != expected.outputs[0]).sum())


def test_a_left_shift_that_wraps_is_no_staircase() -> None:
    """A multiplier of 2^12 shifts accumulators beyond 2^19 out of 32 bits."""
    view, _ = weighted_layer(WeightedShape("FULLY_CONNECTED", channels=64, filters=1, per_channel=False), 3)
    rounding = requantization(view, PROFILES["litert-2.3-ref"].rule(view))
    exact = requantization(view, PROFILES["tflite-2.14-ref"].rule(view))
    assert rounding is not None
    assert exact is not None
    low, high = np.array([-(2**31)]), np.array([2**31 - 1])
    assert exact.defined("gemmlowp")[1] == high, "a multiplier below 1 is defined everywhere"
    staircase(exact, "gemmlowp", low, high)
    (scale,) = view.input(1).quantization.scale  # type: ignore[union-attr]
    large = replace(view.input(1).quantization, scale=(scale * 2**20,))  # type: ignore[type-var]
    wide = replace(view, inputs=(view.input(0), replace(view.input(1), quantization=large), view.inputs[2]))
    shifted = requantization(wide, PROFILES["tflite-2.14-ref"].rule(wide))
    assert shifted is not None
    with pytest.raises(CannotCompare, match="wraps"):
        staircase(shifted, "gemmlowp", low, high)


def test_a_float64_product_beyond_int32_is_no_staircase_and_below_it_is_one() -> None:
    """It becomes -2^31 there; the zero point, added after, wraps a little before."""
    view, _ = weighted_layer(WeightedShape("FULLY_CONNECTED", channels=64, filters=1, per_channel=False), 3)
    (scale,) = view.input(1).quantization.scale  # type: ignore[union-attr]
    large = replace(view.input(1).quantization, scale=(scale * 2**20,))  # type: ignore[type-var]
    wide = replace(view, inputs=(view.input(0), replace(view.input(1), quantization=large), view.inputs[2]))
    rounding = requantization(wide, PROFILES["litert-2.3-ref"].rule(wide))
    assert rounding is not None
    low, high = rounding.defined("float64_half_away")
    stairs = staircase(rounding, "float64_half_away", low, high)
    ends = np.stack([low, low + 1, high - 1, high])
    np.testing.assert_array_equal(stairs.outputs(ends), rounding(ends, "float64_half_away"))
    assert (rounding(high * 2, "float64_half_away") < rounding(high, "float64_half_away")).all()
    with pytest.raises(CannotCompare, match="float64_half_away wraps beyond"):
        staircase(rounding, "float64_half_away", low, high + 1)


@pytest.mark.parametrize("shape", SHAPES[::2], ids=str)
def test_a_window_says_how_an_accumulator_is_made(shape: WeightedShape) -> None:
    """Every output element, paddings and groups included, from the linear form alone."""
    view, values = weighted_layer(shape, 11)
    expected = OPS[view.op].spec(view, values, PROFILES["litert-2.3-ref"].rule(view)).accumulator
    assert expected is not None
    data = values[ACCUMULATING[view.op].data]
    offsets = biases(view)
    assert data is not None
    assert offsets is not None
    flat = data.astype(np.int64).reshape(-1) - data_zero_point(view)
    for element in np.ndindex(*view.output().shape):
        window = window_of(view, element)
        found = int(flat[window.positions] @ window.weights) + int(offsets[element[-1]])
        assert found == expected[element]


def test_onnx_windows_say_how_an_accumulator_is_made() -> None:
    checked = set()
    for view, values in onnx_layers():
        operands = ACCUMULATING[view.op]
        data, offsets = values[operands.data], biases(view)
        if reach(view) is None or data is None or offsets is None:
            continue
        expected = OPS[view.op].spec(view, values, PROFILES["ort-1.31"].rule(view)).accumulator
        assert expected is not None
        flat = data.astype(np.int64).reshape(-1) - data_zero_point(view)
        behind = (1,) * (expected.ndim - 2)
        along = offsets.reshape(-1, *behind) if view.op == "QLinearConv" else offsets
        added = np.broadcast_to(along, expected.shape)
        for element in itertools.islice(np.ndindex(*expected.shape), 0, None, 23):
            window = window_of(view, element)
            assert int(flat[window.positions] @ window.weights) + int(added[element]) == expected[element]
        checked.add(view.op)
    assert {"QLinearConv", "QLinearMatMul"} <= checked


def test_inputs_are_found_for_accumulators_within_reach() -> None:
    """The ends of the reach, which take every tap's end, and sums between them."""
    view, _ = weighted_layer(WeightedShape("CONV_2D", padding="VALID"), 5)
    within, (low, high) = reach(view), data_range(view)
    assert within is not None
    window = window_of(view, (0, 1, 1, 2))
    offset = int(biases(view)[2])  # type: ignore[index]
    first, last = int(within.first[2]) - offset, int(within.last[2]) - offset
    found = 0
    for wanted in (first, last, 0, *range(first, last, (last - first) // 97)):
        values = inputs_for(window, low, high, wanted)
        if values is not None:
            assert (values >= low).all()
            assert (values <= high).all()
            assert int(values @ window.weights) == wanted
            found += 1
    assert found > 80
    assert inputs_for(window, low, high, last + 1) is None


def test_tables_hold_what_the_specs_give() -> None:
    """Ops of one or two bytes under every rule, with blocks and tails, broadcast and single operands."""
    seen: Counter[str] = Counter()
    for case in [*elementwise.cases()[::4], *activations.cases()[::2]]:
        if len(case.graph.layers) > 1:
            continue
        view = case.graph.view(0)
        if len(case.feeds) != len(view.inputs):
            continue
        for rule in rules_of(view):
            found = by_table(view, rule, list(case.feeds))
            if found is not None:
                expected = OPS[view.op].spec(view, case.feeds, rule).outputs[0]
                assert found.tobytes() == expected.tobytes(), f"{case}: {rule}"
                seen[view.op] += 1
    assert seen.keys() >= {"ADD", "SUB", "MUL", "LEAKY_RELU", "RELU6", "HARD_SWISH"}, seen


def rules_of(view: LayerView) -> set[Rule]:
    """The rules that profiles of the TFLite family have for a layer."""
    found = set()
    for profile in TFLITE:
        with contextlib.suppress(KaratError):
            found.add(profile.rule(view))
    return found


def by_table(view: LayerView, rule: Rule, values: list[Array]) -> Array | None:
    """The layer's output looked up region by region."""
    result: Array | None = None
    for region in regions(view, [rule]):
        made = table(view, rule, region.methods[0])
        if made is None:
            return None
        shape = view.output().shape
        places = PAIRS.get(view.op, (0,))
        rows = tuple(
            np.broadcast_to(values[p].astype(np.int64) - np.iinfo(values[p].dtype).min, shape) for p in places
        )
        looked_up = made.outputs[rows]
        inside = np.ones(shape, bool) if region.elements is None else region.elements
        result = looked_up if result is None else np.where(inside, looked_up, result)
    return result
