"""Each process of a test run keeps compiled kernels of its own: none loads what another one is writing."""

from __future__ import annotations

import os
from pathlib import Path

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if WORKER is not None:
    BASE = os.environ.get("KARAT24_CACHE_DIR") or str(Path(__file__).parents[1] / ".pytest_cache" / "kernels")
    os.environ["KARAT24_CACHE_DIR"] = str(Path(BASE) / WORKER)
