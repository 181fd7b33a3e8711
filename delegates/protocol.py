"""The interface of every runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from karat24.refimpl.errors import DelegateError
from karat24.refimpl.graph import Array, Format, Graph
from karat24.refimpl.trace import Trace

if TYPE_CHECKING:
    from karat24.delegates.fitting import Fit
    from karat24.refimpl.engine import (
        Feeds,  # only for types: importing the engine imports Numba, which is slow
    )

Model: TypeAlias = bytes | Path
"""A model file's contents, or its path."""

Tensors: TypeAlias = Literal["all", "outputs"]
"""The tensors to read: all outputs of layers, or only the graph's outputs."""


@dataclass(frozen=True)
class Probe:
    """Whether a delegate can be used here.

    ``devices`` lists the accelerators found (empty for a CPU runtime). When
    ``available`` is false, ``reason`` says what is missing and ``remedy`` how to get it; when it is
    true, ``reason`` is what to know about the version, if anything.
    """

    available: bool
    library: str
    version: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class ExecutedGraph:
    """The layers a runtime runs for one model file.

    Tensors of the file's reading keep their indices; tensors that only the runtime has come last.
    ``predicted`` is True for layers that the runtime was not asked for; ``note`` is empty, or what the reader
    of a report must know about where the layers come from.
    """

    graph: Graph
    predicted: bool = False
    note: str = ""


@dataclass(frozen=True)
class DelegateRun:
    """What a runtime computed from one model and one set of feeds.

    ``trace.tensors`` holds the feeds, the graph outputs, and (with
    ``tensors="all"``) every layer output of the executed graph that could be read truthfully;
    ``unreadable`` maps each of the others to the reason it could not.
    ``outputs`` are the graph's outputs in order. ``delegated`` holds the layers
    an accelerator library inside the runtime (XNNPACK, Edge TPU) took.
    ``capture_changed`` holds the graph outputs that differ between the run that
    kept every tensor and one that did not: when it is not empty the capture
    itself disturbed the runtime, and the trace must not be compared.
    """

    trace: Trace
    outputs: tuple[Array, ...]
    unreadable: Mapping[int, str] = field(default_factory=dict)
    delegated: frozenset[int] = frozenset()
    capture_changed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "unreadable", MappingProxyType(dict(self.unreadable)))


Job: TypeAlias = "tuple[Model, Feeds]"
"""One model and its feeds: by input name, by tensor index, or in input order."""


@runtime_checkable
class Sequential(Protocol):
    """A delegate whose runs can be one sequence, in which variables keep their values."""

    def run_in_sequence(
        self, model: Model, feeds: Feeds, *, first: bool, tensors: Tensors = "all", threads: int | None = None
    ) -> DelegateRun:
        """As :meth:`Delegate.run`, but a run that is not the ``first`` goes on from what the one before left.

        Raises DelegateError where that is lost, because another model ran or the process ended.
        """


class Delegate(Protocol):
    """A runtime that computes models of one format.

    ``format`` is that of the files it reads. ``profile`` names the arithmetic the runtime is expected to
    follow on this machine, or is empty where none describes it; to find that out may start the runtime.
    Delegates are context managers; ``close`` frees whatever runs behind them and may be called more than
    once.
    """

    name: str
    format: Format

    @property
    def profile(self) -> str:
        """Name of the profile that describes the runtime here, or ''."""

    @property
    def fit(self) -> Fit:
        """That profile, and how it is known that it is this one."""

    def probe(self) -> Probe:
        """The installed runtime. Never raises: the answer names any failure."""

    def versions(self) -> Mapping[str, str]:
        """Runtime, interpreter and machine. Raises DelegateUnavailable."""

    def executed_graph(self, model: Model, graph: Graph) -> ExecutedGraph:
        """The layers this runtime runs for the model file whose reading is ``graph``.

        It is ``graph`` itself where a runtime runs a file as it stands, the graph that the runtime writes
        down where it rewrites the file, else a prediction. Nothing else answers this question. Raises as
        ``run`` does.
        """

    def run(
        self, model: Model, feeds: Feeds, *, tensors: Tensors = "all", threads: int | None = None
    ) -> DelegateRun:
        """Runs one model once.

        ``threads`` defaults to what the lane needs to be repeatable. Raises
        FeedError for a feed that does not fit, UsageError for a thread count
        that would change the arithmetic, DelegateUnavailable, DelegateCrashed,
        DelegateTimeout, and DelegateError with the runtime's own message.
        """

    def run_many(
        self, jobs: Iterable[Job], *, tensors: Tensors = "outputs", threads: int | None = None
    ) -> Iterator[DelegateRun | DelegateError]:
        """Runs many models, typically one per layer, and yields one answer each, in order.

        A model the runtime refuses, crashes on or hangs on yields its error and
        does not stop the others. Raises as ``run`` does for everything else.
        """

    def close(self) -> None:
        """Ends the runtime."""

    def __enter__(self) -> Delegate: ...

    def __exit__(self, *exc: object) -> None: ...
