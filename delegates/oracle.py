"""The oracle as a delegate, so that it can be judged like a runtime."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from karat24.delegates.base import OneByOne
from karat24.delegates.fitting import Fit
from karat24.delegates.protocol import DelegateRun, ExecutedGraph, Job, Model, Probe, Tensors
from karat24.refimpl import __version__
from karat24.refimpl.errors import DelegateError, ModelError, UsageError
from karat24.refimpl.graph import Format, Graph

if TYPE_CHECKING:
    from karat24.refimpl.engine import Feeds, Program


class OracleDelegate(OneByOne):
    """The engine under a profile (the canonical one unless said otherwise), in this process."""

    name = "oracle"

    def __init__(self, profile: str | None = None, time_limit: float = 0.0) -> None:
        del time_limit  # the time limit is for runtimes that can hang
        from karat24.refimpl.profiles import CANONICAL, profile_named

        named = profile_named(profile or CANONICAL)
        self.profile = named.name
        self.format: Format = named.format
        self.fit = Fit(named.name)
        self._last: tuple[bytes, int | None, Program] | None = None

    def probe(self) -> Probe:
        """The oracle is always available."""
        return Probe(True, "karat24", __version__)

    def versions(self) -> Mapping[str, str]:
        """The project's, Python's, NumPy's and Numba's versions."""
        import numba

        return {
            "karat24": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "machine": platform.machine(),
        }

    def run(
        self, model: Model, feeds: Feeds, *, tensors: Tensors = "all", threads: int | None = None
    ) -> DelegateRun:
        """Runs one model of the profile's format; raises as reading it and compiling it do."""
        from karat24.refimpl.trace import Trace

        program = self._program(model, threads)
        result = program.run(feeds, trace=True)
        assert result.trace is not None
        values = dict(result.trace.tensors)
        if tensors == "outputs":
            wanted = {*program.graph.inputs, *program.graph.outputs}
            values = {index: value for index, value in values.items() if index in wanted}
        trace = Trace(self.name, self.profile, values, rules=result.trace.rules, versions=self.versions())
        return DelegateRun(trace, result.outputs)

    def _program(self, model: Model, threads: int | None) -> Program:
        from karat24.refimpl.engine import compile_graph

        content = model if isinstance(model, bytes) else _read(model)
        if self._last is None or self._last[:2] != (content, threads):
            program = compile_graph(self._graph(model, content), self.profile, threads)
            self._last = (content, threads, program)
        return self._last[2]

    def executed_graph(self, model: Model, graph: Graph) -> ExecutedGraph:  # noqa: ARG002
        """The graph that a runtime of the profile is predicted to run for the file."""
        from karat24.export import graph_under
        from karat24.refimpl.profiles import profile_named

        return ExecutedGraph(graph_under(graph, profile_named(self.profile)), predicted=True)

    def _graph(self, model: Model, content: bytes) -> Graph:
        """The layers a runtime of the profile is predicted to run for the model."""
        from karat24.export.files import file_format
        from karat24.export.onnx import read_onnx
        from karat24.export.tflite import read_tflite

        if self.format == "tflite" or file_format(content) == "tflite":
            return read_tflite(content)
        # An .onnx file may keep values in files beside it, so it is read from its path.
        return self.executed_graph(model, read_onnx(model)).graph

    def run_many(
        self, jobs: Iterable[Job], *, tensors: Tensors = "outputs", threads: int | None = None
    ) -> Iterator[DelegateRun | DelegateError]:
        """Runs each job; a model the oracle cannot run yields the reason."""
        for model, feeds in jobs:
            try:
                yield self.run(model, feeds, tensors=tensors, threads=threads)
            except ModelError as error:
                yield DelegateError(f"{self.name}: {error}")

    def close(self) -> None:
        """Forgets the last program."""
        self._last = None


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
