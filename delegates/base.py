"""The part that all delegates with a child process share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from delegates.child import Child
from delegates.protocol import DelegateRun, Job, Model, Tensors
from refimpl.errors import DelegateError, DelegateUnavailable

if TYPE_CHECKING:
    from refimpl.engine import Feeds


class ChildDelegate:
    """A runtime behind ``_child``; a subclass defines :meth:`run` (see ``delegates.protocol``).

    ``_request`` tells the child which lane is meant, ``_remedy`` tells the user how to get its runtime.
    """

    _child: Child
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
