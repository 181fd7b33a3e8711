"""Keeping figures in one JSON file per day and processor, which is written after every contest."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from karat24.golden.provenance import cpu_name
from karat24.refimpl.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "karat24-benchmarks-1"


def default_path() -> Path:
    """``benchmarks/results/DATE-CPU.json``."""
    slug = "-".join("".join(c if c.isalnum() else " " for c in cpu_name().lower()).split())
    return ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-{slug}.json"


def load(path: Path) -> dict[str, Any]:
    """The content of a file of results, empty where there is none. Raises UsageError for any other file."""
    if not path.exists():
        return {"schema": SCHEMA, "contests": {}, "skipped": {}}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a file of results: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UsageError(
            f"{path}: not results of `python -m benchmarks` in form {SCHEMA}; name another file with --output"
        )
    return content


def keep(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all, since a run may be ended at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def compact(contest: Mapping[str, Any]) -> dict[str, Any]:
    """A contest's figures without the hundreds of single runs."""
    entries = [{**entry, "runs": len(entry["seconds"]), "seconds": []} for entry in contest["entries"]]
    return {**contest, "entries": entries}
