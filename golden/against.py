"""Two runtimes against each other, layer by layer, even where one reads .tflite and the other .onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from delegates.protocol import Delegate, DelegateRun, Model
from export import graph_under
from export.cut import Cut, single_layer
from export.onnx import read_onnx, to_onnx
from golden.diff import diff_arrays
from golden.provenance import feeds_digest, machine, model_digest, model_label, written
from golden.record import Record
from golden.report import Mode, Report
from refimpl.engine import Feeds, Program, Progress, compile_graph, resolve_feeds
from refimpl.errors import CannotCompare, DelegateError, KaratError, UsageError
from refimpl.graph import Array, Format, Graph
from refimpl.profiles import PROFILES, profile_for
from refimpl.trace import Trace

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class Side:
    """One runtime and the model file it is given."""

    delegate: Delegate
    model: Model
    graph: Graph

    def run(self, base: Graph, feeds: Mapping[int, Array]) -> tuple[DelegateRun, dict[str, Array]]:
        """One whole run; its tensors by name, in the layout of ``base``."""
        given = [
            relayout(feeds[ours], base.format, self.graph.format)
            for ours, _ in zip(base.inputs, self.graph.inputs, strict=True)
        ]
        run = self.delegate.run(self.model, given, tensors="all")
        return run, {
            self.graph.tensors[index].name: relayout(value, self.graph.format, base.format)
            for index, value in run.trace.tensors.items()
        }


def relayout(values: Array, source: Format, target: Format) -> Array:
    """Four-dimensional values from one format's layout to the other's (NHWC, NCHW)."""
    if source == target or values.ndim != 4:
        return values
    return np.ascontiguousarray(values.transpose(TO_NCHW if source == "tflite" else TO_NHWC))


def side_for(delegate: Delegate, model: Model, graph: Graph) -> Side:
    """The model as ``delegate`` reads it: as it is, or written as .onnx with integer ops.

    Raises UsageError for a runtime of .tflite files and a model that is not one.
    """
    wanted = delegate.format
    if graph.format == wanted:
        return Side(delegate, model, graph)
    if wanted == "onnx":
        converted = written(to_onnx(graph, "qoperator"))
        # Read back: an ONNX file names its tensors, their indices are the reader's.
        return Side(delegate, converted, read_onnx(converted))
    raise UsageError(
        f"{delegate.name} runs .tflite models and this one is .onnx; give the same model as .tflite first, "
        "and the .onnx file with --other"
    )


def compare_runtimes(
    model: Model,
    graph: Graph,
    first: Delegate,
    second: Delegate,
    samples: Sequence[Feeds],
    *,
    other: tuple[Model, Graph] | None = None,
    mode: Mode = "isolated",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compares two runtimes on every layer of ``graph``, for every sample.

    ``isolated`` feeds each layer, cut out, with what the oracle has there under the canonical
    profile; a difference is *explained* when each runtime computes exactly what its own profile says.
    ``cumulative`` compares whole runs, tensors matched by name. ``other`` is the same model in the
    second runtime's format and the reading of that file; without it a .tflite model is written as
    .onnx where a runtime needs that.
    Raises UsageError for a pairing that cannot be made, and what running the runtimes raises.
    """
    if other is not None and mode == "isolated":
        raise UsageError("two files are compared by whole runs: add --cumulative")
    comparison: _Comparison
    if mode == "isolated":
        canonical = profile_for(graph)
        graph = graph_under(graph, canonical)
        comparison = _Isolated(compile_graph(graph, canonical, threads), first, second, progress)
    else:
        sides = side_for(first, model, graph), side_for(second, *(other or (model, graph)))
        if first.profile:
            graph = graph_under(graph, PROFILES[first.profile])
        comparison = _Cumulative(graph, *sides)
    records = [
        Record(view, position, f"{first.name} against {second.name}")
        for view in graph.views()
        for position in range(len(view.outputs))
    ]
    for feeds in samples:
        comparison.judge(resolve_feeds(graph, feeds), records)
    return Report(
        model=model_label(model),
        model_sha256=model_digest(model),
        feeds_sha256=feeds_digest(graph, samples),
        delegate=first.name,
        profile=second.name,
        mode=mode,
        samples=len(samples),
        layers=tuple(record.verdict() for record in records),
        versions={
            f"{delegate.name} {name}": version
            for delegate in (first, second)
            for name, version in delegate.versions().items()
        },
        machine=machine(),
        notes=tuple(delegate.probe().reason for delegate in (first, second) if delegate.probe().reason),
    )


class _Comparison(Protocol):
    def judge(self, feeds: Mapping[int, Array], records: Sequence[Record]) -> None:
        """Compares every layer on one sample."""


class _Cumulative:
    """Whole runs; a tensor either runtime hides or merges away cannot be compared."""

    def __init__(self, graph: Graph, first: Side, second: Side) -> None:
        self._graph, self._sides = graph, (first, second)

    def judge(self, feeds: Mapping[int, Array], records: Sequence[Record]) -> None:
        """Compares every layer on one sample."""
        runs = [side.run(self._graph, feeds) for side in self._sides]
        for record in records:
            for side, (run, found) in zip(self._sides, runs, strict=True):
                if run.capture_changed:
                    record.refuse(f"keeping every tensor changed the outputs of {side.delegate.name}")
                elif record.tensor.name not in found:
                    record.refuse(f"{side.delegate.name} shows no tensor {record.tensor.name!r}")
            if record.refused:
                continue
            try:
                record.add(diff_arrays(*(found[record.tensor.name] for _, found in reversed(runs))))
            except CannotCompare as error:
                record.refuse(str(error))


class _Isolated:
    """Each layer as a model of its own for each runtime, fed with the oracle's inputs."""

    def __init__(
        self, program: Program, first: Delegate, second: Delegate, progress: Progress | None
    ) -> None:
        self._program, self._progress = program, progress
        self._cuts = [single_layer(program.graph, layer.index) for layer in program.graph.layers]
        self._sides = [[self._side(delegate, cut) for cut in self._cuts] for delegate in (first, second)]
        self._delegates = (first, second)

    def _side(self, delegate: Delegate, cut: Cut) -> Side | str:
        """The layer as the runtime reads it, or why it cannot be given to it."""
        try:
            return side_for(delegate, written(cut.graph), cut.graph)
        except UsageError:
            raise
        except KaratError as error:
            return str(error)

    def judge(self, feeds: Mapping[int, Array], records: Sequence[Record]) -> None:
        """Compares every layer on one sample."""
        trace = self._program.run(feeds, trace=True, progress=self._progress).trace
        assert trace is not None
        answers = [
            self._answers(delegate, sides, trace)
            for delegate, sides in zip(self._delegates, self._sides, strict=True)
        ]
        for record in records:
            self._compare(record, [given[record.layer] for given in answers], trace)

    def _answers(
        self, delegate: Delegate, sides: Sequence[Side | str], trace: Trace
    ) -> list[tuple[Array, ...] | str]:
        """Each layer's outputs in the base layout, or why there are none."""
        jobs = [
            (side.model, self._feeds(cut, side, trace))
            for side, cut in zip(sides, self._cuts, strict=True)
            if isinstance(side, Side)
        ]
        runs = iter(list(delegate.run_many(jobs)))
        answers: list[tuple[Array, ...] | str] = []
        for side, cut in zip(sides, self._cuts, strict=True):
            if isinstance(side, str):
                answers.append(side)
                continue
            run = next(runs)
            if isinstance(run, DelegateError):
                answers.append(str(run))
            else:
                answers.append(
                    tuple(relayout(value, side.graph.format, cut.graph.format) for value in run.outputs)
                )
        return answers

    def _feeds(self, cut: Cut, side: Side, trace: Trace) -> list[Array]:
        return [
            relayout(trace.tensors[cut.tensors[index]], cut.graph.format, side.graph.format)
            for index in cut.graph.inputs
        ]

    def _compare(self, record: Record, answers: Sequence[tuple[Array, ...] | str], trace: Trace) -> None:
        for answer in answers:
            if isinstance(answer, str):
                record.refuse(answer)
                return
        mine, theirs = (answer[record.position] for answer in answers)
        try:
            diff = diff_arrays(theirs, mine)  # type: ignore[arg-type]
        except CannotCompare as error:
            record.refuse(str(error))
            return
        record.add(diff, "" if diff.equal else self._explain(record, (mine, theirs), trace), "introduced")

    def _explain(self, record: Record, found: Sequence[Array | str], trace: Trace) -> str:
        """Does each runtime compute exactly what its own profile says?"""
        for delegate, sides, value in zip(self._delegates, self._sides, found, strict=True):
            side, cut = sides[record.layer], self._cuts[record.layer]
            assert isinstance(side, Side)
            if not delegate.profile:
                return ""
            program = compile_graph(side.graph, delegate.profile, self._program.target.threads)
            expected = program.run(self._feeds(cut, side, trace)).outputs[record.position]
            if not np.array_equal(relayout(expected, side.graph.format, cut.graph.format), value):
                return ""
        return "each runtime computes what its own profile says: " + " and ".join(
            f"{delegate.name} {delegate.profile}" for delegate in self._delegates
        )
