"""Goldens by path: models and inputs are found where the golden says, and the models are run.

import karat24

karat24.record_golden("model.tflite")                   # writes model.tflite.golden.json
karat24.check_golden("model.tflite.golden.json").report.verdict
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from karat24.golden.goldens.capture import Captured, capture
from karat24.golden.goldens.changes import changes
from karat24.golden.goldens.check import GoldenCheck, check, check_recorded
from karat24.golden.goldens.files import (
    arrays_name,
    read_golden,
    require_arrays,
    stored_arrays,
    write_golden,
)
from karat24.golden.goldens.guard import require_model
from karat24.golden.goldens.manifest import ORACLE, Golden, InputReference, ModelReference
from karat24.golden.goldens.observe import Keep, observe_delegate, observe_oracle, observe_recorded
from karat24.golden.provenance import feeds_digest, model_digest
from karat24.golden_places import existing_golden, golden_path, model_of
from karat24.golden_sources import (
    dump_of,
    executed,
    existing,
    feeds_of,
    graph_of,
    producer_of,
    profile_name,
    require_format,
    runtime_of,
    seen_from,
    with_the_tensors_of,
)
from karat24.refimpl.errors import CannotCompare, DamagedGolden, UsageError

if TYPE_CHECKING:
    from karat24.delegates import Delegate
    from karat24.golden.recordings.read import Dump
    from karat24.real_values import Span
    from karat24.refimpl.engine import Feeds, Progress
    from karat24.refimpl.graph import Graph


@dataclass(frozen=True)
class Proposal:
    """A golden that could be written at ``path``, beside the one that lies there, if one does."""

    path: Path
    old: Golden | None
    captured: Captured

    @property
    def changes(self) -> list[str]:
        """What writing it changes, a line for each thing; [] where nothing does."""
        return [*changes(self.old, self.captured.golden), *self._mended]

    @property
    def _mended(self) -> list[str]:
        """Arrays beside the old golden that are damaged or gone: they are written anew."""
        if self.old is None or self.old.arrays != self.captured.golden.arrays:
            return []
        try:
            require_arrays(self.path, self.old)
        except DamagedGolden as error:
            return [str(error)]
        return []

    def write(self) -> Golden:
        """Writes it, whole or not at all; returns it as written."""
        return write_golden(self.path, self.captured.golden, self.captured.arrays)

    def _repr_html_(self) -> str:
        """What would change, in a notebook."""
        lines = "\n".join([str(self.path), *(self.changes or ["unchanged"])])
        return f"<pre>{html.escape(lines)}</pre>"


# Options with defaults follow `*`; a user names each of them, so that a record would not be shorter.
def propose_golden(
    model: str | Path,
    path: str | Path | None = None,
    *,
    seed: int = 0,
    files: Sequence[str | Path] = (),
    input_range: Span | None = None,
    feeds: Feeds | None = None,
    delegate: str | Delegate | None = None,
    recorded: str | Dump | None = None,
    recorded_tensor: str | None = None,
    profile: str | None = None,
    keep: Keep | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Proposal:
    """Runs a model and makes a golden of it, which is not written yet.

    Fed are ``feeds``, or else values from ``files``, or else random ones of ``seed``. ``delegate`` is the
    runtime to record, the oracle under ``profile`` by default. ``recorded`` is what another runtime gave for
    ``feeds`` or ``files``, as in :func:`check_golden`, and ``profile`` the arithmetic it is held to, if any.
    ``keep`` says which values are kept beside the hashes: by default all of a runtime's, which may not be at
    hand later, and none of the oracle's. Raises what reading, feeding and running raise.
    """
    model = Path(model)
    path = golden_path(model) if path is None else Path(path)
    graph = graph_of(model)
    given = [seen_from(Path(file), path) for file in files]
    low, high = input_range or (None, None)
    if input_range is not None and not (files and -math.inf < input_range[0] < input_range[1] < math.inf):
        raise UsageError("an input range is a finite LOW below HIGH, of values in files")
    recipe = InputReference("", seed, tuple(given), low, high)
    if feeds is not None or files:
        recipe = replace(recipe, seed=None)
    if recorded is not None and recipe.seed is not None:
        raise UsageError("give what the recorded runtime was fed: a golden says of which input it is")
    fed = feeds_of(graph, recipe, path) if feeds is None else feeds
    recording = _Recording(delegate, profile, keep, threads, progress, dump_of(recorded), recorded_tensor)
    return _proposal(model, graph, path, recipe, fed, recording)


def record_golden(model: str | Path, path: str | Path | None = None, **options: object) -> Golden:
    """Records what a model gives, with the options of :func:`propose_golden`, and writes the golden.

    Raises UsageError where another golden lies there already: :func:`accept_golden` replaces it.
    """
    proposal = propose_golden(model, path, **options)  # type: ignore[arg-type]
    return write_new(proposal)


def write_new(proposal: Proposal) -> Golden:
    """Writes a golden where none lies, or the same one. Raises UsageError where another one does."""
    if proposal.old is None:
        return proposal.write()
    if count := len(proposal.changes):
        raise UsageError(
            f"{proposal.path}: a golden lies there, and this one would change {count} "
            f"thing{'s' if count > 1 else ''} in it; `karat24 golden accept` shows and replaces it"
        )
    return proposal.old


def propose_again(
    path: str | Path,
    *,
    model: str | Path | None = None,
    delegate: str | Delegate | None = None,
    recorded: str | Dump | None = None,
    recorded_tensor: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Proposal:
    """The golden at ``path``, recorded anew by its own recipe: what accepting today's values would write.

    ``model`` is the file it is to be of, where that is no longer the one it names, ``delegate`` the runtime
    to record, where it is not the one that did, ``recorded`` what another one gave.
    Raises CannotCompare where model, input or runtime cannot be found again.
    """
    path = Path(path)
    old = existing_golden(path)
    model = model_of(path, old) if model is None else Path(model)
    graph = graph_of(model)
    fed = feeds_of(graph, old.input, path)
    dump = dump_of(recorded)
    if dump is None:
        delegate = delegate or producer_of(path, old)
    profile = (old.profile or None) if delegate in (None, ORACLE) else None
    keep = _kept(path, old)
    recording = _Recording(delegate, profile, keep, threads, progress, dump, recorded_tensor)
    return _proposal(model, graph, path, old.input, fed, recording)


def _kept(path: Path, golden: Golden) -> Keep:
    """Which values lie beside a golden; all of them where that can no longer be seen."""
    if not golden.arrays:
        return "none"
    try:
        found = stored_arrays(path, golden, {tensor.tensor for tensor in golden.tensors})
    except DamagedGolden:
        return "all"
    return "outputs" if found.keys() <= golden.outputs.keys() else "all"


def accept_golden(path: str | Path) -> list[str]:
    """Replaces a golden by what its recipe gives now; returns what changed."""
    proposal = propose_again(path)
    if changed := proposal.changes:
        proposal.write()
    return changed


def check_golden(
    path: str | Path,
    *,
    model: str | Path | None = None,
    profile: str | None = None,
    seed: int | None = None,
    delegate: str | Delegate | None = None,
    recorded: str | Dump | None = None,
    recorded_tensor: str | None = None,
    only_recorded: bool = False,
    files: Sequence[str | Path] = (),
    feeds: Feeds | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> GoldenCheck:
    """Checks a golden on what recorded it, on ``delegate`` (``oracle`` for karat24), or against ``recorded``.

    ``model``, ``profile`` and ``seed`` say what the golden is expected to be of, where the caller knows: one
    of another model, arithmetic or input is not compared.
    ``recorded`` is what another runtime gave, in any form that ``karat24.golden.recordings.read.read_dump``
    takes: arrays by tensor index or name, .npz, a folder of .npy, or a file of the one ``recorded_tensor``.
    With ``only_recorded`` layers that it does not hold are left out.
    The input is found as the golden says unless ``files`` or ``feeds`` give it.
    Raises CannotCompare where the golden or what belongs to it is missing, damaged or stale, and what reading
    a recording and running raise.
    """
    path = Path(path)
    golden = existing_golden(path)
    require_arrays(path, golden)
    model = model_of(path, golden) if model is None else existing(Path(model))
    require_model(golden, str(path), model_digest(model))  # before it is read: it may be another one
    graph = graph_of(model)
    if profile is not None:
        _require_profile(path, golden, graph, profile)
    if feeds is None:
        recipe = golden.input
        if files:
            recipe = replace(recipe, seed=None, files=tuple(seen_from(Path(file), path) for file in files))
        elif seed is not None:
            recipe = replace(recipe, seed=seed, files=())
        feeds = feeds_of(graph, recipe, path)
    if (dump := dump_of(recorded)) is not None:
        graph = executed(graph, golden.profile) if golden.profile else with_the_tensors_of(golden, graph)
        return check_recorded(
            path, golden, model, graph, feeds, dump, tensor=recorded_tensor, only_recorded=only_recorded
        )
    with runtime_of(delegate or producer_of(path, golden)) as runtime:
        if runtime is None and golden.profile:
            graph = executed(graph, golden.profile)
        return check(path, golden, model, graph, feeds, delegate=runtime, threads=threads, progress=progress)


def _require_profile(path: Path, golden: Golden, graph: Graph, profile: str) -> None:
    """Raises CannotCompare for a golden that was recorded under another profile."""
    if (expected := profile_name(graph, profile)) != golden.profile:
        raise CannotCompare(
            f"{path}: recorded under profile {golden.profile or 'none'}, and {expected} is asked for; "
            "record a golden under that one"
        )


class _Recording(NamedTuple):
    """The runtime that computes the values of a golden, and what is kept of them."""

    delegate: str | Delegate | None
    """The runtime or its name; None is the oracle."""
    profile: str | None
    """The oracle's profile; None is the format's canonical one, and what a runtime has."""
    keep: Keep | None
    """Which values are kept beside the hashes; None: all of a runtime's, none of the oracle's."""
    threads: int | None
    """The oracle's threads; None takes all."""
    progress: Progress | None
    """Shows a bar while the oracle runs."""
    dump: Dump | None = None
    """What another runtime gave, in place of running one."""
    tensor: str | None = None
    """The tensor in a dump of one."""


def _proposal(
    model: Path, graph: Graph, path: Path, recipe: InputReference, feeds: Feeds, recording: _Recording
) -> Proposal:
    delegate, profile, keep, threads, progress, dump, tensor = recording
    if profile is not None and delegate is not None and delegate != ORACLE:
        name = delegate if isinstance(delegate, str) else delegate.name
        raise UsageError(f"a profile is the oracle's; {name} computes as it does")
    fed = replace(recipe, sha256=feeds_digest(graph, [feeds]))
    reference = ModelReference(seen_from(model, path), model_digest(model))
    if dump is not None:
        from karat24.golden.goldens.recorded import read_to_keep

        held_to = "" if profile is None else profile_name(graph, profile)
        graph = executed(graph, held_to) if held_to else graph
        observed = observe_recorded(graph, held_to, read_to_keep(graph, dump, feeds, tensor), {}, True)
        return _proposed(path, capture(reference, fed, observed, keep or "all"))
    with runtime_of(delegate or ORACLE) as runtime:
        if runtime is None:
            from karat24.refimpl.profiles import profile_for

            named = profile_for(graph, profile)
            observed = observe_oracle(
                executed(graph, named.name), named, feeds,
                keep=keep or "none", counted=True, threads=threads, progress=progress,
            )  # fmt: skip
        else:
            require_format(runtime, graph, model)
            observed = observe_delegate(runtime, model, graph, feeds)
    kept = keep or ("none" if runtime is None else "all")
    return _proposed(path, capture(reference, fed, observed, kept))


def _proposed(path: Path, captured: Captured) -> Proposal:
    named = replace(captured.golden, arrays=arrays_name(path, captured.arrays))
    return Proposal(path, _whole_golden(path), replace(captured, golden=named))


def _whole_golden(path: Path) -> Golden | None:
    """The golden at a path; None where there is none or a damaged one."""
    try:
        return read_golden(path) if path.is_file() else None
    except DamagedGolden:
        return None
