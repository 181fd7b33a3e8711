"""The parts that delegates share: jobs run one by one, and a child process that runs them."""

from __future__ import annotations

from collections.abc import (
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from karat24.delegates.child import Child
from karat24.delegates.fitting import Fit, Question, fitting
from karat24.delegates.protocol import DelegateRun, ExecutedGraph, Job, Model, Tensors
from karat24.refimpl.errors import DelegateError, DelegateUnavailable, KaratError
from karat24.refimpl.graph import Array

if TYPE_CHECKING:
    from karat24.refimpl.engine import Feeds
    from karat24.refimpl.graph import Graph


class OneByOne:
    """A delegate whose :meth:`run_many` is :meth:`run` for one job after the other; it can be closed."""

    def run(
        self, model: Model, feeds: Feeds, *, tensors: Tensors = "all", threads: int | None = None
    ) -> DelegateRun:
        """Runs one model once."""
        raise NotImplementedError

    def run_many(
        self, jobs: Iterable[Job], *, tensors: Tensors = "outputs", threads: int | None = None
    ) -> Iterator[DelegateRun | DelegateError]:
        """Runs every job; a crash only ends the job that caused it. Raises DelegateUnavailable."""
        for model, feeds in jobs:
            try:
                yield self.run(model, feeds, tensors=tensors, threads=threads)
            except DelegateUnavailable:
                raise
            except DelegateError as error:
                yield error

    def close(self) -> None:
        """Ends everything that the delegate started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ChildDelegate(OneByOne):
    """A runtime behind ``_child``; a subclass defines :meth:`run` (see ``karat24.delegates.protocol``).

    ``_request`` tells the child which lane is meant, ``_remedy`` tells the user how to get its runtime.
    ``described_by`` is the profile of its lane; :meth:`compute` runs the models that decide which variant of
    it fits on this machine.
    """

    _child: Child
    described_by: str
    _request: dict[str, Any]
    _remedy: str
    _versions: dict[str, str] | None = None

    def versions(self) -> Mapping[str, str]:
        """Runtime, Python, NumPy and CPU the child runs on. Raises DelegateUnavailable."""
        if self._versions is None:
            self._versions = dict(self._ask("probe", "loading its library")["versions"])
        return self._versions

    def _ask(self, what: str, about: str, **request: Any) -> dict[str, Any]:
        try:
            return self._child.ask(what, about, lane=self._request, **request)
        except DelegateUnavailable as error:
            raise DelegateUnavailable(f"{error}; {self._remedy}") from None

    @cached_property
    def fit(self) -> Fit:
        """Which profile fits here; the runtime is asked once, at the first use.

        A runtime that is missing fits the profile of its lane; one that cannot answer fits none.
        """
        try:
            return fitting(self.described_by, self.compute)
        except DelegateUnavailable:
            return Fit(self.described_by)
        except KaratError as error:
            return Fit("", f"the runtime does not say which arithmetic it has here: {error}")

    @property
    def profile(self) -> str:
        """The profile that describes the runtime on this machine; empty where none does."""
        return self.fit.profile

    def compute(self, question: Question) -> Sequence[Array]:
        """The outputs of a question's model, in order. Raises DelegateError."""
        raise NotImplementedError

    def executed_graph(self, model: Model, graph: Graph) -> ExecutedGraph:  # noqa: ARG002
        """The file's own layers; a runtime that rewrites files overrides this."""
        return ExecutedGraph(graph)

    def close(self) -> None:
        """Ends the child process."""
        self._child.stop()
