"""Two profiles compared for every input there is, layer by layer, without running a runtime.

A layer's arithmetic is finite: a staircase per channel over its accumulators, or a table over one or
two bytes. Equal staircases and tables are a proof; of unequal ones every difference is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.errors import CannotCompare, KaratError
from karat24.refimpl.graph import DTYPES, Array, Graph, LayerView, Tensor
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import Profile, Rule
from karat24.refimpl.staircase import reach, requantization, staircase, table
from karat24.refimpl.staircase.linear_form import data_range, data_zero_point, inputs_for, window_of
from karat24.refimpl.staircase.regions import Region, regions
from karat24.refimpl.staircase.requantization import ACCUMULATING
from karat24.refimpl.staircase.tables import PAIRS
from karat24.refimpl.staircase.thresholds import Staircase

Verdict = Literal["equal", "diverges", "undecided"]
EXIT_EQUAL, EXIT_DIVERGES, EXIT_UNDECIDED = 0, 1, 3

TRIES = 64
"""Accumulators for which inputs are looked for, before a layer is left without an example."""


@dataclass(frozen=True, eq=False)
class Example:
    """Inputs of one layer, by tensor index, on which two profiles give ``outputs`` at ``element``.

    ``accumulator`` is the value that both round there; None for tables. Both profiles' specs were run on
    them.
    """

    inputs: Mapping[int, Array]
    element: tuple[int, ...]
    outputs: tuple[float, float]
    accumulator: int | None = None


@dataclass(frozen=True, eq=False)
class LayerDivergence:
    """How far two profiles differ in one layer.

    ``differing`` of ``examined`` cases give different outputs, by ``max_abs_diff_lsb`` at most (0 where
    outputs are float32). A case is an accumulator of a channel (``staircase``), a value (``table``) or a
    pair of values (``pairs``); ``rule`` means both profiles name one rule and nothing was counted.
    """

    layer: int
    op: str
    name: str
    rules: tuple[str, str]
    verdict: Verdict
    how: Literal["rule", "staircase", "table", "pairs", ""]
    reason: str = ""
    examined: int = 0
    differing: int = 0
    max_abs_diff_lsb: int = 0
    channels: int = 0
    example: Example | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Divergence:
    """Every layer of one graph under two profiles."""

    profiles: tuple[str, str]
    layers: tuple[LayerDivergence, ...]

    @property
    def verdict(self) -> Verdict:
        """``equal`` only where that is proved for every layer."""
        found = {layer.verdict for layer in self.layers}
        return "diverges" if "diverges" in found else "undecided" if "undecided" in found else "equal"

    def exit_code(self) -> int:
        """0 proved equal, 1 a difference exists, 3 some layer could not be decided."""
        return {"equal": EXIT_EQUAL, "diverges": EXIT_DIVERGES, "undecided": EXIT_UNDECIDED}[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the examples' arrays, in JSON's own types."""
        return {
            "schema": 1,
            "profiles": list(self.profiles),
            "verdict": self.verdict,
            "exit_code": self.exit_code(),
            "layers": [_layer_to_dict(layer) for layer in self.layers],
        }


def _layer_to_dict(layer: LayerDivergence) -> dict[str, Any]:
    example = layer.example
    content = {
        name: getattr(layer, name)
        for name in ("layer", "op", "name", "verdict", "how", "reason", "examined", "differing")
    }
    return {
        **content,
        "rules": list(layer.rules),
        "max_abs_diff_lsb": layer.max_abs_diff_lsb,
        "channels": layer.channels,
        "example": None
        if example is None
        else {
            "element": list(example.element),
            "outputs": list(example.outputs),
            "accumulator": example.accumulator,
        },
    }


def diverge(graph: Graph, first: Profile, second: Profile, layers: Sequence[int] | None = None) -> Divergence:
    """Compares how two profiles round ``graph``, whose layers are those both run; all, or ``layers``.

    A layer one of them cannot describe, or whose op has no finite description, is ``undecided``.
    """
    wanted = range(len(graph.layers)) if layers is None else layers
    found = (_layer(view, first, second) for view in graph.views() if view.layer.index in wanted)
    return Divergence((first.name, second.name), tuple(found))


def _layer(view: LayerView, first: Profile, second: Profile) -> LayerDivergence:
    def found(verdict: Verdict, how: Any, rules: tuple[str, str], **details: Any) -> LayerDivergence:
        name = view.outputs[0].name if view.outputs else ""
        return LayerDivergence(view.layer.index, view.op, name, rules, verdict, how, **details)

    try:
        OPS[view.op].check(view)
        rules = first.rule(view), second.rule(view)
    except KeyError:
        return found("undecided", "", ("", ""), reason=f"{view.op} is not implemented")
    except KaratError as error:
        return found("undecided", "", ("", ""), reason=str(error))
    names = str(rules[0]), str(rules[1])
    if "unspecified" in {rule.method for rule in rules}:
        return found("undecided", "", names, reason="no document specifies this op's float32 bits")
    if rules[0] == rules[1]:
        return found("equal", "rule", names)
    try:
        counted = _staircases(view, rules) or _tables(view, rules)
    except CannotCompare as error:
        return found("undecided", "", names, reason=str(error))
    if counted is None:
        return found("undecided", "", names, reason=f"{view.op} is neither a staircase nor a small table")
    if counted.undecided:
        return found("undecided", counted.how, names, reason=counted.undecided)
    return found(
        "diverges" if counted.differing else "equal",
        counted.how,
        names,
        examined=counted.examined,
        differing=counted.differing,
        max_abs_diff_lsb=counted.largest,
        channels=counted.channels,
        example=counted.example,
    )


@dataclass(eq=False)
class _Count:
    """What is added up over the regions of one layer."""

    how: Literal["staircase", "table", "pairs"]
    examined: int = 0
    differing: int = 0
    largest: int = 0
    channels: int = 0
    example: Example | None = None
    undecided: str = ""


def _staircases(view: LayerView, rules: tuple[Rule, Rule]) -> _Count | None:
    rounding = [found for rule in rules if (found := requantization(view, rule)) is not None]
    if len(rounding) < len(rules):
        return None
    within = reach(view)
    if within is None:
        raise CannotCompare("the graph computes the filter or the bias, so no accumulator is bounded")
    count = _Count("staircase")
    if rules[0].accumulation != rules[1].accumulation and _pairs_can_saturate(view):
        count.undecided = (
            "pairs of products that pass 16 bits saturate under one profile only, and some pairs of this "
            "filter can: the accumulators themselves differ"
        )
        return count
    axis = ACCUMULATING[view.op].output_axis
    diverging = np.zeros(rounding[0].channels, bool)
    for region in regions(view, rules):
        there = region.channels(axis, rounding[0].channels)
        stairs = [
            staircase(rounding[i], method, within.first, within.last)
            for i, method in enumerate(region.methods)
        ]
        gaps = _Gaps(stairs[0], stairs[1])
        differing = np.where(there, gaps.counts, 0)
        count.examined += int((within.last - within.first + 1)[there].sum())
        count.differing += int(differing.sum())
        count.largest = max(count.largest, int(np.where(there, gaps.largest, 0).max(initial=0)))
        diverging |= differing > 0
        count.example = count.example or _accumulator_example(view, rules, region, gaps, differing)
    count.channels = int(diverging.sum())
    return count


def _pairs_can_saturate(view: LayerView) -> bool:
    """Whether two neighbouring weights, along (tap_y, tap_x, channel), times 255 can pass 16 bits."""
    filter_ = view.input(ACCUMULATING[view.op].filter).data
    if filter_ is None:
        return True
    weights = filter_.astype(np.int64)
    if view.op == "QLinearConv":
        rows = np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
    else:
        transposed = view.op == "com.microsoft:QGemm" and view.integer("transB", 0)
        rows = weights if transposed else np.moveaxis(weights, -2, -1).reshape(-1, weights.shape[-2])
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    pairs = rows.reshape(len(rows), -1, 2)
    greatest = np.maximum(pairs, 0).sum(axis=2) * 255
    least = np.minimum(pairs, 0).sum(axis=2) * 255
    return bool((greatest > 2**15 - 1).any() or (least < -(2**15)).any())


class _Gaps:
    """Where two staircases over one interval differ: runs of accumulators between thresholds."""

    def __init__(self, first: Staircase, second: Staircase) -> None:
        thresholds = np.concatenate([first.thresholds, second.thresholds])
        signs = np.repeat([1, -1], [len(first.thresholds), len(second.thresholds)])
        order = np.argsort(thresholds, axis=0, kind="stable")
        self.starts = np.take_along_axis(thresholds, order, axis=0)
        self.steps = np.cumsum(signs[order], axis=0)
        ends = np.concatenate([self.starts[1:], first.last[np.newaxis] + 1])
        lengths = np.where(self.steps != 0, ends - self.starts, 0)
        self.counts = np.asarray(lengths.sum(axis=0), np.int64)
        self.steps = np.where(lengths > 0, self.steps, 0)
        self.largest = np.abs(self.steps).max(axis=0)

    def accumulators(self, channel: int) -> Iterator[int]:
        """Accumulators of a channel at which the outputs differ, the furthest apart first."""
        steps = np.abs(self.steps[:, channel])
        for run in np.argsort(-steps, kind="stable"):
            if steps[run] == 0:
                return
            yield int(self.starts[run, channel])


def _accumulator_example(
    view: LayerView, rules: tuple[Rule, Rule], region: Region, gaps: _Gaps, differing: Array
) -> Example | None:
    """Inputs for one of the differing accumulators, tried on both specs; None where none were found."""
    operands = ACCUMULATING[view.op]
    data, axis, shape = view.input(operands.data), operands.output_axis, view.output().shape
    low, high = data_range(view)
    tries = 0
    for channel in np.argsort(-differing, kind="stable"):
        if differing[channel] == 0:
            return None
        windows = [(e, window_of(view, e)) for e in region.some_elements(shape, axis, int(channel))]
        bias = view.optional_input(operands.bias)
        for accumulator in gaps.accumulators(int(channel)):
            for element, window in windows:
                tries += 1
                if tries > TRIES:
                    return None
                offset = (
                    0 if bias is None or bias.data is None else _bias_at(bias.data, element, int(channel))
                )
                values = inputs_for(window, low, high, accumulator - offset)
                if values is None:
                    continue
                fed = np.zeros(data.shape, np.int64)
                fed.reshape(-1)[window.positions] = values
                fed += data_zero_point(view)
                example = _tried(view, rules, {operands.data: fed.astype(DTYPES[data.dtype])}, element)
                if example is not None:
                    return Example(example.inputs, element, example.outputs, accumulator)
    return None


def _bias_at(bias: Array, element: tuple[int, ...], channel: int) -> int:
    if bias.size == 1:
        return int(bias.reshape(-1)[0])
    if bias.ndim == 2:
        return int(np.broadcast_to(bias, (element[0] + 1, bias.shape[1]))[element[0], channel])
    return int(bias[channel])


def _tried(
    view: LayerView, rules: tuple[Rule, Rule], given: Mapping[int, Array], element: tuple[int, ...]
) -> Example | None:
    """The example, if both specs on the layer really differ at ``element``."""
    values: Values = [
        given.get(position, None if tensor is None else tensor.data)
        for position, tensor in enumerate(view.inputs)
    ]
    results = [OPS[view.op].spec(view, values, rule).outputs[0][element] for rule in rules]
    if results[0] == results[1]:
        return None
    inputs = {view.input(position).index: value for position, value in given.items()}
    return Example(inputs, element, (results[0].item(), results[1].item()))


def _tables(view: LayerView, rules: tuple[Rule, Rule]) -> _Count | None:
    count: _Count | None = None
    for region in regions(view, rules):
        tables = [table(view, rule, method) for rule, method in zip(rules, region.methods, strict=True)]
        if tables[0] is None or tables[1] is None:
            return None
        first, second = tables[0].outputs, tables[1].outputs
        if count is None:
            count = _Count("pairs" if first.ndim > 1 else "table")
        operands = PAIRS.get(view.op, (0,))
        occurring = np.ix_(*(_occurring(view.input(position)) for position in operands))
        unequal = np.zeros(first.shape, bool)
        unequal[occurring] = (
            first.view(f"u{first.itemsize}")[occurring] != second.view(f"u{second.itemsize}")[occurring]
        )
        count.examined += unequal[occurring].size
        count.differing += int(unequal.sum())
        if unequal.any():
            if first.dtype.kind in "iu":
                apart = np.abs(first.astype(np.int64) - second.astype(np.int64))
                count.largest = max(count.largest, int(apart[unequal].max()))
            count.example = count.example or _table_example(view, rules, region, unequal)
    return count


def _occurring(tensor: Tensor) -> Array:
    """Rows of a table that an operand can take: all 256, or the values a constant has."""
    if tensor.data is None:
        return np.arange(256)
    return np.unique(tensor.data.astype(np.int64) - np.iinfo(tensor.data.dtype).min)


def _table_example(
    view: LayerView, rules: tuple[Rule, Rule], region: Region, unequal: Array
) -> Example | None:
    """Operands filled with one value each, on which the specs differ; a constant operand stays as it is."""
    operands = PAIRS.get(view.op, (0,))
    shape = view.output().shape
    elements = np.ones(shape, bool) if region.elements is None else region.elements
    for case in np.argwhere(unequal)[:TRIES]:
        given: dict[int, Array] = {}
        suitable = elements
        for position, row in zip(operands, case, strict=True):
            tensor = view.input(position)
            value = int(np.iinfo(DTYPES[tensor.dtype]).min) + int(row)
            if tensor.data is None:
                given[position] = np.full(tensor.shape, value, DTYPES[tensor.dtype])
            else:
                suitable = suitable & np.broadcast_to(tensor.data == value, shape)
        if suitable.any():
            element = tuple(int(i) for i in np.argwhere(suitable)[0])
            example = _tried(view, rules, given, element)
            if example is not None:
                return example
    return None
