"""Running a program of somebody else's to its end, with whatever it starts, within bounds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from karat24.refimpl.errors import DelegateError

MOST_PRINTED = 64 << 20
"""Bytes a program may print: a broken one prints without end, and fills the disk."""

GLANCE = 0.25
"""Seconds between two looks at how much was printed."""


def run_program(
    words: Sequence[str], time_limit: float, output: IO[bytes] | None = None, folder: Path | None = None
) -> int:
    """The exit code, negative for a signal; ``output`` takes what is printed, else it goes where ours does.

    The program has no standard input and a session of its own, all of which is ended in every case. Raises
    OSError where it cannot be started, subprocess.TimeoutExpired, and DelegateError where it prints more
    than :data:`MOST_PRINTED`.
    """
    process = subprocess.Popen(
        words,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        if output is None:
            return process.wait(time_limit)
        return _watched(process, time_limit, output)
    finally:
        _end(process)


def _watched(process: subprocess.Popen[bytes], time_limit: float, output: IO[bytes]) -> int:
    deadline = time.monotonic() + time_limit
    while True:
        left = deadline - time.monotonic()
        try:
            return process.wait(min(left, GLANCE))
        except subprocess.TimeoutExpired:
            if os.fstat(output.fileno()).st_size > MOST_PRINTED:
                raise DelegateError(
                    f"{_name(process)}: printed more than {MOST_PRINTED >> 20} MiB, so it was stopped"
                ) from None
            if left <= GLANCE:
                raise


def _name(process: subprocess.Popen[bytes]) -> str:
    words = process.args
    return Path(str(words[0] if isinstance(words, list | tuple) else words)).name


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and whatever it started and left in its session."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
