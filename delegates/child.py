"""Running a runtime in a child process, so that a crash or hang becomes a report."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np

from karat24.delegates.workers import TFLITE_WORKER
from karat24.refimpl.contract import LOCKS_NOTHING
from karat24.refimpl.errors import (
    DelegateCrashed,
    DelegateError,
    DelegateTimeout,
    DelegateUnavailable,
    FeedError,
)
from karat24.refimpl.graph import Array

TIME_LIMIT = 600.0
"""Seconds a runtime may take for one request unless told otherwise."""

MEMORY_MAPPED_FROM = 1 << 20
"""Arrays of at least this many bytes are mapped from their file instead of read."""

MODELS_KEPT = 4
"""Model files a worker may need at once: a model, and what ONNX Runtime makes of it at two levels."""

_REFUSALS: Mapping[str, type[DelegateError] | type[FeedError]] = {
    "unavailable": DelegateUnavailable,
    "feed": FeedError,
    "error": DelegateError,
}


class Child:
    """A worker process under ``python``; started when first asked, restarted after it died.

    ``name`` is the delegate's, for messages. Requests are answered one at a
    time, each within ``time_limit`` seconds. ``environment`` is added to this process's own variables.
    """

    def __init__(
        self,
        name: str,
        python: str = sys.executable,
        time_limit: float = TIME_LIMIT,
        worker: Path = TFLITE_WORKER,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name, self.time_limit = name, time_limit
        self._command = [python, str(worker)]
        self._environment = environment
        self._process: _Process | None = None
        self._lock = threading.Lock()
        self._requests = 0

    def ask(self, what: str, about: str, **request: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer.

        ``about`` names the subject of the request (a model), for messages. Raises
        DelegateTimeout, DelegateCrashed, DelegateError, DelegateUnavailable and FeedError.
        """
        with self._lock:
            self._requests += 1
            process = self._running()
            try:
                answer = process.ask({"ask": what, "id": self._requests, **request}, self.time_limit)
            except queue.Empty:
                self.stop()
                raise DelegateTimeout(
                    f"{self.name}: no answer about {about} within {self.time_limit:g} s, so the runtime was "
                    "stopped; raise the time limit if the model is merely large"
                ) from None
            except EOFError:
                tail, code = process.last_words(), process.exit_code()
                self.stop()
                raise _death(self.name, about, code, tail) from None
        if answer["ok"]:
            return answer
        subject = f"{self.name}: " if what == "probe" else f"{self.name}: {about}: "
        raise _REFUSALS[answer["kind"]](subject + answer["message"])

    def write_feed(self, array: Array) -> str:
        """Writes an array where the worker can read it; returns the path."""
        with self._lock:
            return self._running().write(array)

    def write_model(self, digest: str, content: bytes) -> Path:
        """Writes a model where the worker can read it; the last ``MODELS_KEPT`` stay there."""
        with self._lock:
            return self._running().write_model(digest, content)

    def _running(self) -> _Process:
        if self._process is None or not self._process.alive:
            self.stop()
            self._process = _Process(self.name, self._command, self._environment)
        return self._process

    def stop(self) -> None:
        """Ends the process, if one runs, and removes its files."""
        if self._process is not None:
            self._process.end()
            self._process = None


class _Process:
    """One process of the worker, and the folder of the arrays that it exchanges."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="karat24-"))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._written = 0
        self._models: list[Path] = []
        try:
            self._popen = subprocess.Popen(
                [*command, str(self.scratch)],
                env=_worker_environment(environment),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            )  # fmt: skip
        except OSError as error:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self._log.close()
            raise DelegateUnavailable(f"{name}: cannot start {command[0]}: {error.strerror}") from None
        # Runs when this object is dropped, and when the interpreter exits.
        self.end = weakref.finalize(self, _end, self._popen, self.scratch, self._log)
        assert self._popen.stdout is not None
        reading = self._popen.stdout, self._answers
        threading.Thread(target=_read_lines, args=reading, name=LOCKS_NOTHING, daemon=True).start()

    @property
    def alive(self) -> bool:
        return self.end.alive and self._popen.poll() is None

    def ask(self, request: Mapping[str, Any], time_limit: float) -> dict[str, Any]:
        """The answer. Raises queue.Empty when it is late and EOFError when the process died."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(request).encode() + b"\n")
            self._popen.stdin.flush()
        except OSError:
            raise EOFError from None
        line = self._answers.get(timeout=time_limit)
        if line is None:
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        return answer

    def exit_code(self) -> int:
        try:
            return self._popen.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its output but lingers
            self._popen.kill()
            return self._popen.wait()

    def last_words(self, lines: int = 5) -> str:
        """The last lines that the worker and its runtime printed."""
        self.exit_code()
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4096))
        text = self._log.read().decode("utf-8", "replace")
        return "\n".join(text.strip().splitlines()[-lines:])

    def write(self, array: Array) -> str:
        self._written += 1
        path = self.scratch / f"feed{self._written}.npy"
        np.save(path, array)
        return str(path)

    def write_model(self, digest: str, content: bytes) -> Path:
        path = self.scratch / f"{digest}.model"
        if path not in self._models:
            while len(self._models) >= MODELS_KEPT:
                self._models.pop(0).unlink(missing_ok=True)
            path.write_bytes(content)
            self._models.append(path)
        return path


def _worker_environment(added: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, without the switch that would hide a script's neighbours from it."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return {**own, **added}


def _read_lines(stream: IO[bytes], answers: queue.SimpleQueue[bytes | None]) -> None:
    with stream:
        for line in stream:
            answers.put(line)
    answers.put(None)


def _end(popen: subprocess.Popen[bytes], scratch: Path, log: IO[bytes]) -> None:
    popen.kill()
    popen.wait()
    if popen.stdin is not None:
        with contextlib.suppress(OSError):  # an unsent request may still be buffered
            popen.stdin.close()
    log.close()
    shutil.rmtree(scratch, ignore_errors=True)


def _death(name: str, about: str, code: int, tail: str) -> DelegateError:
    said = f"; it last said: {tail}" if tail else ""
    if code < 0:
        try:
            cause = signal.Signals(-code).name
        except ValueError:
            cause = f"signal {-code}"
        if cause == "SIGKILL":
            cause += " (the system kills a process that takes too much memory)"
        return DelegateCrashed(f"{name}: the runtime died of {cause} on {about}{said}")
    return DelegateError(f"{name}: the runtime ended with exit code {code} on {about}{said}")


def take_arrays(paths: Mapping[str, str]) -> dict[int, Array]:
    """Reads arrays a worker wrote, by tensor index, and removes their files.

    Large ones stay mapped: on POSIX a mapping outlives its file's name.
    """
    return {int(index): _take(Path(path)) for index, path in paths.items()}


def _take(path: Path) -> Array:
    mapped = os.name == "posix" and path.stat().st_size >= MEMORY_MAPPED_FROM
    array: Array = np.asarray(np.load(path, mmap_mode="r" if mapped else None))
    path.unlink()
    return array


def remove(paths: Sequence[str]) -> None:
    """Removes feed files once the worker has read them."""
    for path in paths:
        Path(path).unlink(missing_ok=True)
