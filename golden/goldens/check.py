"""Does a model still compute what its golden says?

Hashes decide. Where one differs, the golden's own values, kept beside it or computed again, say how far
and why.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from karat24.delegates.protocol import Delegate, Model
from karat24.golden.diff import ArrayDiff
from karat24.golden.goldens.difference import Differences, Found
from karat24.golden.goldens.guard import require_comparable, require_machine
from karat24.golden.goldens.manifest import ORACLE, Golden, GoldenTensor
from karat24.golden.goldens.observe import Observed, observe_delegate, observe_oracle, observe_recorded
from karat24.golden.goldens.recorded import Recording, read_recording
from karat24.golden.goldens.shown import Shown
from karat24.golden.provenance import feeds_digest, machine, model_digest, model_label
from karat24.golden.recordings.read import Dump
from karat24.golden.report import LayerVerdict, OutputVerdict, Report, Verdict
from karat24.refimpl import __version__
from karat24.refimpl.engine import Feeds, Progress
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Graph
from karat24.refimpl.profiles import caveat_of


@dataclass(frozen=True)
class GoldenCheck:
    """A golden, and how what was computed compares with it; ``report`` has the verdicts and the exit code."""

    path: Path
    golden: Golden
    report: Report

    @property
    def passed(self) -> bool:
        """Whether every value that the golden holds was compared, and is equal."""
        return self.report.exit_code() == 0

    def exit_code(self) -> int:
        """0 match, 1 mismatch, 3 cannot compare."""
        return self.report.exit_code()

    def table(self, all_layers: bool = False) -> str:
        """The golden's path, then the report's table."""
        return f"{self.path}\n{self.report.table(all_layers)}"

    def _repr_html_(self) -> str:
        """The golden's path and the report, in a notebook."""
        return f"<p>{html.escape(str(self.path))}</p>{self.report._repr_html_()}"


def check(
    path: Path,
    golden: Golden,
    model: Model,
    graph: Graph,
    feeds: Feeds,
    *,
    delegate: Delegate | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> GoldenCheck:
    """Runs ``model`` on ``delegate``, or on the oracle, and compares with ``golden``, which lies at ``path``.

    ``graph`` holds the layers that a runtime of the golden's profile runs (``karat24.export.graph_under``);
    for a delegate it is the reading of the file. Raises CannotCompare where model, input, profile or runtime
    are not the golden's, before anything runs, and what running raises.
    """
    runtime = _runtime(delegate)
    require_comparable(
        golden, str(path), model_digest(model), feeds_digest(graph, [feeds]),
        golden.profile if delegate is None else delegate.profile,
        ORACLE if delegate is None else delegate.name, runtime,
    )  # fmt: skip
    if delegate is None:
        observed = _oracle(golden, graph, feeds, threads, progress)
    else:
        observed = observe_delegate(delegate, model, graph, feeds)
    versions = {"karat24": __version__} if delegate is None else dict(delegate.versions())
    return _compared(path, golden, model, observed, feeds, versions, threads)


def check_recorded(
    path: Path,
    golden: Golden,
    model: Model,
    graph: Graph,
    feeds: Feeds,
    dump: Dump,
    *,
    tensor: str | None = None,
    only_recorded: bool = False,
) -> GoldenCheck:
    """Compares ``dump``, values that another run of the model gave, with ``golden``.

    ``dump`` and ``tensor`` are those of :func:`~karat24.golden.recordings.read.read_dump`. What the recording
    does not hold is not compared, or with ``only_recorded``, outputs excepted, left out. Raises CannotCompare
    as :func:`check` does and for a recording of another input or model, FeedError for one that cannot be
    read; the caller vouches for the runtime that gave it.
    """
    require_comparable(
        golden, str(path), model_digest(model), feeds_digest(graph, [feeds]), golden.profile, "recording", ""
    )
    recording = read_recording(graph, golden, dump, feeds, tensor)
    observed = observe_recorded(graph, golden.profile, recording.values, recording.unreadable)
    return _compared(path, golden, model, observed, feeds, {}, None, recording, only_recorded)


def _oracle(
    golden: Golden, graph: Graph, feeds: Feeds, threads: int | None, progress: Progress | None
) -> Observed:
    """A run that keeps no values; where a hash is not the golden's, the same run again that does.

    Raises CannotCompare where the two are not the same.
    """
    first = observe_oracle(graph, golden.profile, feeds, keep="none", threads=threads, progress=progress)
    outputs = {index: shown.sha256 for index, shown in first.shown_outputs.items()}
    if not _differing(golden, first) and outputs == golden.outputs:
        return first
    again = observe_oracle(graph, golden.profile, feeds, threads=threads, progress=progress)
    if (again.shown, again.shown_outputs) != (first.shown, first.shown_outputs):
        raise CannotCompare(
            f"the oracle gave other values for {golden.model.path} when it ran again: this machine does not "
            "compute reliably"
        )
    return again


def _differing(golden: Golden, observed: Observed) -> list[int]:
    """Tensors of both whose hash, element type or sizes are not the same."""
    return [
        tensor.tensor
        for tensor in golden.tensors
        if tensor.sha256
        and tensor.tensor in observed.shown
        and not _equal(tensor, observed.shown[tensor.tensor])
    ]


def _equal(tensor: GoldenTensor, shown: Shown) -> bool:
    return (shown.sha256, shown.shape, shown.dtype) == (tensor.sha256, tensor.shape, tensor.dtype)


def _runtime(delegate: Delegate | None) -> str:
    """The delegate's library and version; asking for its versions says how to get one that is missing."""
    if delegate is None:
        return ""
    delegate.versions()
    probe = delegate.probe()
    return f"{probe.library} {probe.version}"


def _compared(
    path: Path,
    golden: Golden,
    model: Model,
    observed: Observed,
    feeds: Feeds,
    versions: Mapping[str, str],
    threads: int | None,
    recording: Recording | None = None,
    only_recorded: bool = False,
) -> GoldenCheck:
    mishaps = {} if recording is None else recording.mishaps
    wrong_machine = require_machine(golden, observed.producer)
    everything = [tensor for tensor in golden.tensors if tensor.sha256]
    held = everything
    if recording is not None and only_recorded:
        there = {*recording.values, *recording.unreadable}
        held = [tensor for tensor in everything if tensor.tensor in there]
    loose = {tensor.tensor for tensor in golden.tensors if not tensor.fixed}
    differing = [index for index in _differing(golden, observed) if not (wrong_machine and index in loose)]
    differences = Differences(path, golden, observed, feeds, differing, threads)
    layers, outputs = [], []
    for tensor in held:
        refused = wrong_machine if tensor.tensor in loose else ""
        if tensor.tensor in mishaps and not refused:
            mishap = differences.of_mishap(tensor.tensor, mishaps[tensor.tensor])
            layers.append(_verdict(tensor, mishap))
            continue
        layers.append(_layer(tensor, observed, differences, refused))
    for index, digest in golden.outputs.items():
        refused = wrong_machine if index in loose else ""
        verdict = _output(index, digest, observed, differences, refused)
        if index in mishaps and not refused:
            found = differences.of_mishap(index, mishaps[index])
            verdict = replace(verdict, verdict="mismatch", diff=found.diff, reason=found.reason)
        outputs.append(verdict)
    strangers = _not_in_the_golden(golden, observed)
    layers += strangers
    unwritten = [tensor for tensor in held if not observed.knows(tensor.tensor)]
    hidden = [tensor for tensor in golden.tensors if not tensor.sha256]
    notes = [] if recording is None else [*recording.notes]
    notes += [f"the golden holds no values of {tensor.name!r}: {tensor.note}" for tensor in hidden]
    if left_out := len(everything) - len(held):
        notes.append(f"{left_out} of {len(everything)} layer outputs have no recording and were left out")
    if strangers or unwritten:
        notes.append(_other_layers(golden, observed, len(unwritten), outputs))
    return GoldenCheck(
        path,
        golden,
        Report(
            model=model_label(model),
            model_sha256=golden.model.sha256,
            feeds_sha256=golden.input.sha256,
            delegate=observed.producer.name,
            profile=golden.profile or f"what {golden.producer.name} gave",
            mode="cumulative",
            samples=1,
            layers=tuple(layers),
            versions=versions,
            machine=machine(),
            outputs=tuple(outputs),
            notes=tuple(notes),
            profile_reason=caveat_of(golden.profile),
        ),
    )


def _layer(tensor: GoldenTensor, observed: Observed, differences: Differences, refused: str) -> LayerVerdict:
    shown = observed.shown.get(tensor.tensor)
    found = Found("not_compared", reason=refused)
    if shown is None:
        missing = "these layers do not write the tensor"
        found = Found("not_compared", reason=observed.unreadable.get(tensor.tensor, missing))
    elif not refused:
        equal = _equal(tensor, shown)
        found = Found("bit_exact", all_equal(shown)) if equal else differences.of_layer(tensor)
    return _verdict(tensor, found)


def _verdict(tensor: GoldenTensor, found: Found) -> LayerVerdict:
    return LayerVerdict(
        tensor.layer, tensor.op, tensor.tensor, tensor.name, tensor.dtype,
        rule=f"sha256 {tensor.sha256[:16]}", verdict=found.verdict, diff=found.diff, reason=found.reason,
        origin=found.origin, tie_distance=found.tie, located=found.located, attribution=found.attribution,
    )  # fmt: skip


def _output(
    index: int, digest: str, observed: Observed, differences: Differences, refused: str
) -> OutputVerdict:
    tensor = observed.graph.tensors[index] if index < len(observed.graph.tensors) else None
    shown = observed.shown_outputs.get(index)
    verdict: Verdict = "not_compared"
    diff: ArrayDiff | None = None
    located = None
    reason = refused or observed.unreadable.get(index, "the run shows no such output")
    if shown is not None and not refused:
        if shown.sha256 == digest:
            verdict, diff, reason = "bit_exact", all_equal(shown), ""
        else:
            found = differences.of_output(index, observed.outputs[index], digest)
            verdict, diff, reason, located = "mismatch", found.diff, found.reason, found.located
    name, dtype = ("", "") if tensor is None else (tensor.name, tensor.dtype)
    return OutputVerdict(index, name, dtype, verdict, diff, reason, located=located)


def _not_in_the_golden(golden: Golden, observed: Observed) -> list[LayerVerdict]:
    """Tensors of the run that the golden does not know: other layers ran than were recorded."""
    known = {tensor.tensor for tensor in golden.tensors}
    return [
        LayerVerdict(
            view.layer.index, view.op, tensor.index, tensor.name, tensor.dtype, "", "not_compared",
            reason="the golden knows no such tensor: other layers ran than were recorded",
        )
        for view in observed.graph.views()
        for tensor in view.outputs
        if tensor.index not in known
    ]  # fmt: skip


def _other_layers(
    golden: Golden, observed: Observed, unwritten: int, outputs: Sequence[OutputVerdict]
) -> str:
    """What can be said, and what to do, where other layers ran than were recorded."""
    name, before = observed.producer.name, golden.producer.name
    if all(output.verdict == "bit_exact" for output in outputs):
        said = "every output of the model is equal; its layers are"
    else:
        said = "layers are"
    remedy = "see what `karat24 golden accept` would change"
    if name not in (before, ORACLE, "recording"):
        again = f"karat24 golden record {golden.model.path} --delegate {name} --name {name}"
        remedy = f"for a golden of the layers that {name} runs: `{again}`"
    return (
        f"{said} not all comparable, because {name} ran other layers than {before} recorded: "
        f"{unwritten} of {len(golden.tensors)} recorded tensors are missing; {remedy}"
    )


def all_equal(shown: Shown) -> ArrayDiff:
    """The difference of values that have the golden's hash."""
    size = math.prod(shown.shape)
    histogram = {} if np.dtype(shown.dtype).kind == "f" else {0: size}
    return ArrayDiff(size, 0, 0, 0.0, histogram, None)
