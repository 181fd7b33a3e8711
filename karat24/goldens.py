"""Goldens by path: models and inputs are found where the golden says, and the models are run.

import karat24

karat24.record_golden("model.tflite")                   # writes model.tflite.golden.json
karat24.check_golden("model.tflite.golden.json").report.verdict
"""

from __future__ import annotations

import glob
import html
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from karat24.golden.goldens.capture import Captured, capture
from karat24.golden.goldens.changes import changes
from karat24.golden.goldens.check import GoldenCheck, check, check_recorded
from karat24.golden.goldens.files import SUFFIX, find_goldens, read_golden, write_golden
from karat24.golden.goldens.manifest import ORACLE, Golden, InputReference, ModelReference
from karat24.golden.goldens.observe import Keep, observe_delegate, observe_oracle
from karat24.golden.provenance import feeds_digest, model_digest
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
        return changes(self.old, self.captured.golden)

    def write(self) -> Golden:
        """Writes it, whole or not at all; returns it as written."""
        return write_golden(self.path, self.captured.golden, self.captured.arrays)

    def _repr_html_(self) -> str:
        """What would change, in a notebook."""
        lines = "\n".join([str(self.path), *(self.changes or ["unchanged"])])
        return f"<pre>{html.escape(lines)}</pre>"


def golden_path(model: Path, folder: Path | None = None, name: str = "") -> Path:
    """Where the golden of a model lies: beside it or in ``folder``; ``name`` tells cases of one model apart.

    Raises UsageError for a name that cannot be a part of a file's name.
    """
    if name and not all(character.isalnum() or character in "-_" for character in name):
        raise UsageError(f"{name!r}: a case is named with letters, digits, - and _")
    case = f".{name}" if name else ""
    return (folder or model.parent) / f"{model.name}{case}{SUFFIX}"


# Options with defaults follow `*`; a user names each of them, so that a record would not be shorter.
def propose_golden(
    model: str | Path,
    path: str | Path | None = None,
    *,
    seed: int = 0,
    files: Sequence[str | Path] = (),
    input_range: Span | None = None,
    feeds: Feeds | None = None,
    delegate: str | None = None,
    profile: str | None = None,
    keep: Keep | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Proposal:
    """Runs a model and makes a golden of it, which is not written yet.

    Fed are ``feeds``, or else values from ``files``, or else random ones of ``seed``. ``delegate`` is the
    runtime to record, the oracle under ``profile`` by default. ``keep`` says which values are kept beside the
    hashes: by default all of a runtime's, which may not be at hand later, and none of the oracle's.
    Raises what reading, feeding and running raise.
    """
    model = Path(model)
    path = golden_path(model) if path is None else Path(path)
    graph = _read(model)
    given = [_seen_from(Path(file), path) for file in files]
    low, high = input_range or (None, None)
    recipe = InputReference("", seed, tuple(given), low, high)
    if feeds is not None or files:
        recipe = replace(recipe, seed=None)
    fed = _feeds(graph, recipe, path) if feeds is None else feeds
    return _proposal(model, graph, path, recipe, fed, _Recording(delegate, profile, keep, threads, progress))


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
    if proposal.changes:
        raise UsageError(
            f"{proposal.path}: a golden lies there, and {len(proposal.changes)} things differ from it; "
            "`karat24 golden accept` shows and replaces it"
        )
    return proposal.old


def propose_again(
    path: str | Path, *, threads: int | None = None, progress: Progress | None = None
) -> Proposal:
    """The golden at ``path``, recorded anew by its own recipe: what accepting today's values would write.

    Raises CannotCompare where model, input or runtime cannot be found again.
    """
    path = Path(path)
    old = read_golden(path)
    model = model_of(path, old)
    graph = _read(model)
    fed = _feeds(graph, old.input, path)
    delegate = None if old.from_oracle else old.producer.name
    keep: Keep = "all" if old.arrays else "none"
    profile = old.profile if old.from_oracle else None
    recording = _Recording(delegate, profile, keep, threads, progress)
    return _proposal(model, graph, path, old.input, fed, recording)


def accept_golden(path: str | Path) -> list[str]:
    """Replaces a golden by what its recipe gives now; returns what changed."""
    proposal = propose_again(path)
    if proposal.changes:
        proposal.write()
    return proposal.changes


def check_golden(
    path: str | Path,
    *,
    delegate: str | None = None,
    recorded: str | Dump | None = None,
    recorded_tensor: str | None = None,
    files: Sequence[str | Path] = (),
    feeds: Feeds | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> GoldenCheck:
    """Checks a golden on what recorded it, on ``delegate`` (``oracle`` for karat24), or against ``recorded``.

    ``recorded`` is what another runtime gave, in any form that ``karat24.golden.recordings.read.read_dump``
    takes: arrays by tensor index or name, .npz, a folder of .npy, or a file of the one ``recorded_tensor``.
    The input is found as the golden says unless ``files`` or ``feeds`` give it.
    Raises CannotCompare where the golden or what belongs to it is missing, damaged or stale, and what reading
    a recording and running raise.
    """
    path = Path(path)
    golden = _read_golden(path)
    model = model_of(path, golden)
    graph = _read(model)
    if feeds is None:
        recipe = golden.input
        if files:
            recipe = replace(recipe, seed=None, files=tuple(_seen_from(Path(file), path) for file in files))
        feeds = _feeds(graph, recipe, path)
    if recorded is not None:
        graph = _executed(graph, golden.profile) if golden.profile else _with_the_tensors_of(golden, graph)
        dump = Path(recorded) if isinstance(recorded, str) else recorded
        return check_recorded(path, golden, model, graph, feeds, dump, tensor=recorded_tensor)
    with _runtime(delegate or golden.producer.name) as runtime:
        if runtime is None and golden.profile:
            graph = _executed(graph, golden.profile)
        return check(path, golden, model, graph, feeds, delegate=runtime, threads=threads, progress=progress)


def model_of(path: Path, golden: Golden) -> Path:
    """The model a golden is of. Raises CannotCompare where it is gone."""
    model = path.parent / golden.model.path
    if not model.is_file():
        raise CannotCompare(
            f"{path}: stale: its model {model} does not exist; bring it back, or `karat24 golden prune`"
        )
    return model


def goldens_of(target: Path) -> list[Path]:
    """The goldens that a path names: itself, those in a folder, or those beside a model.

    Raises CannotCompare where there are none.
    """
    if target.is_dir():
        found = find_goldens(target)
    elif target.name.endswith(SUFFIX):
        found = [target]
    elif target.is_file():
        found = [path for path in find_goldens(target.parent) if path.name.startswith(f"{target.name}.")]
        found = [path for path in found if path.parent == target.parent]
    else:
        raise CannotCompare(f"{target}: no such golden, model or folder")
    if not found:
        raise CannotCompare(f"{target}: no golden; record one with `karat24 golden record MODEL`")
    return found


State = Literal["current", "stale", "orphan", "damaged"]


def state_of(path: Path) -> tuple[State, str]:
    """Whether a golden can be used, and a line about it: its model may have changed, be gone, or it be
    damaged itself."""
    try:
        golden = read_golden(path)
    except DamagedGolden as error:
        return "damaged", str(error)
    about = f"{golden.producer.name}, {golden.profile or 'no profile'}, {len(golden.tensors)} tensors"
    model = path.parent / golden.model.path
    if not model.is_file():
        return "orphan", f"its model {model} does not exist"
    if model_digest(model) != golden.model.sha256:
        return "stale", f"its model {model} has changed"
    return "current", about


def files_of(path: Path) -> list[Path]:
    """The files of a golden: itself and the arrays beside it."""
    return [path, *path.parent.glob(f"{glob.escape(path.name.removesuffix('.json'))}.*.npz")]


def _read_golden(path: Path) -> Golden:
    """The golden; one that is missing cannot be compared."""
    if not path.is_file():
        raise CannotCompare(f"{path}: no golden; record one with `karat24 golden record MODEL`")
    return read_golden(path)


class _Recording(NamedTuple):
    """The runtime that computes the values of a golden, and what is kept of them."""

    delegate: str | None
    """The runtime's name; None is the oracle."""
    profile: str | None
    """The oracle's profile; None is the format's canonical one, and what a runtime has."""
    keep: Keep | None
    """Which values are kept beside the hashes; None: all of a runtime's, none of the oracle's."""
    threads: int | None
    """The oracle's threads; None takes all."""
    progress: Progress | None
    """Shows a bar while the oracle runs."""


def _proposal(
    model: Path, graph: Graph, path: Path, recipe: InputReference, feeds: Feeds, recording: _Recording
) -> Proposal:
    delegate, profile, keep, threads, progress = recording
    if profile is not None and delegate not in (None, ORACLE):
        raise UsageError(f"a profile is the oracle's; {delegate} computes as it does")
    fed = replace(recipe, sha256=feeds_digest(graph, [feeds]))
    with _runtime(delegate or ORACLE) as runtime:
        if runtime is None:
            from karat24.refimpl.profiles import profile_for

            named = profile_for(graph, profile)
            observed = observe_oracle(
                _executed(graph, named.name), named, feeds,
                keep=keep or "none", counted=True, threads=threads, progress=progress,
            )  # fmt: skip
        else:
            _require_format(runtime, graph, model)
            observed = observe_delegate(runtime, model, graph, feeds)
    kept = keep or ("none" if runtime is None else "all")
    reference = ModelReference(_seen_from(model, path), model_digest(model))
    return Proposal(path, _whole_golden(path), capture(reference, fed, observed, kept))


def _whole_golden(path: Path) -> Golden | None:
    """The golden at a path; None where there is none or a damaged one."""
    try:
        return read_golden(path) if path.is_file() else None
    except DamagedGolden:
        return None


def _require_format(delegate: Delegate, graph: Graph, model: Path) -> None:
    if delegate.format != graph.format:
        raise UsageError(f"{delegate.name} reads .{delegate.format} files and {model} is .{graph.format}")


@contextmanager
def _runtime(name: str) -> Iterator[Delegate | None]:
    """The runtime of that name; None for the oracle, which needs no delegate."""
    if name == ORACLE:
        with nullcontext():
            yield None
        return
    from karat24.delegates import delegate_named

    with delegate_named(name) as delegate:
        yield delegate


def _read(model: Path) -> Graph:
    from karat24.export import read_model

    if not model.is_file():
        raise UsageError(f"{model}: no such file")
    return read_model(model)


def _executed(graph: Graph, profile: str) -> Graph:
    """The layers that a runtime of the profile runs. Raises CannotCompare where there is none."""
    from karat24.export import graph_under
    from karat24.refimpl.profiles import profile_for

    if not profile:
        raise CannotCompare("the golden has no profile, so only the runtime that recorded it can be checked")
    return graph_under(graph, profile_for(graph, profile))


def _with_the_tensors_of(golden: Golden, graph: Graph) -> Graph:
    """The reading of the file, whose tensors a golden without a profile must name.

    Raises CannotCompare where the runtime that recorded it made other layers of the file.
    """
    for tensor in golden.tensors:
        if tensor.tensor >= len(graph.tensors) or graph.tensors[tensor.tensor].name != tensor.name:
            raise CannotCompare(
                f"{golden.producer.name} made layers of its own of the file, and no profile says which: only "
                "that runtime can be checked"
            )
    return graph


def _feeds(graph: Graph, recipe: InputReference, path: Path) -> Feeds:
    """The values that a recipe describes. Raises CannotCompare where they cannot be had any more."""
    from karat24.feeds import load_feeds, random_feeds

    if recipe.seed is not None:
        return random_feeds(graph, recipe.seed)
    if not recipe.files:
        raise CannotCompare(f"{path}: recorded for values that only its SHA-256 is kept of; give them again")
    span = None if recipe.low is None or recipe.high is None else (recipe.low, recipe.high)
    return load_feeds(graph, [path.parent / file for file in recipe.files], span).feeds


def _seen_from(target: Path, path: Path) -> str:
    """A file's path as seen from a golden's folder, with slashes; absolute from another drive."""
    try:
        return Path(os.path.relpath(target.resolve(), path.parent.resolve())).as_posix()
    except ValueError:
        return target.resolve().as_posix()
