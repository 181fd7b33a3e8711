"""What a runtime elsewhere gave, read as the golden's hashes tell, with the usual mishaps named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from karat24.golden.goldens.files import values_digest
from karat24.golden.goldens.manifest import Golden
from karat24.golden.recordings.judge import fed_as_recorded, require_this_model
from karat24.golden.recordings.read import Dump, read_dump
from karat24.golden.recordings.readings import Reading, Recorded, best_reading, fits, readings
from karat24.refimpl.engine import Feeds
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array, Graph


@dataclass(frozen=True)
class Mishap:
    """Values as they stand in a recording, and the reading after which they have the golden's hash."""

    values: Array
    reading: str

    @property
    def reason(self) -> str:
        """In a sentence."""
        return f"every value is the golden's if the recording is {self.reading}"


@dataclass(frozen=True)
class Recording:
    """Values by tensor index. ``mishaps`` are read as named there; ``unreadable`` ones have the reason."""

    values: Mapping[int, Array]
    mishaps: Mapping[int, Mishap] = field(default_factory=dict)
    unreadable: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_recording(
    graph: Graph, golden: Golden, dump: Dump, feeds: Feeds, tensor: str | None = None
) -> Recording:
    """Reads a dump of any of the forms that :func:`~karat24.golden.recordings.read.read_dump` takes.

    A file whose form is the tensor's is taken at its word, another one read as the golden's hash tells, and
    as plainly as can be where no reading has that hash. Raises FeedError for a dump that cannot be read,
    CannotCompare for one of another input or another model.
    """
    recorded = read_dump(graph, dump, tensor)
    fed_as_recorded(graph, recorded, feeds)
    require_this_model(graph, recorded)
    hashes = {**{held.tensor: held.sha256 for held in golden.tensors}, **golden.outputs}
    written = {index for layer in graph.layers for index in layer.outputs}
    values: dict[int, Array] = {}
    mishaps: dict[int, Mishap] = {}
    unreadable: dict[int, str] = {}
    assumed: dict[str, list[int]] = {}
    for index in sorted(recorded.keys() & written):
        try:
            reading = _reading(recorded[index], graph, index, hashes.get(index, ""))
        except CannotCompare as error:
            unreadable[index] = str(error)
            continue
        values[index] = reading.values
        if not reading.assumed:
            continue
        if fits(recorded[index], graph.tensors[index]):
            mishaps[index] = Mishap(recorded[index].values, str(reading))
        else:
            assumed.setdefault(str(reading), []).append(index)
    notes = tuple(
        f"assumed of tensor{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}: {said}"
        for said, indices in assumed.items()
    )
    return Recording(values, mishaps, unreadable, notes)


def read_to_keep(graph: Graph, dump: Dump, feeds: Feeds, tensor: str | None = None) -> dict[int, Array]:
    """Values of a dump to make a golden of, by tensor index: nothing but their form says how to read them.

    So a file that says its form must have the tensor's, and one that does not, raw bytes or text, must hold
    the tensor's own numbers. Raises CannotCompare for others, and what :func:`read_recording` raises.
    """
    recorded = read_dump(graph, dump, tensor)
    fed_as_recorded(graph, recorded, feeds)
    require_this_model(graph, recorded)
    written = {index for layer in graph.layers for index in layer.outputs}
    values: dict[int, Array] = {}
    for index in sorted(recorded.keys() & written):
        meant, found = graph.tensors[index], recorded[index].values
        reading = best_reading(recorded[index], meant, graph.format, None)
        same_numbers = not recorded[index].formed and np.array_equal(reading.values.reshape(-1), found)
        if not (fits(recorded[index], meant) or same_numbers):
            raise CannotCompare(
                f"{graph.label(index)} is {meant.dtype} {meant.shape}, and the recording {found.dtype} "
                f"{found.shape}: {reading}? Write it in the tensor's own form to keep it as a golden"
            )
        values[index] = reading.values
    return values


def _reading(recorded: Recorded, graph: Graph, index: int, sha256: str) -> Reading:
    """The plainest reading with this hash, else the plainest. Raises CannotCompare where there is none."""
    tensor = graph.tensors[index]
    plain = best_reading(recorded, tensor, graph.format, None)
    if values_digest(plain.values) == sha256:
        return plain
    others = sorted(readings(recorded.values, tensor, graph.format), key=lambda reading: len(reading.assumed))
    return next((other for other in others if values_digest(other.values) == sha256), plain)
