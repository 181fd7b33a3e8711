"""What a golden names, found again: its model, its input, the runtime that recorded it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.golden.goldens.manifest import ORACLE, Golden, InputReference
from karat24.refimpl.errors import CannotCompare, UsageError

if TYPE_CHECKING:
    from karat24.delegates import Delegate
    from karat24.golden.recordings.read import Dump
    from karat24.refimpl.engine import Feeds
    from karat24.refimpl.graph import Graph


def dump_of(recorded: str | Dump | None) -> Dump | None:
    """What another runtime gave: a path, or arrays by tensor."""
    return Path(recorded) if isinstance(recorded, str) else recorded


def profile_name(graph: Graph, profile: str) -> str:
    """The whole name of a profile. Raises UsageError for one that does not fit the graph."""
    from karat24.refimpl.profiles import profile_for

    return profile_for(graph, profile).name


def producer_of(path: Path, golden: Golden) -> str:
    """The name of what recorded a golden. Raises CannotCompare for a runtime that no name starts."""
    from karat24.delegates.table import FORMER_NAMES, delegate_names

    name = golden.producer.name
    if name not in (ORACLE, *delegate_names(), *FORMER_NAMES):
        raise CannotCompare(
            f"{path}: recorded by {name!r}, which is no delegate here; name what to check with --delegate, "
            "--delegate-command, --delegate-folder or --recorded"
        )
    return name


def require_format(delegate: Delegate, graph: Graph, model: Path) -> None:
    """Raises UsageError for a runtime that does not read such files."""
    if delegate.format != graph.format:
        raise UsageError(f"{delegate.name} reads .{delegate.format} files and {model} is .{graph.format}")


@contextmanager
def runtime_of(delegate: str | Delegate) -> Iterator[Delegate | None]:
    """The runtime of that name, closed at the end, or the one given; None for the oracle."""
    if not isinstance(delegate, str):
        yield delegate
    elif delegate == ORACLE:
        yield None
    else:
        from karat24.delegates import delegate_named

        with delegate_named(delegate) as named:
            yield named


def existing(model: Path) -> Path:
    """The path itself. Raises UsageError where there is no file."""
    if not model.is_file():
        raise UsageError(f"{model}: no such file")
    return model


def graph_of(model: Path) -> Graph:
    """The reading of a model file. Raises UsageError where there is no file, and what reading raises."""
    from karat24.export import read_model

    return read_model(existing(model))


def executed(graph: Graph, profile: str) -> Graph:
    """The layers that a runtime of the profile runs. Raises CannotCompare where there is none."""
    from karat24.export import graph_under
    from karat24.refimpl.profiles import profile_for

    if not profile:
        raise CannotCompare("the golden has no profile, so only the runtime that recorded it can be checked")
    return graph_under(graph, profile_for(graph, profile))


def with_the_tensors_of(golden: Golden, graph: Graph) -> Graph:
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


def feeds_of(graph: Graph, recipe: InputReference, path: Path) -> Feeds:
    """The values that a recipe describes. Raises CannotCompare where they cannot be had any more."""
    from karat24.feeds import load_feeds, random_feeds

    if recipe.seed is not None:
        return random_feeds(graph, recipe.seed)
    if not recipe.files:
        raise CannotCompare(f"{path}: recorded for values that only its SHA-256 is kept of; give them again")
    span = None if recipe.low is None or recipe.high is None else (recipe.low, recipe.high)
    return load_feeds(graph, [path.parent / file for file in recipe.files], span).feeds


def seen_from(target: Path, path: Path) -> str:
    """A file's path as seen from a golden's folder, with slashes; absolute from another drive."""
    try:
        return Path(os.path.relpath(target.resolve(), path.parent.resolve())).as_posix()
    except ValueError:
        return target.resolve().as_posix()
