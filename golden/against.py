"""Comparing two runtimes layer by layer, also where one reads .tflite and the other .onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np

from karat24.delegates.protocol import (
    Delegate,
    DelegateRun,
    ExecutedGraph,
    Model,
)
from karat24.export import read_model, write_model
from karat24.export.cut import Cut, single_layer
from karat24.export.onnx import to_onnx
from karat24.export.onnx.layout import TO_NCHW, TO_NHWC
from karat24.golden.diff import diff_arrays
from karat24.golden.layer_record import Gathered, LayerRecord, OutputRecord
from karat24.golden.provenance import (
    feeds_digest,
    machine,
    model_digest,
    model_label,
)
from karat24.golden.report import Mode, Report
from karat24.golden.undefined import cleared
from karat24.golden.whole import WholeModel, run_whole
from karat24.refimpl.engine import Feeds, Missing, Progress, compile_graph, resolve_feeds
from karat24.refimpl.errors import CannotCompare, DelegateError, KaratError, UsageError
from karat24.refimpl.graph import Array, Format, Graph
from karat24.refimpl.profiles import profile_for
from karat24.refimpl.step import Implementation
from karat24.refimpl.trace import Trace


@dataclass(frozen=True)
class Side:
    """One runtime and the model file it is given."""

    delegate: Delegate
    model: Model
    graph: Graph

    @cached_property
    def executed(self) -> ExecutedGraph:
        """The layers the runtime runs for the file."""
        return self.delegate.executed_graph(self.model, self.graph)

    def run(self, base: Graph, feeds: Mapping[int, Array], everything: bool) -> DelegateRun | DelegateError:
        """One run of the file on the feeds of ``base``."""
        graph = self.executed.graph
        return run_whole(self.delegate, self.model, graph, self._feeds(base, feeds), everything)

    def _feeds(self, base: Graph, feeds: Mapping[int, Array]) -> list[Array]:
        return [
            relayout(feeds[ours], base.format, self.graph.format)
            for ours, _ in zip(base.inputs, self.graph.inputs, strict=True)
        ]

    def tensors(self, base: Graph, run: DelegateRun) -> dict[str, Array]:
        """The tensors that a run shows, by name, in the layout of ``base``."""
        tensors = self.executed.graph.tensors
        return {
            tensors[index].name: relayout(value, self.graph.format, base.format)
            for index, value in run.trace.tensors.items()
        }

    def follows_its_profile(
        self, base: Graph, feeds: Mapping[int, Array], threads: int | None, implementation: Implementation
    ) -> bool:
        """Whether the file's outputs are the oracle's, under the profile that describes the runtime."""
        try:
            program = compile_graph(
                self.executed.graph, self.delegate.profile or None, threads, implementation, missing="given"
            )
        except KaratError:
            return False
        whole = WholeModel(self.delegate, self.model, program)
        records = [OutputRecord(program.graph.tensors[index]) for index in program.graph.outputs]
        run = whole.run(self._feeds(base, feeds))
        whole.judge(run, records, ())
        floats = [Gathered() for _ in run.intervals]
        for tensor, record in zip(run.intervals, floats, strict=True):
            run.hold(tensor, record)
        return all(record.worst()[0] in ("bit_exact", "within_bound") for record in (*records, *floats))


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
        converted = write_model(to_onnx(graph, "qoperator"))
        # Read back: an ONNX file names its tensors, their indices are the reader's.
        return Side(delegate, converted, read_model(converted))
    raise UsageError(
        f"{delegate.name} runs .tflite models and this one is .onnx; give the same model as .tflite first, "
        "and the .onnx file with --other"
    )


# Options with defaults follow `*`; a user names each of them, so that a record would not be shorter.
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
    implementation: Implementation = "cheapest",
) -> Report:
    """Compares two runtimes on every layer of ``graph``, for every sample.

    ``isolated`` cuts out each layer that the first runtime runs, and feeds it with the oracle's values under
    the canonical profile; a difference is *explained* when each runtime computes exactly what its own profile
    says. ``cumulative`` compares whole runs; tensors are matched by name. In either mode the outputs of the
    unchanged files are compared, too. ``other`` is the model in the second runtime's format, with the reading
    of that file; without it a .tflite model is written as .onnx where a runtime needs that.
    ``implementation`` is how the oracle computes layers. Raises UsageError for a pairing that cannot be made,
    and what running the runtimes raises.
    """
    if other is not None and mode == "isolated":
        raise UsageError("two files are compared by whole runs: add --cumulative")
    sides = side_for(first, model, graph), side_for(second, *(other or (model, graph)))
    if graph.format == sides[0].graph.format:
        graph = sides[0].executed.graph
    comparison: _Comparison
    if mode == "isolated":
        comparison = _Isolated(graph, sides, threads, progress, implementation, len(samples))
    else:
        comparison = _Cumulative(graph, sides)
    records = [
        LayerRecord(view, position, f"{first.name} against {second.name}")
        for view in graph.views()
        for position in range(len(view.outputs))
    ]
    outputs = [OutputRecord(graph.tensors[index]) for index in graph.outputs]
    for feeds in samples:
        fed = resolve_feeds(graph, feeds)
        runs = [side.run(graph, fed, comparison.reads_everything) for side in sides]
        comparison.judge(fed, runs, records)
        _judge_outputs(graph, sides, fed, runs, outputs, threads, implementation)
    layers = [record.verdict() for record in records]
    return Report(
        model=model_label(model),
        model_sha256=model_digest(model),
        feeds_sha256=feeds_digest(graph, samples),
        delegate=first.name,
        profile=second.name,
        mode=mode,
        samples=len(samples),
        layers=tuple(layers),
        versions={
            f"{delegate.name} {name}": version
            for delegate in (first, second)
            for name, version in delegate.versions().items()
        },
        machine=machine(),
        outputs=tuple(record.verdict(layers) for record in outputs),
        notes=_notes(sides),
    )


Runs: TypeAlias = "Sequence[DelegateRun | DelegateError]"


def _judge_outputs(
    graph: Graph,
    sides: tuple[Side, Side],
    feeds: Mapping[int, Array],
    runs: Runs,
    records: Sequence[OutputRecord],
    threads: int | None,
    implementation: Implementation,
) -> None:
    """Compares the outputs of the unchanged files, in the layout of ``graph``."""
    found = []
    for side, run in zip(sides, runs, strict=True):
        if isinstance(run, DelegateError):
            for record in records:
                record.refuse(str(run))
            return
        found.append([relayout(value, side.graph.format, graph.format) for value in run.outputs])
    reason: str | None = None
    for record, mine, theirs in zip(records, *found, strict=True):
        try:
            diff = diff_arrays(theirs, mine)
        except CannotCompare as error:
            record.refuse(str(error))
            continue
        if not diff.equal and reason is None:
            explained = all(side.follows_its_profile(graph, feeds, threads, implementation) for side in sides)
            reason = _each_its_own([side.delegate for side in sides]) if explained else ""
        record.add(diff, reason or "")


def _each_its_own(delegates: Sequence[Delegate]) -> str:
    return "each runtime computes what its own profile says: " + " and ".join(
        f"{delegate.name} {delegate.profile}" for delegate in delegates
    )


def _notes(sides: Sequence[Side]) -> tuple[str, ...]:
    """For each runtime: its profile and the reason, whether its version is known, and the origin of its
    layers."""
    fits = [(side.delegate.name, side.delegate.fit) for side in sides]
    found = [f"{name} computes as {fit.profile}: {fit.reason}" for name, fit in fits if fit.reason]
    found += [probe.reason for probe in (side.delegate.probe() for side in sides) if probe.reason]
    found += [f"{side.delegate.name}: {side.executed.note}" for side in sides if side.executed.note]
    return tuple(dict.fromkeys(found))


class _Comparison(Protocol):
    reads_everything: bool

    def judge(self, feeds: Mapping[int, Array], runs: Runs, records: Sequence[LayerRecord]) -> None:
        """Compares every layer on one sample; ``runs`` are the whole runs of it."""


class _Cumulative:
    """Compares whole runs; a tensor that one of the runtimes hides or merges cannot be compared."""

    reads_everything = True

    def __init__(self, graph: Graph, sides: tuple[Side, Side]) -> None:
        self._graph, self._sides = graph, sides

    def judge(self, feeds: Mapping[int, Array], runs: Runs, records: Sequence[LayerRecord]) -> None:  # noqa: ARG002
        """Compares every layer on one sample."""
        found = []
        for side, run in zip(self._sides, runs, strict=True):
            if isinstance(run, DelegateError):
                for record in records:
                    record.refuse(str(run))
                return
            if run.capture_changed:
                for record in records:
                    record.refuse(f"keeping every tensor changed the outputs of {side.delegate.name}")
            found.append(side.tensors(self._graph, run))
        for record in records:
            for side, tensors in zip(self._sides, found, strict=True):
                if record.tensor.name not in tensors:
                    record.refuse(f"{side.delegate.name} shows no tensor {record.tensor.name!r}")
            if record.refused:
                continue
            try:
                record.add(diff_arrays(*(tensors[record.tensor.name] for tensors in reversed(found))))
            except CannotCompare as error:
                record.refuse(str(error))


class _Isolated:
    """Each layer as a model of its own for each runtime, fed with the oracle's inputs."""

    def __init__(
        self,
        graph: Graph,
        sides: tuple[Side, Side],
        threads: int | None,
        progress: Progress | None,
        implementation: Implementation,
        runs: int,
    ) -> None:
        self._delegates = tuple(side.delegate for side in sides)
        # Values that the oracle lacks come from a runtime that runs exactly these layers.
        self._source = next((i for i, side in enumerate(sides) if side.executed.graph is graph), None)
        missing: Missing = "refuse" if self._source is None else "given"
        self._implementation = implementation
        self._program = compile_graph(
            graph, profile_for(graph), threads, implementation, missing=missing, runs=runs
        )
        source = sides[self._source or 0]
        self._whole = WholeModel(source.delegate, source.model, self._program)
        self.reads_everything = self._source is not None and self._whole.needs_values
        self._progress = progress
        self._cuts = [single_layer(graph, layer.index) for layer in graph.layers]
        self._files = [[self._side(delegate, cut) for cut in self._cuts] for delegate in self._delegates]

    def _side(self, delegate: Delegate, cut: Cut) -> Side | str:
        """The layer as the runtime reads it, or why it cannot be given to it."""
        try:
            return side_for(delegate, write_model(cut.graph), cut.graph)
        except UsageError:
            raise
        except KaratError as error:
            return str(error)

    def judge(self, feeds: Mapping[int, Array], runs: Runs, records: Sequence[LayerRecord]) -> None:
        """Compares every layer on one sample."""
        trace = self._trace(feeds, runs)
        answers = [
            self._answers(delegate, sides, trace)
            for delegate, sides in zip(self._delegates, self._files, strict=True)
        ]
        for record in records:
            self._compare(record, [given[record.layer] for given in answers], trace)

    def _trace(self, feeds: Mapping[int, Array], runs: Runs) -> Trace:
        """The values to feed the layers with."""
        if self._source is None:
            trace = self._program.run(feeds, trace=True, progress=self._progress).trace
            assert trace is not None
            return trace
        return self._whole.beside(runs[self._source], feeds, self._progress).trace

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
                outputs = cleared(side.graph, run).outputs
                answers.append(
                    tuple(relayout(value, side.graph.format, cut.graph.format) for value in outputs)
                )
        return answers

    def _feeds(self, cut: Cut, side: Side, trace: Trace) -> list[Array]:
        return [
            relayout(trace.tensors[cut.tensors[index]], cut.graph.format, side.graph.format)
            for index in cut.graph.inputs
        ]

    def _compare(self, record: LayerRecord, answers: Sequence[tuple[Array, ...] | str], trace: Trace) -> None:
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

    def _explain(self, record: LayerRecord, found: Sequence[Array | str], trace: Trace) -> str:
        """The reason where each runtime computes exactly what its own profile says, else ''."""
        for delegate, sides, value in zip(self._delegates, self._files, found, strict=True):
            side, cut = sides[record.layer], self._cuts[record.layer]
            assert isinstance(side, Side)
            if not delegate.profile:
                return ""
            try:
                threads = self._program.target.threads
                program = compile_graph(side.graph, delegate.profile, threads, self._implementation)
            except KaratError:
                return ""
            expected = program.run(self._feeds(cut, side, trace)).outputs[record.position]
            if not np.array_equal(relayout(expected, side.graph.format, cut.graph.format), value):
                return ""
        return _each_its_own(self._delegates)
