"""ONNX Runtime and the onnx package's reference implementation, run in a child process."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from karat24.delegates.base import ChildDelegate
from karat24.delegates.c_library import remedy_here
from karat24.delegates.child import TIME_LIMIT, Child, remove, take_arrays
from karat24.delegates.fitting import Question, version_note
from karat24.delegates.onnx_lanes import OnnxLane
from karat24.delegates.protocol import (
    DelegateRun,
    ExecutedGraph,
    Model,
    Probe,
    Tensors,
)
from karat24.delegates.workers import ONNX_WORKER
from karat24.refimpl.errors import DelegateError, DelegateUnavailable, ModelError, UsageError
from karat24.refimpl.graph import Array, Format, Graph, Layer
from karat24.refimpl.trace import Trace

if TYPE_CHECKING:
    from karat24.delegates.optimized_graph import Edge
    from karat24.refimpl.engine import Feeds

OFF = "ORT_DISABLE_ALL"

LAYERS_READ_AT: Mapping[str, str] = {"ORT_ENABLE_ALL": "ORT_ENABLE_EXTENDED"}
"""Level a session runs at to the level its layers are read at, where they differ; see
``delegates/optimized_graph.py``."""

ONNX_PYTHON = "KARAT24_ONNX_PYTHON"
"""Environment variable naming the interpreter of another environment whose ONNX Runtime is to be judged."""


@dataclass(frozen=True)
class _Placed:
    """A model where the child finds it, and its reading."""

    about: str
    digest: str
    path: str
    stamp: tuple[int, ...]
    graph: Graph


@dataclass(frozen=True)
class _Optimized:
    """A model as the runtime wrote it: its file, that file with every edge shown, and the edges."""

    content: bytes
    shown: bytes
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class _Capture:
    """A model that shows inner edges: its file, the level to run it at, and what to fetch by name."""

    path: str
    level: str
    fetch: Mapping[str, int]
    unreadable: Mapping[int, str]


class OnnxDelegate(ChildDelegate):
    """A lane of ONNX Runtime, or onnx.reference.

    ``time_limit`` is in seconds, per request. ``python`` is the interpreter of the environment whose
    runtime is judged: this one, or what ``KARAT24_ONNX_PYTHON`` names.
    """

    format: Format = "onnx"

    def __init__(self, lane: OnnxLane, time_limit: float = TIME_LIMIT, python: str = "") -> None:
        self.lane, self.name, self.described_by = lane, lane.name, lane.profile
        python = python or os.environ.get(ONNX_PYTHON) or sys.executable
        self._child = Child(lane.name, python, time_limit, ONNX_WORKER)
        self._request = {"provider": lane.provider, "level": lane.level, "entries": dict(lane.entries)}
        self._remedy = remedy_here(lane.remedy)
        self._executed: tuple[str, ExecutedGraph] | None = None
        self._written: dict[tuple[str, str], _Optimized] = {}

    def probe(self) -> Probe:
        """What is installed, asked of the child: a library that kills its process is a reason too."""
        library = "onnxruntime" if self.lane.provider else "onnx"
        try:
            answer = self._child.ask("probe", "loading its library", lane=self._request)
        except DelegateError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            return Probe(False, library, reason=reason, remedy=self._remedy)
        library, version = next(iter(answer["versions"].items()))
        device = self.lane.provider.removesuffix("ExecutionProvider").lower()
        devices = (device,) if device not in ("", "cpu") else ()
        note = version_note(self.described_by, library, version)
        return Probe(True, library, version, devices, note, self._remedy if note else "")

    def executed_graph(self, model: Model, graph: Graph) -> ExecutedGraph:
        """The layers this lane runs for a model file; see :class:`karat24.delegates.protocol.Delegate`.

        ONNX Runtime is asked to write the graph it makes of the file under the lane's options
        (``delegates/optimized_graph.py``). Where it cannot, or its graph cannot be read, the layers are
        those ``lower_qdq`` predicts, and the note says why.
        """
        placed = self._place(model)
        return self._layers_of(placed, graph)

    def _layers_of(self, placed: _Placed, graph: Graph) -> ExecutedGraph:
        if self.lane.layers == "file":
            return ExecutedGraph(graph)
        if self.lane.layers == "predicted":
            return ExecutedGraph(self._predicted(graph), predicted=True)
        if self._executed is None or self._executed[0] != placed.digest:
            self._executed = (placed.digest, self._ask_for_layers(placed, graph))
        return self._executed[1]

    def _predicted(self, graph: Graph) -> Graph:
        from karat24.export import graph_under
        from karat24.refimpl.profiles import profile_for

        return graph_under(graph, profile_for(graph, self.profile or None))

    def _ask_for_layers(self, placed: _Placed, graph: Graph) -> ExecutedGraph:
        from karat24.delegates.optimized_graph import read_optimized

        self.versions()  # raises for a missing runtime, whose layers are not predicted
        try:
            level = LAYERS_READ_AT.get(self.lane.level, self.lane.level)
            found = self._optimized(placed, level)
            executed = read_optimized(found.content, found.edges, graph)
        except DelegateUnavailable:
            raise
        except (DelegateError, ModelError) as error:
            note = f"the layers are predicted, since {self.name} gives no graph that can be read: {error}"
            return ExecutedGraph(self._predicted(graph), predicted=True, note=note)
        return ExecutedGraph(executed, note=self._held_against_prediction(graph, executed))

    def _held_against_prediction(self, graph: Graph, executed: Graph) -> str:
        """A note where `lower_qdq`, which replaces the runtime elsewhere, predicts other layers, else ''.

        It predicts a default session.
        """
        from karat24.export.onnx.numbering import differing_layers

        if self.lane.level != "ORT_ENABLE_ALL" or self.lane.entries:
            return ""
        try:
            predicted = self._predicted(graph)
        except ModelError as error:
            return f"`karat24 run` cannot predict the layers of {self.name}: {error}"
        ours, theirs = differing_layers(predicted, executed)
        if not ours and not theirs:
            return ""
        return (
            f"{self.name} runs other layers than `karat24 run` predicts: "
            f"{_listed(executed, theirs)} instead of {_listed(predicted, ours)}"
        )

    def _optimized(self, placed: _Placed, level: str) -> _Optimized:
        """The graph that the runtime makes of the model at ``level``. Raises as :meth:`_ask` does."""
        key = placed.digest, level
        if key not in self._written:
            while len(self._written) > 1:
                self._written.pop(next(iter(self._written)))
            self._written[key] = self._ask_to_optimize(placed, level)
        return self._written[key]

    def _ask_to_optimize(self, placed: _Placed, level: str) -> _Optimized:
        from karat24.delegates.optimized_graph import Edge, largest_file, with_constants, with_every_edge

        answer = self._ask(
            "optimize", placed.about, model=placed.path, stamp=placed.stamp, threads=1, level=level
        )
        path = Path(answer["optimized"])
        try:
            if path.stat().st_size > largest_file(placed.graph):
                raise ModelError(f"the graph that {self.name} makes of {placed.about} is too large")
            content = with_constants(path.read_bytes(), Path(placed.path).parent)
        finally:
            path.unlink()
        shown = with_every_edge(content)
        place = str(self._child.write_model(f"{placed.digest}-{level}", shown))
        answer = self._ask("edges", placed.about, model=place, stamp=(), threads=1, level=OFF)
        return _Optimized(content, shown, tuple(Edge.described(*edge) for edge in answer["edges"]))

    def run(
        self,
        model: Model,
        feeds: Feeds,
        *,
        tensors: Tensors = "all",
        threads: int | None = None,
        check_capture: bool = True,
    ) -> DelegateRun:
        """Runs one .onnx model once; see :class:`karat24.delegates.protocol.Delegate`.

        ``outputs`` are those of the file as it is in the lane's session. With ``tensors="all"`` edges
        are captured from the graph the runtime wrote (else, from the file with edges as outputs), run
        with optimizations off, so that the nodes shown are those that run; ``check_capture`` compares
        its outputs with those of the file. Raises ModelError for a file that cannot be read.
        """
        from karat24.refimpl.engine import resolve_feeds

        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads asked for; at least one is needed")
        self.versions()
        placed = self._place(model)
        fed = resolve_feeds(placed.graph, feeds)
        written = {placed.graph.tensors[i].name: self._child.write_feed(fed[i]) for i in placed.graph.inputs}
        try:
            if tensors == "outputs":
                return self._run(placed, fed, written, None, threads)
            captures = self._captures(placed)
            run = self._run(placed, fed, written, next(captures), threads, check_capture)
            for capture in captures:
                if not run.capture_changed:
                    break
                run = self._run(placed, fed, written, capture, threads)
            return run
        finally:
            remove(list(written.values()))

    def _run(
        self,
        placed: _Placed,
        fed: Mapping[int, Array],
        written: Mapping[str, str],
        capture: _Capture | None,
        threads: int | None,
        check: bool = True,
    ) -> DelegateRun:
        """One run of the ``capture``'s model and, with ``check``, of the file itself."""
        graph = placed.graph
        names = {graph.tensors[i].name: i for i in graph.outputs}
        capture = capture or _Capture(placed.path, "", {}, {})
        answer = self._ask(
            "run", placed.about, model=capture.path, level=capture.level,
            plain=placed.path if check and capture.path != placed.path else None,
            stamp=placed.stamp, threads=threads or 1, feeds=written,
            fetch={**capture.fetch, **names}, outputs=list(names),
        )  # fmt: skip
        values = {**{i: fed[i] for i in graph.inputs}, **take_arrays(answer["tensors"])}
        return DelegateRun(
            Trace(self.name, self.profile, dict(sorted(values.items())), versions=self.versions()),
            tuple(values[i] for i in graph.outputs),
            capture.unreadable,
            frozenset(),
            tuple(names[name] for name in answer["capture_changed"]),
        )

    def compute(self, question: Question) -> list[Array]:
        """See :class:`karat24.delegates.base.ChildDelegate`."""
        graph = question.graph
        outputs = {graph.tensors[index].name: index for index in graph.outputs}
        fed = zip(graph.inputs, question.feeds, strict=True)
        written = {graph.tensors[index].name: self._child.write_feed(value) for index, value in fed}
        try:
            answer = self._ask(
                "run", f"its own question {graph.name!r}", plain=None, stamp=(), threads=1, feeds=written,
                model=str(self._child.write_model(graph.name, question.model)),
                fetch=outputs, outputs=list(outputs),
            )  # fmt: skip
        finally:
            remove(list(written.values()))
        read = take_arrays(answer["tensors"])
        return [read[index] for index in graph.outputs]

    def _captures(self, placed: _Placed) -> Iterator[_Capture]:
        """Models that show inner edges, the fullest first."""
        executed = self._layers_of(placed, placed.graph)
        if self.lane.layers != "written" or executed.predicted:
            yield self._exposed_file(placed)
            return
        for level in dict.fromkeys((LAYERS_READ_AT.get(self.lane.level, self.lane.level), self.lane.level)):
            yield self._by_name(placed, executed.graph, level)

    def _by_name(self, placed: _Placed, graph: Graph, level: str) -> _Capture:
        """The edges of ``graph`` that the runtime's graph at ``level`` has, too."""
        optimized = self._optimized(placed, level)
        path = str(self._child.write_model(f"{placed.digest}-{level}", optimized.shown))
        shown = {edge.name: edge for edge in optimized.edges}
        fetch, unreadable = {}, {}
        for layer in placed.graph.layers:
            for index in layer.outputs:
                unreadable[index] = "the runtime's optimizer made this edge the inside of another layer"
        for layer in graph.layers:
            for index in layer.outputs:
                tensor = graph.tensors[index]
                edge = shown.get(tensor.name)
                if edge is not None and edge.fits(tensor):
                    fetch[tensor.name] = index
                    unreadable.pop(index, None)
                else:
                    unreadable[index] = "the runtime keeps this edge in a layout of its own"
        return _Capture(path, OFF, fetch, {i: why for i, why in unreadable.items() if i not in graph.outputs})

    def _exposed_file(self, placed: _Placed) -> _Capture:
        shown, unreadable = self._edges(placed.graph)
        path = placed.path
        if shown:
            content = expose(Path(placed.path), placed.graph, shown)
            path = str(self._child.write_model(f"{placed.digest}-exposed", content))
        tensors = placed.graph.tensors
        return _Capture(path, "", {tensors[i].name: i for i in shown}, unreadable)

    def _place(self, model: Model) -> _Placed:
        """Puts the model where the child finds it, and reads it."""
        from karat24.export.onnx import read_onnx

        stamp: tuple[int, ...] = ()
        if isinstance(model, bytes):
            digest = hashlib.sha256(model).hexdigest()[:16]
            about = f"model {digest}"
            path = str(self._child.write_model(digest, model))
        else:
            about, path = str(model), str(Path(model).resolve())
            try:
                content = Path(model).read_bytes()
                stat = os.stat(path)
            except OSError as error:
                raise UsageError(f"{model}: {error.strerror}") from None
            digest, stamp = hashlib.sha256(content).hexdigest()[:16], (stat.st_mtime_ns, stat.st_size)
        return _Placed(about, digest, path, stamp, read_onnx(model))

    def _edges(self, graph: Graph) -> tuple[tuple[int, ...], dict[int, str]]:
        """Edges of the file to be shown, and why the others are not."""
        written = [index for layer in graph.layers for index in layer.outputs if index not in graph.outputs]
        if self.lane.layers == "file":
            return tuple(written), {}
        hidden = {i for i in written if graph.tensors[i].dtype in ("float32", "float16", "float64")}
        reason = "showing a float edge would undo the fusion around it"
        return tuple(i for i in written if i not in hidden), dict.fromkeys(sorted(hidden), reason)


def _listed(graph: Graph, layers: Sequence[Layer], most: int = 4) -> str:
    named = [f"{layer.op} {graph.tensors[layer.outputs[0]].name!r}" for layer in layers[:most]]
    return (", ".join(named) or "none") + (f" and {len(layers) - most} more" if len(layers) > most else "")


def expose(model: Model, graph: Graph, shown: Iterable[int]) -> bytes:
    """The model with tensors ``shown`` of ``graph``, its reading, among its outputs.

    Values it keeps in other files come with it. Raises UsageError when the onnx package is missing.
    """
    from karat24.export.onnx.package import import_onnx
    from karat24.export.onnx.schema import TYPE_CODES

    onnx = import_onnx()
    proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(os.fspath(model))
    for index in shown:
        tensor = graph.tensors[index]
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(tensor.name, TYPE_CODES[tensor.dtype], tensor.shape)
        )
    return bytes(proto.SerializeToString(deterministic=True))
