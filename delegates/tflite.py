"""The TFLite family: LiteRT, tflite-runtime (and the Edge TPU through these), TensorFlow Lite Micro."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from karat24.delegates.base import ChildDelegate
from karat24.delegates.c_library import remedy_here
from karat24.delegates.child import TIME_LIMIT, Child, remove, take_arrays
from karat24.delegates.fitting import Question, version_note
from karat24.delegates.protocol import DelegateRun, Model, Probe, Tensors
from karat24.delegates.workers import TFLITE_WORKER
from karat24.refimpl.errors import DelegateError, UsageError
from karat24.refimpl.graph import Array, Format
from karat24.refimpl.trace import Trace

if TYPE_CHECKING:
    from karat24.refimpl.engine import Feeds

TFLITE_PYTHON = "KARAT24_TFLITE_PYTHON"
"""Environment variable naming the interpreter of an environment that has tflite-runtime."""


GOOGLES = "pycoral"
"""A package of a name that another project's has on PyPI, so that its being here says nothing. Google's needs
tflite-runtime beside it."""

LITERT_PYTHON = "KARAT24_LITERT_PYTHON"
"""Environment variable naming the interpreter of an environment that has another version of LiteRT."""


@dataclass(frozen=True)
class TfliteLane:
    """One way the TFLite family runs a model.

    ``packages`` are tried in order. ``resolver`` names a member of the runtime's
    ``OpResolverType``. A lane whose *name* carries a version (``exact_version``) is unavailable
    under any other than its profile was established on. ``one_thread`` says why the
    thread count must stay 1, where it must. ``worker`` is the script that runs it.
    """

    name: str
    profile: str
    packages: tuple[str, ...]
    resolver: str
    exact_version: bool = False
    one_thread: str = ""
    remedy: str = ""
    worker: Path = TFLITE_WORKER


class TfliteDelegate(ChildDelegate):
    """A lane of LiteRT or tflite-runtime, run in a child process.

    ``time_limit`` is in seconds, per request.
    """

    format: Format = "tflite"

    def __init__(self, lane: TfliteLane, time_limit: float = TIME_LIMIT) -> None:
        self.lane, self.name, self.described_by = lane, lane.name, lane.profile
        self._child = Child(lane.name, python_for(lane), time_limit, lane.worker)
        self._request: dict[str, Any] = {"packages": lane.packages, "resolver": lane.resolver}
        self._remedy = remedy_here(lane.remedy)

    def probe(self) -> Probe:
        """What is installed, asked of the child: a library that kills its process is a reason too."""
        library = " or ".join(package.replace("_", "-") for package in self.lane.packages)
        try:
            answer = self._child.ask("probe", "loading its library", lane=self._request)
        except DelegateError as error:
            reason = str(error).removeprefix(f"{self.name}: ")
            return Probe(False, library, reason=reason, remedy=self._remedy)
        versions = answer["versions"]
        library, version = next(iter(versions.items()))
        note = version_note(self.described_by, library, version)
        if not note:
            return Probe(True, library, version)
        return Probe(not self.lane.exact_version, library, version, reason=note, remedy=self._remedy)

    def run(
        self,
        model: Model,
        feeds: Feeds,
        *,
        tensors: Tensors = "all",
        threads: int | None = None,
        check_capture: bool = True,
        first: bool = True,
    ) -> DelegateRun:
        """Runs one model once; see :class:`karat24.delegates.protocol.Delegate`.

        With ``tensors="all"`` the runtime is told to preserve every tensor, and
        ``check_capture`` runs the model a second time without being told, to
        show that the outputs stay the same. ``first`` is as in :meth:`run_in_sequence`.
        """
        threads = self._threads(threads)
        versions = self.versions()
        keys, arrays = _keyed(feeds)
        answer = self._answer(
            model, keys, arrays, threads=threads, tensors=tensors, check_capture=check_capture, first=first
        )
        return self._result(answer, arrays, versions)

    def run_in_sequence(
        self, model: Model, feeds: Feeds, *, first: bool, tensors: Tensors = "all", threads: int | None = None
    ) -> DelegateRun:
        """See :class:`karat24.delegates.protocol.Sequential`."""
        return self.run(model, feeds, tensors=tensors, threads=threads, first=first)

    def compute(self, question: Question) -> list[Array]:
        """See :class:`karat24.delegates.base.ChildDelegate`."""
        how = {"threads": 1, "tensors": "outputs", "check_capture": False, "first": True}
        answer = self._answer(question.model, None, question.feeds, **how)
        read = take_arrays(answer["tensors"])
        return [read[index] for index in answer["outputs"]]

    def _answer(
        self, model: Model, keys: list[int | str] | None, arrays: Sequence[Array], **how: Any
    ) -> dict[str, Any]:
        """What the child says of one run."""
        about, path, stamp = self._place(model)
        written = [self._child.write_feed(array) for array in arrays]
        try:
            feeds = {"keys": keys, "paths": written}
            return self._ask("run", about, model=str(path), stamp=stamp, feeds=feeds, **how)
        finally:
            remove(written)

    def run_tiles(self, model: Model, tiles: Array, threads: int | None = None) -> tuple[Array, float]:
        """Runs one tile after the other, ``[tile, y, x, channel]``, through a model of batch 1.

        Returns what it made of them, and the seconds they took, to and from the device: neither starting
        nor the way from and to the child process counts. Raises as :meth:`run` does.
        """
        about, path, stamp = self._place(model)
        written = self._child.write_feed(tiles)
        try:
            answer = self._ask(
                "tiles", about, model=str(path), stamp=stamp, threads=self._threads(threads), tiles=written
            )
        finally:
            remove([written])
        return take_arrays({"0": answer["results"]})[0], float(answer["seconds"])

    def _threads(self, threads: int | None) -> int:
        if self.lane.one_thread and threads not in (None, 1):
            raise UsageError(f"{self.name} runs on one thread: {self.lane.one_thread}")
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads asked for; at least one is needed")
        return threads or 1

    def _place(self, model: Model) -> tuple[str, Path, list[int]]:
        """What to call the model, where the child finds it, and what tells its versions apart."""
        if isinstance(model, bytes):
            digest = hashlib.sha256(model).hexdigest()[:16]
            return f"model {digest}", self._child.write_model(digest, model), []
        path = Path(model).resolve()
        try:
            stat = path.stat()
        except OSError as error:
            raise UsageError(f"{model}: {error.strerror}") from None
        return str(model), path, [stat.st_mtime_ns, stat.st_size]

    def _result(
        self,
        answer: Mapping[str, Any],
        arrays: list[Array],
        versions: Mapping[str, str],
    ) -> DelegateRun:
        read = take_arrays(answer["tensors"])
        outputs = tuple(read[index] for index in answer["outputs"])
        for index, array in zip(answer["fed"], arrays, strict=True):
            read[index] = array
        trace = Trace(self.name, self.profile, dict(sorted(read.items())), versions=versions)
        return DelegateRun(
            trace,
            outputs,
            {int(index): reason for index, reason in answer["unreadable"].items()},
            frozenset(answer["delegated"]),
            tuple(answer["capture_changed"]),
        )


def _keyed(feeds: Feeds) -> tuple[list[int | str] | None, list[Array]]:
    """Keys (None: in input order) and arrays."""
    if isinstance(feeds, Mapping):
        return list(feeds), [np.asarray(array) for array in feeds.values()]
    return None, [np.asarray(array) for array in feeds]


def python_for(lane: TfliteLane) -> str:
    """The interpreter the environment names for LiteRT; this one if it has the lane's runtime; else the one
    named for tflite-runtime."""
    if lane.packages == ("ai_edge_litert",) and os.environ.get(LITERT_PYTHON):
        return os.environ[LITERT_PYTHON]
    if any(importlib.util.find_spec(package) for package in lane.packages if package != GOOGLES):
        return sys.executable
    if "tflite_runtime" in lane.packages:
        return os.environ.get(TFLITE_PYTHON) or sys.executable
    return sys.executable
