"""Slices restored once more and held against the output, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from karat24.delegates import delegate_named
from karat24.export import write_model
from karat24.refimpl.errors import DelegateError, UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.profiles import profile_for
from karat24.tomography.restoration import Network
from karat24.tomography.scan.manifest import Manifest
from karat24.tomography.scan.outputs import EXPORTS, format_of
from karat24.tomography.scan.recipe import networks_for
from karat24.tomography.scan.records import read_record
from karat24.tomography.scan.restorer import MakeNetwork
from karat24.tomography.scan.volumes import Source, open_volume
from karat24.tomography.scan.work import Worker, pixels_digest


@dataclass(frozen=True)
class Checked:
    """A slice that was restored again: whether the output and its record hold the values found now."""

    index: int
    name: str
    output_equal: bool
    record_equal: bool

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.output_equal and self.record_equal


def chosen_for_check(manifest: Manifest, count: int) -> list[int]:
    """Slices spread over the chosen ones, at places that the fingerprint gives: equal on every machine."""
    count = min(count, manifest.count)
    found = []
    for part in range(count):
        start, stop = (manifest.first + manifest.count * end // count for end in (part, part + 1))
        seed = int(manifest.fingerprint[:8], 16) * (part + 1)
        found.append(start + seed % (stop - start))
    return found


def check(manifest: Manifest, count: int, delegate: str | None = None) -> Iterator[Checked]:
    """Restores ``count`` slices again, on the oracle or on a runtime, and compares them with the output.

    Raises UsageError for a runtime whose arithmetic is not the manifest's.
    """
    with _networks_on(delegate, manifest) as make:
        worker = Worker(manifest, make=make)
        single = open_volume(Source(manifest.out)) if format_of(manifest.out) in EXPORTS else None
        for index in chosen_for_check(manifest, count):
            restored = pixels_digest(worker.restore(index).stored)
            place = index - manifest.first
            there = worker.store.read(place) if single is None else single.read(place)
            record = read_record(manifest.state, index)
            yield Checked(
                index,
                worker.volume.about.names[index],
                pixels_digest(there) == restored,
                record is not None and record.pixels == restored,
            )


def require_usable(delegate: str, manifest: Manifest) -> None:
    """Raises UsageError for a runtime that is unknown, not here, or of another arithmetic: before hours of
    work that it should check."""
    recipe = manifest.recipe
    with _networks_on(delegate, manifest) as make:
        assert make is not None  # there is a delegate
        for graph in networks_for(recipe.tile, recipe.repair):
            make(graph)


@contextmanager
def _networks_on(delegate: str | None, manifest: Manifest) -> Iterator[MakeNetwork | None]:
    if delegate is None:
        yield None
        return
    with delegate_named(delegate) as runtime:
        probe = runtime.probe()
        if not probe.available:
            raise UsageError(f"{delegate}: cannot be used here: {probe.reason}; {probe.remedy}")

        def make(graph: Graph) -> Network:
            if not _same_rules(graph, runtime.profile, manifest.recipe.profile):
                raise UsageError(
                    f"{delegate} computes as {runtime.profile} says, and the volume was restored under "
                    f"{manifest.recipe.profile}; restore with --profile {runtime.profile}"
                )
            model = write_model(graph)

            def run(values: Any) -> Any:
                (answer,) = runtime.run_many([(model, [values])])
                if isinstance(answer, DelegateError):
                    raise answer
                return answer.outputs[0]

            return Network(graph, run)

        yield make


def _same_rules(graph: Graph, first: str, second: str) -> bool:
    """Whether two profiles compute every layer alike, as those of two C libraries do where none is TANH."""
    one, other = profile_for(graph, first), profile_for(graph, second)
    views = [graph.view(layer.index) for layer in graph.layers]
    return all(one.rule(view) == other.rule(view) for view in views)
