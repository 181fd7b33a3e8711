"""Judging a recording: each layer on the inputs recorded for it, else on the oracle's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from karat24.delegates.protocol import Model
from karat24.export import graph_under
from karat24.golden.attribution import Attribution, Search
from karat24.golden.diff import diff_arrays
from karat24.golden.explain import Explainer, open_ties_reason, tie_distance
from karat24.golden.layer_record import LayerRecord, OutputRecord
from karat24.golden.provenance import feeds_digest, machine, model_digest, model_label
from karat24.golden.recordings.read import Dump, read_dump
from karat24.golden.recordings.readings import Reading, Recorded, best_reading, explaining_reading, fits
from karat24.golden.report import Report
from karat24.golden.undefined import written_only
from karat24.golden.whole import interval_of_step, reason_to_give
from karat24.refimpl.engine import Feeds, Program, compile_graph, resolve_feeds
from karat24.refimpl.errors import CannotCompare, UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.profiles import profile_for
from karat24.refimpl.step import LayerResult, Step

NOT_RECORDED = "the recording does not hold this tensor"
INHERITED = "inherited: exact on the inputs recorded"


def verify_recorded(
    model: Model,
    graph: Graph,
    dump: Dump,
    feeds: Feeds | None = None,
    *,
    profile: str | None = None,
    tensor: str | None = None,
    only_recorded: bool = False,
    others: Sequence[tuple[str, Graph]] = (),
    threads: int | None = None,
) -> Report:
    """Compares what another runtime gave for ``feeds`` with the oracle, tensor by tensor.

    ``graph`` is the reading of ``model``; ``dump`` and ``tensor`` are those of
    :func:`~karat24.golden.recordings.read.read_dump`. Without ``feeds`` the dump must hold the inputs.
    A layer runs on its recorded inputs; where one is missing, on what the oracle makes of the recordings
    before it. A layer without a recording is not compared; with ``only_recorded`` it is left out of the
    report, so that the layers in front of an output that is equal do not keep it from passing. ``others`` are
    named versions of the model that the runtime may have run by mistake.

    Raises CannotCompare for a dump of another input or another model, FeedError for one that cannot be read,
    UsageError where inputs are missing, and what compiling the graph raises.
    """
    chosen = profile_for(graph, profile)
    graph = graph_under(graph, chosen)
    program = compile_graph(graph, chosen, threads, missing="given")
    recorded = read_dump(graph, dump, tensor)
    fed = fed_as_recorded(graph, recorded, feeds)
    assumed = [] if feeds is not None else assumed_of_inputs(graph, recorded)
    require_this_model(graph, recorded)
    judge = _Judge(program, recorded, fed, Search(program, others))
    for step in program.steps:
        judge.take(step)
    kept = [record for record in judge.records if not only_recorded or record.tensor.index in recorded]
    layers = tuple(record.verdict() for record in kept)
    notes = [*assumed, *judge.notes()]
    if len(kept) < len(judge.records):
        notes.append(
            f"{len(judge.records) - len(kept)} of {len(judge.records)} layer outputs have no recording and "
            "were left out"
        )
    return Report(
        model=model_label(model),
        model_sha256=model_digest(model),
        feeds_sha256=feeds_digest(graph, [fed]),
        delegate=f"recording {dump}" if isinstance(dump, Path) else "recording",
        profile=chosen.name,
        mode="recorded",
        samples=1,
        layers=layers,
        versions={},
        machine=machine(),
        outputs=tuple(judge.output(index).verdict(list(layers)) for index in graph.outputs),
        notes=tuple(notes),
        profile_reason=chosen.caveat,
    )


def fed_as_recorded(graph: Graph, recorded: Mapping[int, Recorded], feeds: Feeds | None) -> dict[int, Array]:
    """What the model was fed: as given, as recorded, or, where both are there, as both say."""
    read = {
        index: best_reading(recorded[index], graph.tensors[index], graph.format, None).values
        for index in graph.inputs
        if index in recorded
    }
    if feeds is None:
        missing = [graph.label(index) for index in graph.inputs if index not in read]
        if missing:
            raise UsageError(
                f"the recording holds no values of input {', '.join(missing)}: give what was fed with --input"
            )
        return resolve_feeds(graph, read)
    fed = resolve_feeds(graph, feeds)
    for index in read:
        values = best_reading(recorded[index], graph.tensors[index], graph.format, fed[index]).values
        diff = diff_arrays(fed[index], values)
        if not diff.equal:
            raise CannotCompare(
                f"{diff.mismatch_count} of {diff.elements} values of input {graph.label(index)} in the "
                "recording are not those given: another input was recorded, or the runtime was fed otherwise"
            )
    return fed


def assumed_of_inputs(graph: Graph, recorded: Mapping[int, Recorded]) -> list[str]:
    """What was assumed of recorded inputs where nothing else says what the model was fed."""
    readings = {
        index: best_reading(recorded[index], graph.tensors[index], graph.format, None)
        for index in graph.inputs
    }
    return [
        f"assumed of input {graph.label(index)}: {reading}; give what was fed with --input to be sure"
        for index, reading in readings.items()
        if reading.assumed
    ]


def require_this_model(graph: Graph, recorded: Mapping[int, Recorded]) -> None:
    """Raises CannotCompare where the dump holds a constant of other values: it is of another model."""
    for index, array in recorded.items():
        tensor = graph.tensors[index]
        if tensor.data is None or tensor.is_opaque:
            continue
        values = best_reading(array, tensor, graph.format, tensor.data).values
        if not diff_arrays(tensor.data, values).equal:
            raise CannotCompare(
                f"constant {graph.label(index)} has other values in the recording than in the model: "
                "the recording is of another model, or of another version of it"
            )


class _Judge:
    """One pass over the layers, with the values recorded and those of the oracle alone beside each other.

    ``_unknown`` maps tensors without a value, in the recording and after it, to the reason; ``_mishaps`` maps
    those whose values are as expected after another reading to the values as they stand, and that reading.
    """

    def __init__(
        self,
        program: Program,
        recorded: Mapping[int, Recorded],
        fed: Mapping[int, Array],
        search: Search,
    ) -> None:
        self._program, self._graph, self._recorded, self._search = program, program.graph, recorded, search
        constants = {tensor.index: tensor.data for tensor in program.graph.tensors if tensor.data is not None}
        self._values: dict[int, Array] = {**constants, **fed}
        self._pure: dict[int, Array] = dict(self._values)
        self._unknown: dict[int, str] = {}
        self._assumed: dict[str, list[int]] = {}
        self._mishaps: dict[int, tuple[Array, str]] = {}
        self.records: list[LayerRecord] = []

    def take(self, step: Step) -> None:
        """Runs one layer and compares what was recorded of it."""
        own, why = self._run(step, self._values)
        pure = own if self._is_pure(step) else self._run(step, self._pure)[0]
        records = [LayerRecord(step.view, place, str(step.rule)) for place in range(len(step.view.outputs))]
        for record in records:
            self._read(record, own, why)
        if pure is not None:
            self._pure.update(zip(step.view.layer.outputs, pure.outputs, strict=True))
        for record in records:
            if record.tensor.index in self._recorded and not record.refused:
                self._compare(record, step, own, why)
        self.records += records

    def _is_pure(self, step: Step) -> bool:
        return all(self._values.get(i) is self._pure.get(i) for i in step.view.layer.inputs if i != -1)

    def _run(self, step: Step, values: Mapping[int, Array]) -> tuple[LayerResult | None, str]:
        """The layer's result on ``values``, or None and the reason why there is none."""
        if reason := reason_to_give(step):
            return None, reason
        for index in step.view.layer.inputs:
            if index != -1 and index not in values:
                return None, self._unknown.get(index, "it follows a layer that the oracle cannot compute")
        inputs = [None if t is None else values[t.index] for t in step.view.inputs]
        return self._program.run_step(step, inputs, accumulator=True), ""

    def _read(self, record: LayerRecord, own: LayerResult | None, why: str) -> None:
        """Settles the value the layers behind go on with: the recorded one, else the oracle's."""
        index = record.tensor.index
        expected = None if own is None else own.outputs[record.position]
        if index in self._recorded:
            try:
                reading = best_reading(self._recorded[index], record.tensor, self._graph.format, expected)
            except CannotCompare as error:
                record.refuse(str(error))
            else:
                if expected is not None and fits(self._recorded[index], record.tensor):
                    reading = self._look_for_mishap(record, reading, expected)
                values = reading.values
                if own is not None:
                    values = written_only(record.view, own.outputs, record.position, values)
                self._values[index] = values
                if reading.assumed and index not in self._mishaps:
                    record.reasons.append(f"assumed: {reading}")
                    self._assumed.setdefault(str(reading), []).append(index)
                return
        else:
            record.refuse(NOT_RECORDED if not why else f"{NOT_RECORDED}; {why}")
        if expected is not None:
            self._values[index] = expected
        else:
            self._unknown[index] = f"follows {self._graph.label(index)}: {why}"

    def _look_for_mishap(self, record: LayerRecord, plain: Reading, expected: Array) -> Reading:
        """The reading that gives every expected value where the plain one does not, else the plain one."""
        if diff_arrays(expected, plain.values).equal:
            return plain
        index = record.tensor.index
        found = explaining_reading(self._recorded[index], record.tensor, self._graph.format, expected)
        if found is None:
            return plain
        self._mishaps[index] = plain.values, f"every value is as expected if the recording is {found}"
        return found

    def _compare(self, record: LayerRecord, step: Step, own: LayerResult | None, why: str) -> None:
        index = record.tensor.index
        found = self._values[index]
        if own is None:
            self._hold(record, step, why)
            return
        expected = own.outputs[record.position]
        if index in self._mishaps:
            values, reason = self._mishaps[index]
            record.add(diff_arrays(expected, values), reason, "introduced")
            record.locate(expected, values, self._graph.format)
            return
        if not diff_arrays(expected, found).equal:
            self._explain(record, step, own)
        elif index in self._pure:
            record.add(diff_arrays(self._pure[index], found), INHERITED, "inherited")
            record.locate(self._pure[index], found, self._graph.format)
        else:
            record.add(diff_arrays(expected, found))

    def _hold(self, record: LayerRecord, step: Step, why: str) -> None:
        """Compares a float layer that no rule fixes with the bounds of its values."""
        index = record.tensor.index
        others = {i: value for i, value in self._values.items() if i != index}
        interval = interval_of_step(step, index, others, "") if not step.missing else why
        if isinstance(interval, str):
            record.refuse(interval)
            return
        try:
            record.add_bounded(interval, self._values[index])
        except CannotCompare as error:
            record.refuse(str(error))

    def _explain(self, record: LayerRecord, step: Step, own: LayerResult) -> None:
        """Adds a difference that arose in the layer, with what explains it or causes it."""
        index = record.tensor.index
        expected, found = own.outputs[record.position], self._values[index]
        inputs = [None if t is None else self._values[t.index] for t in step.view.inputs]
        outputs = [self._values[t.index] for t in step.view.outputs]
        reason = Explainer(self._program, record.layer).explain(inputs, outputs) or open_ties_reason(
            self._program.profile, record.view, own.accumulator, expected, found
        )
        tie = None
        if own.accumulator is not None:
            tie = tie_distance(record.view, own.accumulator, expected != found)
        attribution: Attribution | None = None
        if not reason:
            attribution = self._search.attribute(record.layer, inputs, outputs)
        record.add(diff_arrays(expected, found), reason, "introduced", tie, attribution)
        record.locate(expected, found, self._graph.format)

    def output(self, index: int) -> OutputRecord:
        """The comparison of one of the model's outputs with the oracle's run of the whole model."""
        record = OutputRecord(self._graph.tensors[index])
        if index not in self._recorded:
            record.refuse(NOT_RECORDED)
        elif index not in self._pure:
            record.refuse(self._unknown.get(index, "it follows a layer that the oracle cannot compute"))
        elif (found := self._values.get(index)) is not None:
            judged = next((r for r in self.records if r.tensor.index == index), None)
            if judged is not None and judged.refused:
                record.refuse(judged.refused)
            elif index in self._mishaps:
                values, reason = self._mishaps[index]
                record.add(diff_arrays(self._pure[index], values), reason)
                record.locate(self._pure[index], values, self._graph.format)
            else:
                record.add(diff_arrays(self._pure[index], found), self._why_explained())
                record.locate(self._pure[index], found, self._graph.format)
        return record

    def _why_explained(self) -> str:
        """The reason of a differing output where every layer that introduced a difference is explained."""
        sources = [record for record in self.records if "introduced" in record.origins]
        if not sources or any(record.unexplained for record in sources):
            return ""
        listed = ", ".join(str(record.layer) for record in sources[:8])
        return f"follows from what is explained of layer{'s' if len(sources) > 1 else ''} {listed}"

    def notes(self) -> list[str]:
        """What was assumed of the recording, and what of it was not used."""
        found = []
        for reading, indices in self._assumed.items():
            listed = ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")
            found.append(f"assumed of tensor{'s' if len(indices) > 1 else ''} {listed}: {reading}")
        judged = {record.tensor.index for record in self.records}
        settled = {tensor.index for tensor in self._graph.tensors if tensor.is_constant} | {
            *self._graph.inputs
        }
        unused = [self._graph.label(index) for index in self._recorded if index not in judged | settled]
        if unused:
            found.append(f"no layer that the runtime runs writes {', '.join(unused[:4])}: not judged")
        return found
