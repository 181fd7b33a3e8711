"""A runtime that a command line starts: its arrays travel as ``.npy`` files in two folders."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO

from karat24.delegates.by_files import ByFiles, write_inputs
from karat24.delegates.child import TIME_LIMIT
from karat24.delegates.fitting import Fit
from karat24.delegates.programs import run_program
from karat24.delegates.protocol import Model, Probe, Tensors
from karat24.refimpl.errors import (
    DelegateCrashed,
    DelegateError,
    DelegateTimeout,
    DelegateUnavailable,
    UsageError,
)
from karat24.refimpl.graph import Array, Format, Graph

PLACES = ("{model}", "{inputs}", "{outputs}")
"""What a command must name: the model's file, the folder to read from and the one to write to."""

LAST_WORDS = 2000
"""Bytes of what a command printed that a message repeats."""


class CommandDelegate(ByFiles):
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

    def _computed(
        self, model: Model, graph: Graph, fed: Mapping[int, Array], tensors: Tensors
    ) -> dict[int, Array]:
        with tempfile.TemporaryDirectory(prefix="karat24-") as scratch:
            inputs, outputs = Path(scratch, "inputs"), Path(scratch, "outputs")
            outputs.mkdir()
            write_inputs(inputs, graph, fed)
            path = Path(scratch, f"model.{self.format}") if isinstance(model, bytes) else model.resolve()
            if isinstance(model, bytes):
                path.write_bytes(model)
            self._start(dict(zip(PLACES, (str(path), str(inputs), str(outputs)), strict=True)))
            return self.read_outputs(graph, outputs, tensors)

    def _start(self, places: Mapping[str, str]) -> None:
        words = self._words
        for place, path in places.items():
            words = [word.replace(place, path) for word in words]
        with tempfile.TemporaryFile() as log:
            try:
                code = run_program(words, self.time_limit, log)
            except OSError as error:
                raise DelegateUnavailable(f"{self.name}: cannot start {words[0]}: {error.strerror}") from None
            except subprocess.TimeoutExpired:
                raise DelegateTimeout(
                    f"{self.name}: did not end within {self.time_limit:g} s, so it was stopped; raise the "
                    "time limit if the model is merely large"
                ) from None
            if code:
                raise self._failure(code, log)

    def _failure(self, code: int, log: IO[bytes]) -> DelegateError:
        log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS))
        tail = log.read().decode("utf-8", "replace").strip()
        said = f"; it last said: {tail}" if tail else ""
        if code < 0:
            return DelegateCrashed(f"{self.name}: died of signal {-code}{said}")
        return DelegateError(f"{self.name}: ended with exit code {code}{said}")
