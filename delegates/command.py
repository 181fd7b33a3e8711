"""A runtime that a command line starts: its arrays travel as ``.npy`` files in two folders."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from karat24.delegates.base import OneByOne
from karat24.delegates.child import TIME_LIMIT
from karat24.delegates.dumps import read_npy_file, tensor_of
from karat24.delegates.fitting import Fit
from karat24.delegates.protocol import DelegateRun, ExecutedGraph, Model, Probe, Tensors
from karat24.refimpl.errors import (
    DelegateCrashed,
    DelegateError,
    DelegateTimeout,
    DelegateUnavailable,
    FeedError,
    UsageError,
)
from karat24.refimpl.feeds import resolve_feeds
from karat24.refimpl.graph import DTYPES, Array, Format, Graph
from karat24.refimpl.trace import Trace

if TYPE_CHECKING:
    from karat24.refimpl.feeds import Feeds

PLACES = ("{model}", "{inputs}", "{outputs}")
"""What a command must name: the model's file, the folder to read from and the one to write to."""

LAST_WORDS = 2000
"""Bytes of what a command printed that a message repeats."""

_OUTPUT = re.compile(r"output_(\d{1,6})")


class CommandDelegate(OneByOne):
    """A runtime behind ``command``, for instance ``my_runner {model} {inputs} {outputs}``.

    The command is started without a shell, once per run, in a process group of its own, which is killed
    after ``time_limit`` seconds. It finds the model's inputs as ``input_0.npy``, ``input_1.npy`` … in the
    model's order, and writes ``output_0.npy`` … likewise; a file named by the index or name of another
    tensor is that tensor. Arrays have the model's element types and shapes. Exit code 0 means that it ran.
    ``profile`` is the arithmetic the runtime is held to; nothing says which one it is.

    Raises UsageError for a command without one of :data:`PLACES`.
    """

    def __init__(
        self, command: str, format: Format, profile: str = "", time_limit: float = TIME_LIMIT
    ) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"the delegate's command {command!r}: {error}") from None
        missing = [place for place in PLACES if not any(place in word for word in self._words)]
        if missing or not self._words:
            raise UsageError(
                f"the delegate's command {command!r} does not name {', '.join(missing)}; write for instance "
                "'runner {model} {inputs} {outputs}'"
            )
        self.name = f"command {Path(self._words[0]).name}"
        self.format: Format = format
        self.profile, self.time_limit = profile, time_limit
        self.fit = Fit(profile)

    def probe(self) -> Probe:
        """Whether there is such a program; its version is the SHA-256 of its file."""
        if self._program is None:
            return Probe(
                False,
                self.name,
                reason=f"there is no program {self._words[0]!r}",
                remedy="name a program on the PATH, or its whole path",
            )
        try:
            with open(self._program, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            return Probe(
                False, self.name, reason=f"{self._program}: {error.strerror}", remedy="make it readable"
            )
        return Probe(True, self.name, f"sha256 {digest[:16]}")

    @cached_property
    def _program(self) -> str | None:
        return shutil.which(self._words[0])

    def versions(self) -> Mapping[str, str]:
        """The program's digest and the machine. Raises DelegateUnavailable."""
        probe = self.probe()
        if not probe.available:
            raise DelegateUnavailable(f"{self.name}: {probe.reason}; {probe.remedy}")
        return {self.name: probe.version, "machine": platform.machine()}

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
        """Runs the command once. Raises UsageError for a thread count, which no command is told."""
        if threads is not None:
            raise UsageError(f"{self.name}: a command is told no thread count; write it into the command")
        from karat24.export import read_model

        versions = self.versions()
        graph = read_model(model if isinstance(model, bytes) else _existing(model))
        fed = resolve_feeds(graph, feeds)
        with tempfile.TemporaryDirectory(prefix="karat24-") as scratch:
            inputs, outputs = Path(scratch, "inputs"), Path(scratch, "outputs")
            inputs.mkdir()
            outputs.mkdir()
            for place, index in enumerate(graph.inputs):
                np.save(inputs / f"input_{place}.npy", fed[index])
            path = Path(scratch, f"model.{self.format}") if isinstance(model, bytes) else model.resolve()
            if isinstance(model, bytes):
                path.write_bytes(model)
            self._start(dict(zip(PLACES, (str(path), str(inputs), str(outputs)), strict=True)))
            written = self._written(graph, outputs, tensors)
        missing = [graph.label(index) for index in graph.outputs if index not in written]
        if missing:
            raise DelegateError(f"{self.name}: wrote no values of output {', '.join(missing)}")
        trace = Trace(self.name, self.profile, {**fed, **written}, versions=versions)
        return DelegateRun(trace, tuple(written[index] for index in graph.outputs))

    def _start(self, places: Mapping[str, str]) -> None:
        words = self._words
        for place, path in places.items():
            words = [word.replace(place, path) for word in words]
        with tempfile.TemporaryFile() as log:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                raise DelegateUnavailable(f"{self.name}: cannot start {words[0]}: {error.strerror}") from None
            try:
                code = process.wait(self.time_limit)
            except subprocess.TimeoutExpired:
                raise DelegateTimeout(
                    f"{self.name}: did not end within {self.time_limit:g} s, so it was stopped; raise the "
                    "time limit if the model is merely large"
                ) from None
            finally:
                _end(process)
            if code:
                raise self._failure(code, log)

    def _failure(self, code: int, log: IO[bytes]) -> DelegateError:
        log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS))
        tail = log.read().decode("utf-8", "replace").strip()
        said = f"; it last said: {tail}" if tail else ""
        if code < 0:
            return DelegateCrashed(f"{self.name}: died of signal {-code}{said}")
        return DelegateError(f"{self.name}: ended with exit code {code}{said}")

    def _written(self, graph: Graph, folder: Path, tensors: Tensors) -> dict[int, Array]:
        """The arrays a run left, which must be what the model says. Raises DelegateError."""
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


def _existing(model: Path) -> Path:
    if not model.is_file():
        raise UsageError(f"{model}: No such file")
    return model


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and whatever it started and left in its group."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
