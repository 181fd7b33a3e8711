"""Whether a process that a test started is still there."""

from __future__ import annotations

import os
from pathlib import Path


def runs(process: int) -> bool:
    """Whether a process exists and is more than an entry its parent has not read."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.is_file() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")
