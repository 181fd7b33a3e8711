"""``verify --certify``: a wrong threshold anywhere is found, always; random inputs find some."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from karat24.delegates.oracle import OracleDelegate
from karat24.delegates.protocol import DelegateRun, Job
from karat24.export.onnx import read_onnx
from karat24.export.tflite import read_tflite, write_tflite
from karat24.feeds import random_feeds
from karat24.golden.certify import certify
from karat24.golden.certify.certify import Certification, certification
from karat24.golden.certify.coverage import StaircaseCoverage
from karat24.golden.certify.placement import Taps, placements
from karat24.golden.verify import verify
from karat24.refimpl.contract import SpecResult
from karat24.refimpl.errors import CannotCompare, DelegateError
from karat24.refimpl.graph import Array, Graph, LayerView
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Profile
from karat24.refimpl.spec.shared.primitives import multiply_gemmlowp, quantize_multipliers
from karat24.refimpl.spec.tflite.weights import effective_multipliers
from karat24.refimpl.staircase import reach, requantization
from karat24.refimpl.staircase.requantization import ACCUMULATING
from karat24.refimpl.trace import Trace
from tests.cases import onnx_ops
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.support.few_taps import graph_of
from tests.support.layer_graphs import layer, q8

SHAPES = [
    WeightedShape("FULLY_CONNECTED", channels=5, filters=5),
    WeightedShape("FULLY_CONNECTED", "uint8", channels=2, filters=3),
    WeightedShape("CONV_2D", channels=1, filters=9, taps=(2, 3), dilations=(2, 1)),
    WeightedShape("CONV_2D", "uint8", channels=4, filters=4, taps=(1, 1), strides=(2, 2)),
    WeightedShape("CONV_2D", channels=4, filters=6, taps=(1, 2), groups=2, per_channel=False),
    WeightedShape("DEPTHWISE_CONV_2D", channels=10, taps=(2, 2), bias=False),
    WeightedShape("DEPTHWISE_CONV_2D", "uint8", channels=2, multiplier=2, taps=(1, 1)),
    WeightedShape("TRANSPOSE_CONV", "uint8", channels=3, filters=5, taps=(2, 2), strides=(2, 2)),
    WeightedShape("TRANSPOSE_CONV", channels=3, filters=9, taps=(1, 1), activation="RELU6"),
]

Plant = Callable[[Array], Array]


class Planted(OracleDelegate):
    """A runtime that rounds channel ``channel`` of every layer by ``plant``, and the others rightly.

    ``sound`` keeps what it computed rightly, for other plants into the same layer.
    """

    def __init__(self, profile: Profile, channel: int, plant: Plant, sound: dict[bytes, SpecResult]) -> None:
        super().__init__(profile.name)
        self._rules, self._channel, self._plant, self._sound = profile, channel, plant, sound

    def _right(self, model: bytes, feed: Array) -> SpecResult:
        key = model + feed.tobytes()
        if key not in self._sound:
            graph = read_tflite(model)
            (view,) = graph.views()
            values = [None if t is None else t.data for t in view.inputs]
            values[view.layer.inputs.index(graph.inputs[0])] = feed
            self._sound[key] = OPS[view.op].spec(view, values, self._rules.rule(view))
        return self._sound[key]

    def run_many(self, jobs: Iterable[Job], **options: object) -> Iterator[DelegateRun | DelegateError]:
        for model, feeds in jobs:
            assert isinstance(model, bytes)
            result = self._right(model, feeds[0])  # type: ignore[index]
            assert result.accumulator is not None
            output = result.outputs[0].copy()
            output[..., self._channel] = self._plant(result.accumulator[..., self._channel])
            yield DelegateRun(Trace(self.name, self.profile, {}), (output,))


def plants(view: LayerView, profile: Profile, channel: int, seed: int) -> Iterator[tuple[str, Plant]]:
    """Other roundings, the multiplier's last bit, and single thresholds moved by one accumulator."""
    rng = np.random.default_rng(seed)
    rule = profile.rule(view)
    rounding = requantization(view, rule)
    assert rounding is not None

    def by(method: str) -> Plant:
        other = replace(rounding, rule=replace(rule, multiplier="float64"))
        return lambda acc: _one_channel(lambda a: other(a, method), acc, channel, rounding.channels)  # type: ignore[arg-type]

    for method in ("gemmlowp", "ruy", "float32_half_even", "float64_half_away"):
        if method != rule.method or rule.tail is not None:
            yield method, by(method)
    output = view.output()
    data, filter_ = (view.input(getattr(ACCUMULATING[view.op], name)) for name in ("data", "filter"))
    if view.text("fused_activation_function", "NONE") == "NONE":
        multiplier, shift = quantize_multipliers(effective_multipliers(data, filter_, output, rule))
        bit = (np.broadcast_to(part, rounding.channels)[channel] for part in (multiplier, shift))
        q, e = (int(value) for value in bit)
        for step in (-1, 1):
            yield (
                f"last bit {step:+d}",
                lambda acc, step=step: np.clip(
                    multiply_gemmlowp(acc.astype(np.int64), q + step, e) + output.zero_point,
                    rounding.low,
                    rounding.high,
                ),
            )
    within = reach(view)
    assert within is not None
    right = by(rule.method)
    for _ in range(3 if within.last[channel] > within.first[channel] + 1 else 0):
        moved = int(rng.integers(within.first[channel] + 1, within.last[channel]))
        yield "threshold", lambda acc, moved=moved: _moved(right, acc, moved)


def _one_channel(compute: Plant, acc: Array, channel: int, channels: int) -> Array:
    wide = np.zeros((acc.size, channels), np.int64)
    wide[:, channel] = acc.reshape(-1)
    return compute(wide)[:, channel].reshape(acc.shape)


def _moved(right: Plant, acc: Array, above: int) -> Array:
    """The first threshold from ``above`` on comes one accumulator too early."""
    every = right(np.arange(above - 1, above + 5000))
    steps = np.flatnonzero(np.diff(every))
    if steps.size == 0:
        return right(acc)
    early = above - 1 + int(steps[0])
    return right(np.where(acc == early, acc + 1, acc))


def right_values(view: LayerView, profile: Profile, channel: int) -> tuple[Array, list[Array]]:
    """200,000 accumulators of the channel's reach, and what every method of the rule makes of them."""
    within, rule = reach(view), profile.rule(view)
    assert within is not None
    rounding = requantization(view, rule)
    assert rounding is not None
    acc = np.linspace(within.first[channel], within.last[channel], 200_000).astype(np.int64)
    methods = {rule.method, rule.tail or rule.method}
    return acc, [
        _one_channel(lambda a, m=method: rounding(a, m), acc, channel, rounding.channels)  # type: ignore[misc]
        for method in methods
    ]


def fresh(found: Certification, view: LayerView) -> Certification:
    """The same trials with nothing met yet."""
    rounding, within = requantization(view, found.rule), reach(view)
    assert rounding is not None
    assert within is not None
    coverage = StaircaseCoverage(view, found.rule, rounding, within)
    return Certification(view, found.profile, found.rule, found.how, found.trials, coverage)


def test_every_planted_threshold_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers of every op, with and without blocks and tails; what random inputs find is printed."""
    files: dict[int, bytes] = {}  # each trial is planted into many times

    def written(graph: Graph) -> bytes:
        if id(graph) not in files:
            files[id(graph)] = write_tflite(graph)
        return files[id(graph)]

    monkeypatch.setattr(certify, "write_model", written)
    profiles = [PROFILES[f"litert-2.3-{lane}"] for lane in ("ref", "builtin", "xnnpack")]
    planted, by_chance = 0, 0
    for seed, (shape, profile) in enumerate(itertools.product(SHAPES, profiles)):
        view, values = weighted_layer(shape, seed)
        channel = seed % view.output().shape[-1]
        layer_ = certification(graph_of(view), 0, profile)
        assert not layer_.reason
        files.clear()
        results: dict[bytes, SpecResult] = {}
        sound = layer_.run(OracleDelegate(profile.name))
        # Four products and no bias do not reach the ends of what four products reach.
        assert sound.certified or (not shape.bias and sound.missing and not sound.wrong), sound
        acc, right = right_values(view, profile, channel)
        result = OPS[view.op].spec(view, values, profile.rule(view))
        assert result.accumulator is not None
        for name, plant in plants(view, profile, channel, seed):
            wrong = plant(acc)
            if not all((values != wrong).any() for values in right):
                continue  # nothing that an accumulator can show
            found = fresh(layer_, view)
            found.run(Planted(profile, channel, plant, results))
            assert found.diff is not None
            assert found.diff.mismatch_count > 0, f"{name} in channel {channel} of {shape}, {profile.name}"
            seen = plant(result.accumulator[..., channel]) != result.outputs[0][..., channel]
            planted, by_chance = planted + 1, by_chance + bool(seen.any())
    with capsys.disabled():
        sys.stderr.write(
            f"\n{planted} wrong thresholds planted, all certified wrong; random inputs found {by_chance}\n"
        )
    assert planted >= 100
    assert by_chance < planted


@pytest.mark.parametrize("count", [1, 2, 9, 40])
@pytest.mark.parametrize("inputs", [(-128, 127), (0, 255), (-255, 0), (-3, 252)])
@pytest.mark.parametrize("weights", [(-127, 127), (0, 255), (-255, 0), (-101, 154)])
def test_each_threshold_is_met_from_both_sides(
    count: int, inputs: tuple[int, int], weights: tuple[int, int]
) -> None:
    """One tap (the bias alone), one-sided inputs and weights, thresholds close together and far apart."""
    rng = np.random.default_rng(count)
    thresholds = [
        np.unique(rng.integers(-spread, spread, 60)) for spread in (40, 3000, 10**6, 2**30)
    ] + [np.zeros(0, np.int64)]  # fmt: skip
    taps = Taps(count, inputs, weights)
    met: list[set[int]] = [set() for _ in thresholds]
    for placement in placements(thresholds, taps):
        for values, (low, high) in ((placement.inputs, inputs), (placement.weights, weights)):
            assert low <= values.min()
            assert values.max() <= high
        for channel, column in enumerate(placement.accumulators.T):
            met[channel] |= set(column.tolist())
    for channel, wanted in enumerate(thresholds):
        assert set(wanted.tolist()) | set((wanted - 1).tolist()) <= met[channel]


def test_nothing_is_placed_by_inputs_that_are_only_0() -> None:
    with pytest.raises(CannotCompare, match="place no accumulator"):
        next(placements([np.array([5])], Taps(4, (0, 0), (-127, 127))))


def pair_layer(op: str, dtype: str, right: tuple[int, ...] = (1, 5, 4)) -> Graph:
    shape = (1, 5, 4)
    return layer(
        op, [q8(shape, dtype), q8(right, dtype, 0.07)], q8(shape, dtype, 0.13),
        fused_activation_function="NONE",
    )  # fmt: skip


@pytest.mark.parametrize("right", [(1, 5, 4), (1, 1, 1), (1, 1, 4)])
@pytest.mark.parametrize(("op", "dtype"), [("ADD", "int8"), ("MUL", "uint8")])
def test_pairs_are_covered_in_blocks_and_behind_them(op: str, dtype: str, right: tuple[int, ...]) -> None:
    """One wrong pair of 65,536 is found; operands of one shape, a single value, a row that repeats."""
    graph, profile = pair_layer(op, dtype, right), PROFILES["litert-2.3-builtin"]
    found = certification(graph, 0, profile)
    assert not found.reason
    certificate = found.run(OracleDelegate(profile.name))
    assert certificate.certified
    methods = 1 if right == (1, 1, 4) else 2  # rows of 4 are all tail
    assert certificate.wanted == methods * 65536


def test_a_table_is_covered_whole() -> None:
    graph = layer("LEAKY_RELU", [q8((1, 3), "int8")], q8((1, 3), "int8", 0.2), alpha=0.3)
    certificate = certification(graph, 0, PROFILES["litert-2.3-ref"]).run(OracleDelegate("litert-2.3-ref"))
    assert (certificate.how, certificate.met, certificate.certified) == ("table", 256, True)


def test_onnx_layers_are_certified() -> None:
    """QLinearConv with groups and dilations, QLinearMatMul without a bias, under the profile with VNNI.

    Every shape with every pair of element types, on usual scales or on powers of two in turn.
    """
    seen = set()
    convolutions = [case for case in onnx_ops.convolutions() if case.name.startswith("qlinear")]
    scales = zip(convolutions[::2], convolutions[1::2], strict=True)
    chosen = [pair[number % 2] for number, pair in enumerate(scales)]
    for case in [*chosen, *itertools.islice(onnx_ops.ties(), 5, 6), *onnx_ops.matrices()]:
        graph = read_onnx(case.model)
        if len(graph.layers) != 1 or graph.layers[0].op not in ACCUMULATING:
            continue
        found = certification(graph, 0, PROFILES["ort-1.31"])
        if found.reason:
            continue
        certificate = found.run(OracleDelegate("ort-1.31"))
        assert certificate.certified, (case.name, certificate, found.refused)
        seen.add(graph.layers[0].op)
    assert seen == {"QLinearConv", "QLinearMatMul", "com.microsoft:QGemm"}


def test_a_report_says_what_is_certified_and_what_cannot_be() -> None:
    """An exact layer without a finite description stays as it was; a runtime that refuses the models of a
    certificate leaves the layer not compared."""
    view, _ = weighted_layer(SHAPES[0], 0)
    graph = graph_of(view)
    feeds = [random_feeds(graph, 0)]
    runtime = OracleDelegate("litert-2.3-ref")
    report = verify(write_tflite(graph), graph, runtime, feeds, certify=True, threads=1)
    assert [v.verdict for v in report.layers] == ["certified"]
    assert report.exit_code() == 0
    assert report.to_dict()["layers"][0]["certificate"]["wrong"] == 0

    soft = layer("SOFTMAX", [q8((1, 5), "int8")], q8((1, 5), "int8", 1 / 256, -128), beta=1.0)
    report = verify(write_tflite(soft), soft, runtime, [random_feeds(soft, 0)], certify=True, threads=1)
    assert [v.verdict for v in report.layers] == ["bit_exact"]
    assert "SOFTMAX (layer 0) cannot be certified" in report.table()

    class Refusing(OracleDelegate):
        def run_many(self, jobs: Iterable[Job], **options: object) -> Iterator[DelegateRun | DelegateError]:
            for number, answer in enumerate(super().run_many(jobs)):
                yield DelegateError("too large") if number else answer

    report = verify(write_tflite(graph), graph, Refusing("litert-2.3-ref"), feeds, certify=True, threads=1)
    assert [v.verdict for v in report.layers] == ["not_compared"]
    assert report.exit_code() == 3


def test_another_profile_explains_a_certificate() -> None:
    """Held to the wrong profile, every differing case equals the right one's."""
    view, _ = weighted_layer(replace(SHAPES[2], filters=16), 3)
    graph = graph_of(view)
    runtime = OracleDelegate("litert-2.3-xnnpack")
    report = verify(
        write_tflite(graph), graph, runtime, [random_feeds(graph, 0)],
        profile="litert-2.3-ref", certify=True, threads=1,
    )  # fmt: skip
    assert [v.verdict for v in report.layers] == ["explained"]
    assert report.exit_code() == 1
