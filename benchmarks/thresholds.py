"""``python -m benchmarks.thresholds`` compares staircases of random layers with the specs, for every profile.

Each layer has scales, zero points, biases and values of its own. Three things must hold:

1. at every threshold the op's last step gives the output, one accumulator below it less;
2. the whole spec, on drawn values, gives what the staircase says of its accumulators;
3. the whole spec steps in every channel between two biases that put its accumulator on a threshold and
   one below. A QLinearMatMul has no bias, so it is held to the first two.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.markdown import table
from karat24.golden.establish.kinds import WEIGHTED, Kind
from karat24.golden.establish.trials import layer_of
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, LayerView, Tensor
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, Rule
from karat24.refimpl.staircase import Staircase, reach, requantization, staircase
from karat24.refimpl.staircase.regions import regions
from karat24.refimpl.staircase.requantization import ACCUMULATING, Requantization

OPERATIONS = tuple(dict.fromkeys(kind.op for kind in WEIGHTED))


@dataclass
class Tally:
    """Counts of one profile: compared layers of each op, thresholds, and layers without a rule."""

    layers: Counter[str] = field(default_factory=Counter)
    thresholds: Counter[str] = field(default_factory=Counter)
    without_rule: Counter[str] = field(default_factory=Counter)


def random_layer(op: str, seed: int) -> LayerView:
    """A layer of ``op`` like those of ``karat24 establish``, with random zero points and biases and, in
    .tflite files, a fused activation in a third of the layers."""
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in WEIGHTED if kind.op == op]
    kind = kinds[int(rng.integers(len(kinds)))]
    view = layer_of(kind, seed).view(0)
    view = replace(view, inputs=tuple(None if t is None else _varied(t, kind, rng) for t in view.inputs))
    if kind.format == "onnx":
        return view
    output = _varied(view.output(), kind, rng)
    activation = str(rng.choice(["NONE", "RELU", "RELU6"]))
    attributes = {**view.layer.attributes, "fused_activation_function": activation}
    return replace(view, outputs=(output,), layer=replace(view.layer, attributes=attributes))


def _varied(tensor: Tensor, kind: Kind, rng: np.random.Generator) -> Tensor:
    """The tensor with another zero point or, if it is a bias, other values; int8 filters are symmetric."""
    low, high = QUANTIZED_RANGE[kind.dtype]
    drawn = int(rng.choice([low, low + 1, int(rng.integers(low, high)), high]))
    if tensor.data is not None and tensor.dtype == "int32" and tensor.name == "bias":
        return replace(tensor, data=rng.integers(-9000, 9000, tensor.shape).astype(np.int32))
    if tensor.name in ("data_zero_point", "output_zero_point"):
        return replace(tensor, data=np.full(tensor.shape, drawn, tensor.dtype))
    if tensor.quantization is not None and tensor.data is None:
        return replace(tensor, quantization=replace(tensor.quantization, zero_point=(drawn,)))
    return tensor


def drawn_values(view: LayerView, seed: int) -> list[Array | None]:
    """One array of random values per input, with the ends of the type among them."""
    rng = np.random.default_rng(seed)
    data = view.input(ACCUMULATING[view.op].data)
    low, high = QUANTIZED_RANGE[data.dtype]
    values = rng.integers(low, high + 1, data.shape)
    fed = np.where(rng.random(data.shape) < 0.2, rng.choice([low, high], data.shape), values)
    return [None if t is None else fed.astype(DTYPES[t.dtype]) if t is data else t.data for t in view.inputs]


def check(view: LayerView, rule: Rule, seed: int) -> int:
    """The number of compared thresholds. Raises AssertionError where a staircase and the spec differ."""
    rounding, within = requantization(view, rule), reach(view)
    assert rounding is not None, view
    assert within is not None, view
    found = 0
    stairs = {}
    for method in dict.fromkeys((rule.method, rule.tail or rule.method)):
        stairs[method] = staircase(rounding, method, within.first, within.last)
        found += _at_thresholds(rounding, stairs[method], f"{view}, {rule}")
    values = drawn_values(view, seed)
    accumulator = _as_said(view, rule, stairs, values)
    if view.op != "QLinearMatMul":
        _steps_between_biases(view, rule, stairs, values, accumulator)
    return found


def _at_thresholds(rounding: Requantization, stairs: Staircase, where: str) -> int:
    t, first, last = stairs.thresholds, stairs.first, stairs.last
    steps = np.arange(rounding.low + 1, rounding.high + 1)[:, np.newaxis]
    at = rounding(np.minimum(t, last), stairs.method) >= steps
    below = rounding(np.maximum(t - 1, first), stairs.method) < steps
    _require((at == (t <= last)).all() and below[t > first].all(), where)
    return int(((t > first) & (t <= last)).sum())


def _as_said(view: LayerView, rule: Rule, stairs: dict[str, Staircase], values: list[Array | None]) -> Array:
    """The accumulators, channels last, of the spec on ``values``, whose outputs the staircases give."""
    result = OPS[view.op].spec(view, values, rule)
    assert result.accumulator is not None
    axis = ACCUMULATING[view.op].output_axis
    acc = np.moveaxis(result.accumulator.astype(np.int64), axis, -1)
    given = np.moveaxis(result.outputs[0].astype(np.int64), axis, -1)
    for region in regions(view, [rule]):
        said = stairs[region.methods[0]].outputs(acc.reshape(-1, acc.shape[-1])).reshape(acc.shape)
        here = np.ones(acc.shape, bool)
        if region.elements is not None:
            here = np.moveaxis(region.elements, axis, -1)
        _require((said == given)[here].all(), f"{view}, {rule}")
    return acc


def _steps_between_biases(
    view: LayerView, rule: Rule, stairs: dict[str, Staircase], values: list[Array | None], accumulator: Array
) -> None:  # fmt: skip
    """The first output of every channel, on one of its thresholds and one accumulator below."""
    axis = ACCUMULATING[view.op].output_axis
    channels = accumulator.shape[-1]
    first = accumulator.reshape(-1, channels)[0]
    method = dict.fromkeys(range(channels), rule.method)
    for region in regions(view, [rule]):
        if region.elements is not None:
            inside = np.moveaxis(region.elements, axis, -1).reshape(-1, channels)[0]
            method.update(dict.fromkeys(map(int, np.flatnonzero(inside)), region.methods[0]))
    wanted, steps = first.copy(), np.zeros(channels, bool)
    for channel in range(channels):
        of = stairs[method[channel]]
        t = of.thresholds[:, channel]
        t = t[(t > of.first[channel]) & (t <= of.last[channel])]
        if t.size:
            wanted[channel], steps[channel] = t[(7 * channel) % t.size], True
    bias = ACCUMULATING[view.op].bias
    given = values[bias]
    assert given is not None
    outputs = []
    for below in (0, 1):
        moved = list(values)
        moved[bias] = (given.astype(np.int64) + wanted - below - first).astype(np.int32)
        result = OPS[view.op].spec(view, moved, rule)
        outputs.append(np.moveaxis(result.outputs[0], axis, -1).reshape(-1, channels)[0].astype(np.int64))
    _require((outputs[0] > outputs[1])[steps].all(), f"{view}, {rule}")


def _require(holds: bool | np.bool_, where: str) -> None:
    if not holds:
        raise AssertionError(where)


def run(operations: Sequence[str], tallies: dict[str, Tally], layers: int, seed: int = 0) -> Iterator[str]:
    """Checks ``layers`` random layers of each op under the profiles named in ``tallies``; prints progress.

    A rule that several profiles share is checked once for a layer and counted for each of them.
    """
    profiles = [PROFILES[name] for name in tallies]
    for op in operations:
        for number in range(layers):
            view = random_layer(op, seed + number)
            OPS[op].check(view)
            checked: dict[Rule, int] = {}
            for profile in profiles:
                tally = tallies[profile.name]
                if (profile.format == "tflite") != op.isupper():
                    continue
                try:
                    rule = profile.rule(view)
                except KaratError:
                    tally.without_rule[op] += 1
                    continue
                if rule not in checked:
                    checked[rule] = check(view, rule, seed + number)
                tally.layers[op] += 1
                tally.thresholds[op] += checked[rule]
            yield f"{op} {number + 1}/{layers}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table of the comparisons; returns 1 where a staircase and a spec differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thresholds", description=__doc__)
    parser.add_argument("--layers", type=int, default=1000, help="of each op (default: 1000)")
    parser.add_argument("--profiles", nargs="+", default=list(PROFILES), choices=list(PROFILES), metavar="P")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    formats = {PROFILES[name].format for name in options.profiles}
    operations = [op for op in OPERATIONS if ("tflite" if op.isupper() else "onnx") in formats]
    begun, tallies = time.perf_counter(), {name: Tally() for name in options.profiles}
    try:
        for done in run(operations, tallies, options.layers, options.seed):
            if sys.stderr.isatty():
                print(f"\r\033[K{done}", end="\r", file=sys.stderr, flush=True)
    except AssertionError as error:
        print(f"a staircase is not what the spec computes: {error}", file=sys.stderr)
        return 1
    print(markdown(operations, tallies))
    print(f"\nNo difference. {time.perf_counter() - begun:.0f} s.")
    return 0


def markdown(operations: Sequence[str], tallies: dict[str, Tally]) -> str:
    """A row per profile: layers of each op, and thresholds of all."""
    rows = []
    for name, tally in tallies.items():
        cells = []
        for op in operations:
            without = f" ({tally.without_rule[op]} without a rule)" if tally.without_rule[op] else ""
            cells.append(f"{tally.layers[op]:,}{without}" if tally.layers[op] else f"–{without}")
        rows.append((name, *cells, f"{sum(tally.thresholds.values()):,}"))
    return table(("profile", *(op.removeprefix("com.microsoft:") for op in operations), "thresholds"), rows)


if __name__ == "__main__":
    sys.exit(main())
