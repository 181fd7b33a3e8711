"""Writing files so that each is whole or absent, whatever interrupts the writer."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from karat24.refimpl.errors import UsageError

PARTIAL = ".partial"
"""The suffix of a file that is being written; its name begins with a dot, so that no pattern finds it."""


def partial_path(path: Path) -> Path:
    """A new name beside ``path`` for what will become it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under another name, forces it to the disk, and renames it.

    Raises UsageError when the disk is full.
    """

    def write(temporary: Path) -> None:
        with temporary.open("xb") as file:
            file.write(content)

    build_whole(path, write)


def build_whole(path: Path, build: Callable[[Path], None]) -> None:
    """As :func:`write_whole`, for a file that ``build`` makes at the path that it is given."""
    temporary = partial_path(path)
    try:
        build(temporary)
        _to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(
                f"{path.parent}: the disk is full; free some space and give the same command again "
                "(finished slices are kept)"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> int:
    """Removes what interrupted writers left in a folder and below it; returns how many files."""
    left = list(folder.rglob(f".*{PARTIAL}")) if folder.is_dir() else []
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def digest(content: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
