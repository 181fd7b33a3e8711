"""What every delegate with a child process does alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Self

from delegates.child import Child
from delegates.protocol import DelegateRun, ExecutedGraph, Job, Model, Tensors
from refimpl.errors import DelegateError, DelegateUnavailable

if TYPE_CHECKING:
    from refimpl.engine import Feeds
    from refimpl.graph import Graph


class ChildDelegate:
    """A runtime behind ``_child``; a subclass defines :meth:`run` (see ``delegates.protocol``)."""

    _child: Child

    def executed_graph(self, model: Model, graph: Graph) -> ExecutedGraph:  # noqa: ARG002
        """The file's own layers; a runtime that rewrites files overrides this."""
        return ExecutedGraph(graph)

    def run(
        self, model: Model, feeds: Feeds, *, tensors: Tensors = "all", threads: int | None = None
    ) -> DelegateRun:
        """Runs one model once."""
        raise NotImplementedError

    def run_many(
        self, jobs: Iterable[Job], *, tensors: Tensors = "outputs", threads: int | None = None
    ) -> Iterator[DelegateRun | DelegateError]:
        """Runs each job in the same child; a crash costs one job and a restart."""
        for model, feeds in jobs:
            try:
                yield self.run(model, feeds, tensors=tensors, threads=threads)
            except DelegateUnavailable:
                raise
            except DelegateError as error:
                yield error

    def close(self) -> None:
        """Ends the child process."""
        self._child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
