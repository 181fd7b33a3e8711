"""Runtimes that read models and arrays from files and write arrays to files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from karat24.delegates.base import OneByOne
from karat24.delegates.dumps import read_npy_file, tensor_of
from karat24.delegates.protocol import DelegateRun, ExecutedGraph, Model, Tensors
from karat24.refimpl.errors import DelegateError, FeedError, UsageError
from karat24.refimpl.feeds import resolve_feeds
from karat24.refimpl.graph import DTYPES, Array, Format, Graph
from karat24.refimpl.trace import Trace

if TYPE_CHECKING:
    from karat24.refimpl.feeds import Feeds

_OUTPUT = re.compile(r"output_(\d{1,6})")


def write_inputs(folder: Path, graph: Graph, fed: Mapping[int, Array]) -> None:
    """Makes the folder and writes the model's inputs into it."""
    folder.mkdir()
    for place, index in enumerate(graph.inputs):
        np.save(folder / f"input_{place}.npy", fed[index])


def existing(model: Path) -> Path:
    """The path itself. Raises UsageError where there is no file."""
    if not model.is_file():
        raise UsageError(f"{model}: No such file")
    return model


class ByFiles(OneByOne):
    """The common part of runtimes that read and write ``.npy`` files.

    The model's inputs are ``input_0.npy``, ``input_1.npy`` … in the model's order; outputs are written as
    ``output_0.npy`` … likewise, and a file named by the index or name of another tensor is that tensor.
    Arrays have the model's element types and shapes.
    """

    name: str
    format: Format
    profile: str

    def executed_graph(self, model: Model, graph: Graph) -> ExecutedGraph:  # noqa: ARG002
        """The file's own layers, or those that the profile's runtime is predicted to make of them."""
        if self.format == "tflite" or not self.profile:
            return ExecutedGraph(graph)
        from karat24.export import graph_under
        from karat24.refimpl.profiles import profile_named

        return ExecutedGraph(graph_under(graph, profile_named(self.profile)), predicted=True)

    def run(
        self, model: Model, feeds: Feeds, *, tensors: Tensors = "all", threads: int | None = None
    ) -> DelegateRun:
        """Runs the model once. Raises UsageError for a thread count, which the runtime cannot be told."""
        if threads is not None:
            raise UsageError(f"{self.name}: a runtime behind files is told no thread count")
        from karat24.export import read_model

        versions = self.versions()
        graph = read_model(model if isinstance(model, bytes) else existing(model))
        fed = resolve_feeds(graph, feeds)
        written = self._computed(model, graph, fed, tensors)
        missing = [graph.label(index) for index in graph.outputs if index not in written]
        if missing:
            raise DelegateError(f"{self.name}: wrote no values of output {', '.join(missing)}")
        trace = Trace(self.name, self.profile, {**fed, **written}, versions=versions)
        return DelegateRun(trace, tuple(written[index] for index in graph.outputs))

    def versions(self) -> Mapping[str, str]:
        """The known versions of the runtime. Raises DelegateUnavailable."""
        raise NotImplementedError

    def _computed(
        self, model: Model, graph: Graph, fed: Mapping[int, Array], tensors: Tensors
    ) -> dict[int, Array]:
        """The arrays that the runtime computes from the feeds, by tensor index."""
        raise NotImplementedError

    def read_outputs(self, graph: Graph, folder: Path, tensors: Tensors) -> dict[int, Array]:
        """The arrays that a run wrote. Raises DelegateError unless they fit the model."""
        found: dict[int, Array] = {}
        for path in sorted(folder.glob("*.npy")):
            try:
                index = self._meant(graph, path)
                tensor = graph.tensors[index]
                array = read_npy_file(path, math.prod(tensor.shape))
            except FeedError as error:
                raise DelegateError(f"{self.name}: {error}") from None
            if index in graph.inputs or (tensors == "outputs" and index not in graph.outputs):
                continue
            if array.shape != tensor.shape or array.dtype != DTYPES.get(tensor.dtype):
                raise DelegateError(
                    f"{self.name}: {path.name} is {array.dtype} {array.shape}; {graph.label(index)} is "
                    f"{tensor.dtype} {tensor.shape}"
                )
            found[index] = array
        return found

    def _meant(self, graph: Graph, path: Path) -> int:
        numbered = _OUTPUT.fullmatch(path.stem)
        if numbered and int(numbered[1]) < len(graph.outputs):
            return graph.outputs[int(numbered[1])]
        return tensor_of(graph, path.stem, path.name)
