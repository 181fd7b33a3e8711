"""Running Google's Edge TPU compiler, which is not shipped here, within a time limit."""

from __future__ import annotations

import math
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from karat24.delegates.edgetpu_log import CompilerLog, parse_log
from karat24.delegates.programs import run_program
from karat24.refimpl.errors import DelegateError, DelegateTimeout, DelegateUnavailable, UsageError

EDGETPU_COMPILER = "KARAT24_EDGETPU_COMPILER"
"""Environment variable naming the compiler where it is not on the PATH."""

PROGRAM = "edgetpu_compiler"

WHERE = (
    "it is Google's own, closed, for x86-64 Linux only, published as the Debian package edgetpu-compiler at "
    "https://packages.cloud.google.com/apt coral-edgetpu-stable; install it there, or name it in "
    f"{EDGETPU_COMPILER}"
)
TIME_LIMIT = 600.0
OUTPUT_KEPT = 1 << 20
"""Bytes of the compiler's output that are read."""


@dataclass(frozen=True)
class Compilation:
    """What the compiler wrote: one file, or one per segment, in order, and its log."""

    files: tuple[bytes, ...]
    log: CompilerLog


@dataclass(frozen=True)
class CompilerOptions:
    """The compiler's switches by its own names; None leaves its default.

    ``search_delegate`` lets it drop layers at the end until the rest compiles;
    ``several_subgraphs`` lets it map more than one run of layers.
    """

    min_runtime_version: int | None = None
    num_segments: int = 1
    search_delegate: bool = False
    several_subgraphs: bool = False
    intermediate_tensors: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """The switches as the command line takes them."""
        found: list[str] = []
        if self.min_runtime_version is not None:
            found += ["--min_runtime_version", str(self.min_runtime_version)]
        if self.num_segments > 1:
            found += ["--num_segments", str(self.num_segments)]
        if self.search_delegate:
            found.append("--search_delegate")
        if self.several_subgraphs:
            found.append("-a")
        if self.intermediate_tensors:
            found += ["--intermediate_tensors", ",".join(self.intermediate_tensors)]
        return found


def find_compiler() -> Path:
    """The compiler's absolute path, since it is started in another folder.

    Raises DelegateUnavailable, saying what it is and where its maker has it.
    """
    named = os.environ.get(EDGETPU_COMPILER)
    if named:
        path = shutil.which(named)
        if path is None:
            raise DelegateUnavailable(f"{EDGETPU_COMPILER} names {named!r}, which is not a program; {WHERE}")
        return Path(path).absolute()
    path = shutil.which(PROGRAM)
    if path is None:
        machine = platform.machine()
        here = "" if machine in ("x86_64", "AMD64") else f" (this machine is {machine})"
        raise DelegateUnavailable(f"the Edge TPU compiler is not installed{here}: {WHERE}")
    return Path(path).absolute()


def compile_model(
    content: bytes, options: CompilerOptions | None = None, time_limit: float = TIME_LIMIT
) -> Compilation:
    """Compiles a .tflite given by its content.

    The compiler works in a folder of its own, which is gone afterwards, with all its processes. Raises
    DelegateUnavailable without a compiler, DelegateTimeout, and DelegateError with the compiler's reason.
    """
    options = options or CompilerOptions()
    if not 0 < time_limit < math.inf:
        raise UsageError(f"a time limit of {time_limit:g} s; give more than 0, and an end")
    program = find_compiler()
    with tempfile.TemporaryDirectory(prefix="karat24-edgetpu-") as scratch:
        folder = Path(scratch)
        (folder / "model.tflite").write_bytes(content)
        seconds = str(max(1, int(time_limit)))
        switches = ["--show_operations", "--out_dir", scratch, "--timeout_sec", seconds, *options.arguments()]
        code, text = _run([str(program), *switches, str(folder / "model.tflite")], folder, time_limit)
        log = parse_log(text)
        found = [folder / name for name in _names(options.num_segments)]
        missing = [path.name for path in found if not path.is_file()]
        if log.failure or missing or code:
            raise DelegateError(f"{program.name}: {_reason(log, code, missing, text)}")
        return Compilation(tuple(path.read_bytes() for path in found), log)


def _names(segments: int) -> list[str]:
    """The files the compiler writes beside a model called model.tflite."""
    if segments == 1:
        return ["model_edgetpu.tflite"]
    return [f"model_segment_{n}_of_{segments}_edgetpu.tflite" for n in range(segments)]


def _run(command: list[str], folder: Path, time_limit: float) -> tuple[int, str]:
    """Exit code and output; the compiler's children end with it."""
    printed = folder / "printed.txt"
    with printed.open("wb") as output:
        try:
            code = run_program(command, time_limit, output, folder)
        except OSError as error:
            raise DelegateUnavailable(
                f"{command[0]}: cannot be started ({error.strerror}); {WHERE}"
            ) from None
        except subprocess.TimeoutExpired:
            raise DelegateTimeout(
                f"{Path(command[0]).name}: no result within {time_limit:g} s, so it was stopped; "
                "give it more time, or a smaller model"
            ) from None
    with printed.open("rb") as output:
        return code, output.read(OUTPUT_KEPT).decode("utf-8", "replace")


def _reason(log: CompilerLog, code: int, missing: list[str], text: str) -> str:
    """Its own reason, else its last line, else what it did not do."""
    if log.failure:
        return log.failure
    said = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    ended = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    wrote = f" and wrote no {missing[0]}" if missing else ""
    return f"it {ended}{wrote}" + (f"; it last said: {said}" if said else "")
