"""The search: images of many kinds are drawn, and the best one is changed in many places at once.

Places lie so far apart that elements of the first layers see one of them at most. So each change is judged by
itself, all of them by one run, and those are kept that meet more new ties around their place; what deep
layers meet is left to chance and selection. No gradient is used: the network runs as it is. A tie of a layer
counts the more, the fewer of that layer's ties random inputs meet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from karat24.feeds import random_feeds, reals_of
from karat24.refimpl.engine import Program, compile_graph
from karat24.refimpl.errors import CannotCompare, UsageError
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Graph, Tensor
from karat24.refimpl.profiles import Profile
from karat24.refimpl.step import Implementation
from karat24.seeking.drawings import composed, disturbed, drawing
from karat24.seeking.receptive import receptive_fields
from karat24.seeking.ties import Coverage, Ties

DRAWN = 0.3
"""Share of the time for each image in which images are drawn; in the rest the best one is improved."""

NEAR = 0.3
"""Receptive fields up to this share of the image's height: cells are judged by what such layers meet."""

CELL = 2
"""Least height of a cell in pixels; there are at most MOST_CELLS along an axis."""

MOST_CELLS = 32

PERIOD = 4
"""Cells from one place to the next; of these the middle half is changed."""


@dataclass(frozen=True, eq=False)
class Sought:
    """The case, and what it meets beside as many random inputs.

    ``feeds`` has one entry per image, by input index. ``coverage`` is of all images together, ``random``
    the mean of several sets of as many random ones (ties and ends by layer). ``random_needed`` is the number
    of random inputs that together meet as many ties, None where all ``random_tried`` do not.
    """

    feeds: tuple[dict[int, Array], ...]
    coverage: tuple[Coverage, ...]
    random: tuple[tuple[float, float], ...]
    random_tried: int
    random_needed: int | None
    runs: int
    left_out: dict[int, str]

    @property
    def factor(self) -> float | None:
        """All ties met by the case over those met by random inputs; None where these met none."""
        by_random = sum(ties for ties, _ in self.random)
        return sum(c.ties for c in self.coverage) / by_random if by_random else None

    @property
    def factor_by_layer(self) -> float | None:
        """The mean over layers of the same; layers left out where random inputs met none."""
        found = [c.ties / ties for c, (ties, _) in zip(self.coverage, self.random, strict=True) if ties]
        return float(np.mean(found)) if found else None

    def to_dict(self) -> dict[str, Any]:
        """All but the inputs, in JSON's own types."""
        layers = [
            {**vars(c), "random_ties": ties, "random_ends": ends}
            for c, (ties, ends) in zip(self.coverage, self.random, strict=True)
        ]
        return {
            "schema": 1,
            "images": len(self.feeds),
            "runs": self.runs,
            "factor": self.factor,
            "factor_by_layer": self.factor_by_layer,
            "random_tried": self.random_tried,
            "random_needed": self.random_needed,
            "layers": layers,
            "left_out": {str(layer): reason for layer, reason in self.left_out.items()},
        }


Say = Callable[[str], None]


# Options with defaults follow `*`; a user names each of them, so that a record would not be shorter.
def seek(
    graph: Graph,
    profile: Profile,
    *,
    other: Profile | None = None,
    images: int = 1,
    seconds: float = 60.0,
    runs: int | None = None,
    seed: int = 0,
    random_sets: int = 4,
    threads: int | None = None,
    implementation: Implementation = "kernels",
    say: Say = lambda _: None,
) -> Sought:
    """Seeks ``images`` inputs of ``graph`` that together meet as many ties and ends as possible.

    The search takes ``seconds``, or exactly ``runs`` of the network: these give equal images for one
    ``seed``. With ``other`` only ties on which that profile differs count. The result is compared with
    ``random_sets`` sets of ``images`` random inputs. ``say`` is called with messages about progress. Raises
    UsageError for an input that is not a number, CannotCompare where no layer has a tie, and what compiling
    raises.
    """
    for index in graph.inputs:
        dtype = graph.tensors[index].dtype
        if dtype not in DTYPES or DTYPES[dtype].kind not in "iuf":
            raise UsageError(f"{graph.label(index)}: inputs of type {dtype} are not sought")
    say("staircases of all layers")
    ties = Ties(graph, profile, other)
    if not len(ties):
        raise CannotCompare(f"{graph.name}: no layer has a staircase under {profile.name}, so no tie")
    program = compile_graph(graph, profile, threads, implementation)
    say("compiling kernels, and random inputs for comparison")
    search = _Search(graph, program, ties, np.random.default_rng(seed))
    drawn = [search.met(random_feeds(graph, seed + i)) for i in range(images * random_sets)]
    sets = [ties.coverage(drawn[i::random_sets]) for i in range(random_sets)]
    random = tuple(
        (float(np.mean([c.ties for c in of])), float(np.mean([c.ends for c in of])))
        for of in zip(*sets, strict=True)
    )
    search.weigh(random)
    begun = time.monotonic()
    for number in range(images):
        share = (begun + seconds - time.monotonic()) / (images - number)
        for done in search.add(share, None if runs is None else max(1, runs // images)):
            say(f"image {number + 1} of {images}: {done}")
    coverage = tuple(ties.coverage(search.kept_numbers))
    wanted = sum(c.ties for c in coverage)
    return Sought(
        tuple(search.kept), coverage, random, len(drawn), _needed(ties, drawn, wanted),
        search.runs - len(drawn),
        ties.left_out,
    )  # fmt: skip


def _needed(ties: Ties, drawn: Sequence[Array], wanted: int) -> int | None:
    """How many of the random inputs together meet ``wanted`` ties."""
    for count in range(1, len(drawn) + 1):
        if sum(c.ties for c in ties.coverage(drawn[:count])) >= wanted:
            return count
    return None


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Images as values from 0 to 1 and as the inputs take them, the numbers of what they meet, how much that
    is worth, and how much of it in each cell of the first input, ``[batch, row, column]``."""

    units: dict[int, Array]
    feeds: dict[int, Array]
    numbers: Array
    gain: float
    cells: Array


class _Search:
    def __init__(self, graph: Graph, program: Program, ties: Ties, rng: np.random.Generator) -> None:
        self._graph, self._program, self._ties, self._rng = graph, program, ties, rng
        self._weights = np.ones(len(ties))
        batch, y, x, _ = _image_shape(graph, graph.tensors[graph.inputs[0]])
        self._grid = (batch, *(max(1, min(MOST_CELLS, size // CELL)) for size in (y, x)))
        fields = receptive_fields(graph)
        near = [layer for layer in ties.layers if fields[layer] <= NEAR * y]
        of_batch = [layer for layer in near if graph.view(layer).output().shape[0] == batch]
        self._cells = {layer: self._cells_of(layer) for layer in of_batch}
        self.kept: list[dict[int, Array]] = []
        self.kept_numbers: list[Array] = []
        self.runs = 0

    def _cells_of(self, layer: int) -> Array:
        """The flat cell under each place of a layer's output."""
        tensor = self._graph.view(layer).output()
        batch, height, width, _ = _image_shape(self._graph, tensor)
        _, rows, columns = self._grid
        y, x = np.arange(height) * rows // height, np.arange(width) * columns // width
        image = (y[:, np.newaxis] * columns + x).reshape(-1)
        return (np.arange(batch)[:, np.newaxis] * rows * columns + image).reshape(-1)

    def met(self, feeds: dict[int, Array]) -> Array:
        """The numbers of what one run meets, each once."""
        return np.unique(np.concatenate([numbers for _, numbers, _ in self._hits(feeds)]))

    def _hits(self, feeds: dict[int, Array]) -> list[tuple[int, Array, Array]]:
        trace = self._program.run(feeds, accumulators=True).trace
        assert trace is not None
        self.runs += 1
        return list(self._ties.hits(trace))

    def weigh(self, random: Sequence[tuple[float, float]]) -> None:
        """A layer's ties count by the root of how many random inputs meet, which is about their spread; its
        ends by a quarter of that."""
        expected = np.array([t for t, _ in random] + [16 * max(e, 1) for _, e in random])
        self._weights = (1 / np.sqrt(np.maximum(expected, 1)))[self._ties.layer_of()]

    def add(self, seconds: float, runs: int | None) -> Iterator[str]:
        """Seeks one more image, in ``runs`` runs or else for ``seconds``, and keeps it; says what is done."""
        begun, before = time.monotonic(), self.runs
        best, spent = self._tried(self._drawn()), 0.0
        while spent < 1:
            drawn = spent < DRAWN
            best = self._better(best, self._tried(self._drawn())) if drawn else self._improved(best)
            done = self.runs - before
            spent = done / runs if runs is not None else (time.monotonic() - begun) / max(seconds, 1e-9)
            new = int((self._weights[best.numbers] > 0).sum())
            yield f"{min(1.0, spent):.0%}, {done} runs, {new:,} ties and ends more"
        self._weights[best.numbers] = 0
        self.kept.append(best.feeds)
        self.kept_numbers.append(best.numbers)

    def _improved(self, best: _Candidate) -> _Candidate:
        """The best image, or the one changed in many places, or in those where the change was worth it."""
        batch, rows, columns = self._grid
        at_y, at_x = (
            np.arange(rows) + self._rng.integers(PERIOD),
            np.arange(columns) + self._rng.integers(PERIOD),
        )
        middle_y, middle_x = (abs(at % PERIOD - (PERIOD - 1) / 2) < PERIOD / 4 for at in (at_y, at_x))
        changed = np.broadcast_to(middle_y[:, np.newaxis] & middle_x, self._grid).astype(np.int64)
        disturbances = {
            index: np.stack([disturbed(self._rng, one) for one in image])
            for index, image in best.units.items()
        }
        other = self._tried(self._mixed(best.units, disturbances, changed))
        place = (at_y // PERIOD)[:, np.newaxis] * (columns // PERIOD + 2) + at_x // PERIOD
        place = np.arange(batch)[:, np.newaxis, np.newaxis] * (place.max() + 1) + place
        worth = np.bincount(place.reshape(-1), (other.cells - best.cells).reshape(-1))
        both = self._mixed(best.units, other.units, changed * (worth[place] > 0))
        return self._better(self._better(best, other), self._tried(both))

    def _mixed(self, one: dict[int, Array], other: dict[int, Array], chosen: Array) -> dict[int, Array]:
        """Cells of the first input from either; other inputs whole, from either."""
        first = self._graph.inputs[0]
        mixed = {index: (one, other)[int(self._rng.integers(2))][index] for index in one}
        pairs = zip(one[first], other[first], chosen, strict=True)
        mixed[first] = np.stack([composed([a, b], which) for a, b, which in pairs])
        return mixed

    def _tried(self, units: dict[int, Array]) -> _Candidate:
        feeds = {index: _stored(self._graph, index, unit) for index, unit in units.items()}
        hits = self._hits(feeds)
        times = np.bincount(np.concatenate([numbers for _, numbers, _ in hits]), minlength=len(self._ties))
        numbers = np.flatnonzero(times)
        cells = np.zeros(self._grid)
        for layer, some, places in hits:
            if layer in self._cells:
                on = places >= 0
                worth = self._weights[some[on]] / times[some[on]]
                cells += np.bincount(self._cells[layer][places[on]], worth, cells.size).reshape(self._grid)
        return _Candidate(units, feeds, numbers, float(self._weights[numbers].sum()), cells)

    @staticmethod
    def _better(one: _Candidate, other: _Candidate) -> _Candidate:
        return other if other.gain > one.gain else one

    def _drawn(self) -> dict[int, Array]:
        found = {}
        for index in self._graph.inputs:
            batch, *shape = _image_shape(self._graph, self._graph.tensors[index])
            found[index] = np.stack(
                [drawing(self._rng, (shape[0], shape[1], shape[2])) for _ in range(batch)]
            )
        return found


def _image_shape(graph: Graph, tensor: Tensor) -> tuple[int, int, int, int]:
    """Batch, height, width and channels; a tensor that is not an image is a row of single values."""
    if len(tensor.shape) != 4:
        return (1, 1, int(np.prod(tensor.shape)), 1)
    batch, *rest = tensor.shape
    y, x, channels = rest if graph.format == "tflite" else (*rest[1:], rest[0])
    return (batch, y, x, channels)


def _stored(graph: Graph, index: int, unit: Array) -> Array:
    """Values from 0 to 1, ``[batch, y, x, channel]``, as the input takes them: over its whole range."""
    tensor = graph.tensors[index]
    if graph.format == "onnx" and len(tensor.shape) == 4:
        unit = np.moveaxis(unit, -1, 1)
    unit, dtype = unit.reshape(tensor.shape), DTYPES[tensor.dtype]
    if dtype.kind == "f":
        low, high = reals_of(graph, index)
        return np.asarray((low + (high - low) * unit).astype(dtype))
    least, most = QUANTIZED_RANGE.get(tensor.dtype, (0, 2**31 - 1))
    return np.asarray((least + np.rint((most - least) * unit)).astype(dtype))
