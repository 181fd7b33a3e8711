"""One run at a time: a lock file that a crash does not leave closed.

Locks of the operating system fail on cluster file systems. A file that is created exclusively works on all of
them. Its owner touches it every few seconds; whoever finds one that was not touched for long, or whose
process is gone from this machine, takes it over. Ages are measured by the file system's own clock.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from karat24.refimpl.errors import UsageError

HEARTBEAT = 10.0
STALE = 180.0
"""Seconds between two touches, and after which silence means death."""
WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What file systems say that have no hard links, such as exFAT and some network shares."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock. Raises UsageError when a living process holds it."""
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex})
    while not _created(path, mine):
        _remove_stale(path)
    stop = threading.Event()
    beat = threading.Thread(target=_touch, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if _text(path) == mine:
            path.unlink(missing_ok=True)


def _created(path: Path, content: str) -> bool:
    """Creates the file with its content in one step: a link to a file that is already whole."""
    own = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    own.write_text(content)
    try:
        return _linked(own, path)
    finally:
        own.unlink()


def _linked(source: Path, path: Path) -> bool:
    """Makes ``path`` a link to ``source`` unless it is there. A file system without links gets an exclusive
    copy, which is empty for a moment: an empty lock counts as that of a living process."""
    try:
        os.link(source, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        try:
            with path.open("x") as file:
                file.write(source.read_text())
        except FileExistsError:
            return False
    return True


def _remove_stale(path: Path) -> None:
    """Removes the lock of a dead process; raises UsageError for a living one."""
    content = _text(path)
    if content is None:
        return
    owner = _owner(content)
    if _alive(owner) and _age(path) < STALE:
        raise UsageError(
            f"{path.parent}: process {owner.get('pid', '?')} on {owner.get('host', '?')} is restoring this "
            "volume; wait for it, or stop it"
        )
    # Two processes may find the same dead lock. Only the one that moves it away removes it; whoever moves a
    # lock that was renewed meanwhile puts it back.
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _text(aside) != content:
        _linked(aside, path)
    aside.unlink()


def _owner(content: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _alive(owner: dict[str, Any]) -> bool:
    """Whether the owner's process may live; of another machine, or of a lock that cannot be read, nothing is
    known."""
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("pid"), int):
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _age(path: Path) -> float:
    """Seconds since the lock was touched, by the clock that stamps files there."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _touch(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            os.utime(path)
        except FileNotFoundError:
            return
