"""How a worker answers its parent; the scripts beside this module import it.

One JSON object per line on standard input asks; one on standard output answers. Whatever a runtime
prints goes to standard error. The worker ends, and removes its folder, as soon as standard input closes,
even in the middle of a run, or its answers are no longer read: a parent that dies leaves nothing.
"""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import sys
import threading
import warnings
from typing import Any


class Refused(Exception):
    """A request the worker answers with ``kind`` and a message instead of arrays."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    text = str(error).strip()
    return text.splitlines()[0] if text else ""


def read_requests(requests: queue.Queue[dict[str, Any]], scratch: str) -> None:
    """Feeds the queue from standard input; ends the process when its other end is gone."""
    parent = os.getppid()
    pending = b""
    while True:
        if os.name == "posix" and not select.select([0], [], [], 5.0)[0] and os.getppid() == parent:
            continue  # a process forked from the parent may hold the pipe open after the parent died
        chunk = os.read(0, 1 << 16) if os.getppid() == parent else b""
        if not chunk:
            leave(scratch)
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            requests.put(json.loads(line.decode("utf-8")))


def leave(scratch: str) -> None:
    """Ends the process and leaves no files, though another thread may be writing one this moment."""
    for _ in range(100):
        shutil.rmtree(scratch, ignore_errors=True)
        if not os.path.isdir(scratch):
            break
    os._exit(0)


def serve(make: Any) -> None:
    """Answers with ``make(scratch)`` until standard input closes or the answers are no longer read."""
    scratch = sys.argv[1]
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a runtime prints must not end up between two answers
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=read_requests, args=(requests, scratch), daemon=True).start()
    worker = make(scratch)
    while True:
        request = requests.get()
        try:
            answer = {"id": request["id"], "ok": True, **worker.answer(request)}
        except Refused as refused:
            answer = {"id": request["id"], "ok": False, "kind": refused.kind, "message": str(refused)}
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is the answer
            message = f"{type(error).__name__}: {str(error).strip()}"
            answer = {"id": request["id"], "ok": False, "kind": "error", "message": message}
        try:
            reply.write(json.dumps(answer) + "\n")
            reply.flush()
        except OSError:  # the parent died in the middle of a request
            leave(scratch)
